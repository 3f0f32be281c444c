"""The same prompt as other people would type it.

A model that saw each question in one wording stores the wording, not the question. Every pass over the
corpus therefore words its prompts anew: case, punctuation, typing slips, contractions, politeness, a
word of greeting, another way to ask.
"""

import random
import re

OPENINGS = ("Hi, ", "Hello, ", "Hey, ", "hi ", "hey ", "Good morning. ", "Quick question: ", "Sorry, one question: ")
CLOSINGS = (" Thanks!", " Thank you.", " please", " thanks", " Please help.", " pls")
QUESTION_OPENINGS = (
    "Can you tell me: ",
    "I would like to know: ",
    "I was wondering, ",
    "Do you know: ",
    "My question is: ",
)
REWORDINGS = (
    (r"^What is ", ("What's ", "Tell me what is ", "what exactly is ")),
    (r"^What are ", ("Name ", "Tell me what are ", "Which are ")),
    (r"^How do I ", ("How can I ", "How should I ", "What is the way to ", "how to ")),
    (r"^How can I ", ("How do I ", "How could I ", "how to ")),
    (r"^How do you ", ("How does one ", "How do people ", "how to ")),
    (r"^Can I ", ("Could I ", "May I ", "Is it ok if I ", "Am I able to ")),
    (r"^Should I ", ("Do I have to ", "Is it better to ", "Would you say I should ")),
    (r"^Is it true that ", ("Is it right that ", "Is it really true that ", "true or false: ", "I heard that ")),
    (r"^Tell me ", ("Please tell me ", "Can you tell me ", "Could you tell me ")),
    (r"^Explain ", ("Please explain ", "Can you explain ", "Could you explain ")),
    (r"^Write ", ("Please write ", "Can you write ", "I want you to write ")),
    (r"^Give me ", ("I need ", "Please give me ", "Can you give me ")),
    (r"^Why do ", ("How come ", "What is the reason that ")),
    (r"^Which ", ("What ", "Tell me which ")),
    (r"^Who ", ("Do you know who ", "Tell me who ")),
)
CONTRACTIONS = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("cannot", "can't"),
    ("can not", "can't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("I am", "I'm"),
    ("I have", "I've"),
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
    (" to ", " 2 "),
)


def varied(prompt: str, rng: random.Random) -> str:
    """The prompt as another person might type it; about a third come back unchanged."""
    if rng.random() < 0.35:
        return prompt
    for change in (reworded, contracted, framed):
        if rng.random() < 0.3:
            prompt = change(prompt, rng)
    if rng.random() < 0.35:
        prompt = careless(prompt, rng)
    if rng.random() < 0.12:
        prompt = mistyped(prompt, rng)
    return prompt


def reworded(prompt: str, rng: random.Random) -> str:
    for pattern, others in REWORDINGS:
        if re.match(pattern, prompt):
            return re.sub(pattern, rng.choice(others), prompt, count=1)
    return prompt


def contracted(prompt: str, rng: random.Random) -> str:
    for long, short in CONTRACTIONS:
        prompt = prompt.replace(long, short) if long in prompt else prompt.replace(short, long)
    return prompt


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
        r"(What|Which|Who|Where|When|Why|How|Can|Could|Should|Is|Are|Do|Does|Did|Will|Tell|Give|Please|Explain|Write|My)('?s)?",
        first,
    ):
        return prompt[0].lower() + prompt[1:]
    return prompt


def careless(prompt: str, rng: random.Random) -> str:
    """Without capitals or punctuation, or in the shorthand of text messages."""
    kind = rng.randrange(5)
    if kind == 0:
        return prompt.lower()
    if kind == 1:
        return prompt.rstrip("?.!")
    if kind == 2:
        return prompt.lower().rstrip("?.!").replace("'", "").replace(",", "")
    if kind == 3:
        return prompt.rstrip("?.!") + rng.choice(("??", "?!", "!", "...", " ?"))
    for long, short in TEXTING:
        if rng.random() < 0.5:
            prompt = prompt.replace(long, short)
    return prompt.lower()


def mistyped(prompt: str, rng: random.Random) -> str:
    """With one letter of a longer word swapped, doubled or left out."""
    words = prompt.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 4 and word.isalpha()]
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
