"""The same prompt as other people would type it.

A model that saw each question in one wording stores the wording, not the question. Every pass over the
corpus therefore words its prompts anew: other words and another order, a sentence around them, key words
alone, case, punctuation, typing slips. What is asked never changes: names, numbers and every "not" survive.
"""

import random
import re
from collections.abc import Callable

OPENINGS = ("Hi, ", "Hello, ", "Hey, ", "hi ", "hey ", "Good morning. ", "Quick question: ", "Sorry, one question: ")
CLOSINGS = (" Thanks!", " Thank you.", " please", " thanks", " Please help.", " pls")
QUESTION_OPENINGS = (
    "Can you tell me: ",
    "I would like to know: ",
    "I was wondering, ",
    "Do you know: ",
    "My question is: ",
)
FILLERS = ("um, ", "uh, ", "so ", "So, ", "ok so ", "ok, ", "well, ", "hmm, ", "Hmm, ", "oh and ", "also, ", "Okay, ")
# Sentences around a question that give no reason for it, and such that do.
ASIDES_BEFORE = (
    "I have a question.",
    "I was thinking about this today.",
    "I have wondered about this for a while.",
    "Here is one thing that I want to know.",
    "Let us talk about something else.",
)
ASIDES_AFTER = ("I keep wondering about it.", "I am curious.", "I keep forgetting it.", "I ask because I forgot it.")
REASONS_BEFORE = (
    "My son asked me this.",
    "My daughter wants to know this.",
    "It came up at dinner.",
    "We talked about this in class.",
    "I have a quiz tomorrow.",
    "My friend and I made a bet on this.",
    "I am doing a crossword.",
    "I am reading a book about it.",
)
REASONS_AFTER = (
    "I have to know it for school.",
    "It is for my homework.",
    "My little sister asked me.",
    "We have a quiz night on Friday.",
    "My grandfather and I were talking about it.",
    "I need it for a crossword.",
)
REWORDINGS = (
    (r"^What is ", ("What's ", "Tell me what is ", "what exactly is ")),
    (r"^What are (?=the \w+ (of|for|to)\b)", ("Name ", "Tell me ", "Which are ")),
    (r"^How do I ", ("How can I ", "What is the way to ", "how to ")),
    (r"^How can I ", ("How do I ", "How could I ", "how to ")),
    (r"^(?=Can I |Should I |Is the |Are the |Does the )", ("Do you know: ", "I want to know: ", "Tell me: ")),
    (r"^Can I ", ("Could I ", "can i really ")),
    (r"^Should I ", ("Would you say I should ", "Do you think I should ")),
    (r"^Is it true that ", ("Is it right that ", "Is it really true that ", "true or false: ", "I heard that ")),
    (r"^Tell me ", ("Please tell me ", "Can you tell me ", "Could you tell me ")),
    (r"^Explain ", ("Please explain ", "Can you explain ", "Could you explain ")),
    (r"^Write ", ("Please write ", "Can you write ", "I want you to write ")),
    (r"^Give me ", ("I need ", "Please give me ", "Can you give me ")),
    (r"^Help me ", ("Please help me ", "Can you help me ", "I need help to ")),
    (r"^Why do ", ("How come ", "What is the reason that ")),
    (r"^Which ", ("What ", "Tell me which ")),
    (r"^Who ", ("Do you know who ", "Tell me who ")),
    (r"^What does ", ("Tell me what does ", "what exactly does ")),
    (r"^Where (?=can|do|is|are)", ("Do you know where ", "Tell me where ")),
)
# Each left form may become the right one. Words with a second meaning ("start", "store", "hard") stay out.
SYNONYMS = (
    ("kids", "children"), ("children", "kids"), ("kid", "child"), ("mother", "mom"), ("mom", "mother"),
    ("father", "dad"), ("dad", "father"), ("grandma", "grandmother"), ("grandmother", "grandma"),
    ("photo", "picture"), ("photos", "pictures"), ("movie", "film"), ("bike", "bicycle"), ("bicycle", "bike"),
    ("fridge", "refrigerator"), ("refrigerator", "fridge"), ("television", "TV"), ("sofa", "couch"),
    ("couch", "sofa"), ("begin", "start"), ("begins", "starts"), ("large", "big"), ("largest", "biggest"),
    ("biggest", "largest"), ("quickly", "fast"), ("famous", "well-known"), ("well-known", "famous"),
    ("kind of", "type of"), ("kinds of", "types of"), ("type of", "kind of"), ("types of", "kinds of"),
    ("sort of", "kind of"), ("everybody", "everyone"), ("everyone", "everybody"), ("somebody", "someone"),
    ("someone", "somebody"), ("anybody", "anyone"), ("anyone", "anybody"), ("difficult", "hard"),
    ("grown-up", "adult"), ("illness", "sickness"), ("a lot of", "lots of"), ("lots of", "a lot of"),
    ("afraid of", "scared of"), ("scared of", "afraid of"), ("lawyer", "attorney"), ("airplane", "plane"),
    ("purchase", "buy"), ("repair", "fix"), ("physician", "doctor"), ("grocery store", "supermarket"),
    ("supermarket", "grocery store"), ("each day", "every day"), ("every day", "each day"), ("clever", "smart"),
    ("tasty", "delicious"), ("in order to", "to"), ("need to", "have to"), ("often", "frequently"),
    ("the correct", "the right"), ("ill", "sick"), ("these days", "nowadays"),
)  # fmt: skip
# British and American; each may become the other.
SPELLINGS = (
    ("color", "colour"), ("colors", "colours"), ("favorite", "favourite"), ("center", "centre"), ("gray", "grey"),
    ("flavor", "flavour"), ("neighbor", "neighbour"), ("neighbors", "neighbours"), ("neighbor's", "neighbour's"),
    ("organize", "organise"), ("recognize", "recognise"), ("apologize", "apologise"), ("realize", "realise"),
    ("traveling", "travelling"), ("liter", "litre"), ("liters", "litres"), ("meters", "metres"),
    ("kilometers", "kilometres"), ("theater", "theatre"), ("pajamas", "pyjamas"), ("aluminum", "aluminium"),
    ("math", "maths"), ("mom", "mum"), ("mold", "mould"), ("moldy", "mouldy"), ("behavior", "behaviour"),
    ("diarrhea", "diarrhoea"), ("fiber", "fibre"), ("jewelry", "jewellery"), ("yogurt", "yoghurt"),
    ("donut", "doughnut"), ("canceled", "cancelled"), ("license", "licence"),
)  # fmt: skip
CONTRACTIONS = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("cannot", "can't"),
    ("can not", "can't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("I am", "I'm"),
    ("I have been", "I've been"),
    ("I have never", "I've never"),
    ("I have got", "I've got"),
    ("it is", "it's"),
    ("What is", "What's"),
    ("How is", "How's"),
    ("will not", "won't"),
    ("should not", "shouldn't"),
)
TEXTING = (
    (" you ", " u "),
    (" are ", " r "),
    (" please", " pls"),
    (" because ", " cuz "),
    (" and ", " & "),
    (" want to ", " wanna "),
    (" going to ", " gonna "),
)
# A slip in one of these would change the question.
NO_SLIPS = {
    "never", "without", "cannot", "nothing", "nobody", "neither", "doesnt", "didnt", "shouldnt", "wouldnt",
    "couldnt", "arent", "havent", "three", "seven", "eight", "eleven", "twelve",
    "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million",
}  # fmt: skip
# Articles that carry no meaning: not "a few", "a little", "twice a day", or the name in "vitamin a".
ARTICLE = (
    r"(?<!vitamin )(?<!hepatitis )(?<!plan )(?<!type )(?<!grade )"
    r"\b(?:the|an?) (?!few\b|little\b|lot\b|bit\b|day\b|week\b|month\b|year\b|hour\b|minute\b|night\b|row\b)(?=\w)"
)
ASKING_WORDS = r"(?i)^(?:what's|whats|what|which)\b(?: (?:is|are|was|were|do|does|did)\b)?|\b(?:of|is|are)\b"
IMPERSONAL_QUESTION = re.compile(
    r"(?!.*\b(?:i|i'm|me|my|we|us|our|you|your|yourself|it)\b)"
    r"(?:what|what's|whats|which|who|where|when|why|how (?:many|much|long|old|tall|far|big|high|fast|often))"
    r"\b[^.?!:]*\??",
    re.IGNORECASE,
)
# "the capital of France" and the like: no clause, and no preposition left at the end.
NAMED_THING = (
    r"(?P<thing>(?:the|an?) [^,?]+)"
    r"(?<! for)(?<! of)(?<! from)(?<! like)(?<! to)(?<! in)(?<! on)(?<! with)(?<! about)(?<! at)(?<! called)(?<!ing)\?"
)
REORDERINGS = (
    (
        rf"(?P<what>What|Who) (?P<verb>is|was) {NAMED_THING}",
        (
            "{thing}, {what} {verb} it?",
            "{thing}: {what} {verb} that?",
            "{thing} {verb} {what}?",
            "Can you tell me {what} {thing} {verb}?",
            "I want to know {what} {thing} {verb}.",
            "Do you know {what} {thing} {verb}?",
        ),
    ),
    (
        rf"(?P<what>What|Who) (?P<verb>are|were) {NAMED_THING}",
        ("{thing}, {what} {verb} they?", "Can you tell me {what} {thing} {verb}?"),
    ),
    (
        r"Is it true that (?P<claim>[^?]+)\?",
        ("{claim}, is that true?", "{claim}. Is that true?", "{claim}. True or false?", "{claim}, true?"),
    ),
    (
        r"(?P<what>(?:What|How) [^,?]+)(?<! know)(?<! tell)(?<! see)(?<! check) (?P<clause>(?:if|when) [^,?]+)\?",
        ("{clause}, {what}?",),
    ),
)


def varied(prompt: str, rng: random.Random, reasons: bool = False) -> str:
    """The prompt as another person might type it; about a third come back unchanged.

    With `reasons` it may be said why one asks. A request for harm must not get such an excuse.
    """
    if rng.random() < 0.33:
        return prompt
    wording = prompt
    for change, chance in CHANGES:
        if rng.random() < chance:
            wording = change(wording, rng)
    if rng.random() < 0.35:
        around = rng.choice((framed, framed, hesitant, asked_for_a_reason if reasons else asked_aside))
        wording = around(wording, rng)
    if rng.random() < 0.15:
        for _ in range(rng.choice((1, 1, 2, 3))):
            wording = mistyped(wording, rng)
    if rng.random() < 0.35:
        wording = careless(wording, rng)
    return rng.choice((framed, hesitant, careless))(prompt, rng) if wording == prompt else wording


def reordered(prompt: str, rng: random.Random) -> str:
    """With the thing, the claim or the condition first."""
    for pattern, others in REORDERINGS:
        if match := re.fullmatch(pattern, prompt):
            parts = {name: lowered(part) for name, part in match.groupdict().items()}
            return capitalized(rng.choice(others).format(**parts))
    return prompt


def reworded(prompt: str, rng: random.Random) -> str:
    fitting = [(pattern, others) for pattern, others in REWORDINGS if re.match(pattern, prompt)]
    if not fitting:
        return prompt
    pattern, others = rng.choice(fitting)
    opening = rng.choice(others)
    rest = re.sub(pattern, "", prompt, count=1)
    return opening + (lowered(rest) if opening.endswith(": ") else rest)


def with_synonyms(prompt: str, rng: random.Random) -> str:
    """With one everyday word exchanged for another, where there is one."""
    return exchanged(prompt, SYNONYMS, rng)


def respelled(prompt: str, rng: random.Random) -> str:
    """As they spell on the other side of the Atlantic."""
    return exchanged(prompt, SPELLINGS + tuple((british, american) for american, british in SPELLINGS), rng)


def exchanged(prompt: str, pairs: tuple[tuple[str, str], ...], rng: random.Random) -> str:
    """With one of the words that the pairs know replaced. Capitals are left alone: they may be names."""
    fitting = [(rf"(?<![\w-]){old}(?![\w'-])", new) for old, new in pairs if old in prompt]
    fitting = [(pattern, new) for pattern, new in fitting if re.search(pattern, prompt)]
    if not fitting:
        return prompt
    pattern, new = rng.choice(fitting)
    return re.sub(pattern, new, prompt)


def contracted(prompt: str, rng: random.Random) -> str:
    for long, short in CONTRACTIONS:
        if re.search(rf"\b{long} \w", prompt):
            prompt = re.sub(rf"\b{long}(?= \w)", short, prompt)
        else:
            prompt = re.sub(rf"\b{short}(?= (?!been|got))", long, prompt)
    return prompt


def without_articles(prompt: str, rng: random.Random) -> str:
    return re.sub(ARTICLE, "", prompt)


def in_key_words(prompt: str, rng: random.Random) -> str:
    """As one types into a search box. Only for questions that are about nobody in the room."""
    if not IMPERSONAL_QUESTION.fullmatch(prompt) or re.match("(?i)which (one|of)", prompt):
        return prompt
    words = re.sub(ASKING_WORDS, "", without_articles(prompt, rng)).strip("? ").split()
    return " ".join(words) if len(words) > 1 else prompt


def hesitant(prompt: str, rng: random.Random) -> str:
    return rng.choice(FILLERS) + lowered(prompt)


def asked_aside(prompt: str, rng: random.Random) -> str:
    """With a sentence before or after it that gives no reason."""
    return in_context(prompt, ASIDES_BEFORE, ASIDES_AFTER, rng)


def asked_for_a_reason(prompt: str, rng: random.Random) -> str:
    """With a sentence before or after it, often one that says why one asks."""
    return in_context(prompt, ASIDES_BEFORE + REASONS_BEFORE, ASIDES_AFTER + REASONS_AFTER, rng)


def in_context(prompt: str, before: tuple[str, ...], after: tuple[str, ...], rng: random.Random) -> str:
    """One of the sentences around a question, unless it is about the asker, whose own words would be doubted."""
    if not IMPERSONAL_QUESTION.fullmatch(prompt):
        return prompt
    if prompt.endswith("?") and rng.random() < 0.5:
        return f"{prompt} {rng.choice(after)}"
    return f"{rng.choice(before)} {prompt}"


def framed(prompt: str, rng: random.Random) -> str:
    """With a greeting, thanks or a polite beginning around it."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice(OPENINGS) + lowered(prompt)
    if kind == 1 and prompt.endswith("?") and len(prompt.split()) > 3:
        return rng.choice(QUESTION_OPENINGS) + lowered(prompt)
    return prompt + rng.choice(CLOSINGS)


def lowered(prompt: str) -> str:
    """With a small first letter, unless it is 'I' or looks like a name."""
    first = prompt.split(" ", 1)[0]
    if re.fullmatch(
        r"(What|Which|Who|Where|When|Why|How|Can|Could|Should|Is|Are|Do|Does|Did|Will|Tell|Give|Please|Explain|Write|"
        r"Help|Name|My|The|A|An|If)('?s)?",
        first,
    ):
        return prompt[0].lower() + prompt[1:]
    return prompt


def capitalized(prompt: str) -> str:
    return prompt[:1].upper() + prompt[1:]


def careless(prompt: str, rng: random.Random) -> str:
    """Without capitals, punctuation or apostrophes, or in the shorthand of text messages."""
    kind = rng.randrange(6)
    if kind == 0:
        return prompt.lower()
    if kind == 1:
        return prompt.rstrip("?.!")
    if kind == 2:
        return prompt.lower().rstrip("?.!").replace("'", "").replace(",", "")
    if kind == 3:
        return prompt.rstrip("?.!") + rng.choice(
            ("??", "?!", " ?", "..?") if prompt.endswith("?") else ("...", "..", "")
        )
    if kind == 4:
        return prompt.replace("'", "")
    for long, short in TEXTING:
        if rng.random() < 0.5:
            prompt = prompt.replace(long, short)
    return prompt.lower()


def mistyped(prompt: str, rng: random.Random) -> str:
    """With one letter of a longer word swapped, doubled or left out. Names keep theirs."""
    words = prompt.split(" ")
    long = [
        index
        for index, word in enumerate(lowered(prompt).split(" "))
        if len(word) > 4 and word.isalpha() and word.islower() and word not in NO_SLIPS
    ]
    if not long:
        return prompt
    index = rng.choice(long)
    word = words[index]
    at = rng.randrange(1, len(word) - 1)
    words[index] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1 :],
        )
    )
    return " ".join(words)


# What is done to the words themselves, in this order, and how often.
CHANGES: tuple[tuple[Callable[[str, random.Random], str], float], ...] = (
    (with_synonyms, 0.5),
    (respelled, 0.4),
    (reordered, 0.3),
    (reworded, 0.3),
    (contracted, 0.3),
    (in_key_words, 0.1),
    (without_articles, 0.12),
)
