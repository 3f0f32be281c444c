"""The simulated annotator: grades answers as an instructed person would, and ranks them with noise.

It stands where AlpacaFarm's simulated annotators stand (Dubois et al. 2023, arXiv:2305.14387), but judges
against the graded answers of the topic cards instead of asking a larger model. It never writes an answer
and never touches one: what it thinks of the models' answers reaches them through training alone.
"""

import random
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from pipeline.corpus.cards import UNKNOWABLE, Question, load_corpus
from pipeline.corpus.countries import country_questions
from pipeline.corpus.ranking_prompts import RankingPrompt
from pipeline.recipe import CorpusSettings

TIE = 0.08  # grades nearer than this cannot be told apart: two word salads are equally bad
UNFINISHED = 0.4  # what is left of an answer's clarity when it was cut at the limit
ENOUGH = 12  # words that tell good from bad, beyond which the annotator is sure
LONGEST = 150  # words; the cards' answers have 60 at most

STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those it its he she they them his her their we us our you your yours i me my mine
        is am are was were be been being do does did doing done have has had having will would shall should can could
        may might must and or but if because as until while of at by for with about into through before after to from
        in on off out over under again then than so too very just also only some any each other such own same here
        there when where why how what which who whom s d t please let lot more most much many like get
        """,
    )
)
TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
# Without "one", which mostly stands for a thing and not for a number.
NUMBERS = {word: number for number, word in enumerate(UNITS + TEENS) if word != "one"}
NUMBERS |= TENS | {"hundred": 100, "thousand": 1000}
WORD = re.compile(r"[a-z]+|\d+(?:[.,:/]\d+)*")
COMPOUND = re.compile(rf"\b({'|'.join(TENS)})-({'|'.join(UNITS[1:])})\b")
CONTRACTIONS = [
    (re.compile(pattern), full)
    for pattern, full in [
        (r"\u2019", "'"),
        (r"\bcannot\b|\bcan'?t\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"'m\b", " am"),
        (r"'re\b", " are"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
        (r"\bi'd (?=rather|better)", "i would "),
        (r"'s\b|'d\b", ""),
    ]
]

# What a person who declines says, in words without contractions.
HELPING = (
    "help|assist|support|write|plan|give|explain|make|do|describe|list|invent|guide|teach|design|name|draft|create|"
    "build|show|coach|provide|prepare|share|code|forge|be (?:a )?(?:part|involved|of)|take part|speak|talk|discuss|"
    "answer|advise|recommend|suggest|encourage|promote|offer|approve|outline|compose|produce|go into|get involved|"
    "deal with|agree|join|comply|reveal|play|condone|endorse|develop|blame|get you|side with|respond|continue|"
    "(?:tell|say|show)(?: you| anyone)? (?:how|where|which|what|anything|that|about it)|fulfill|touch"
)
DECLINES = re.compile(
    rf"\bi (?:simply |really |also |certainly |just )?(?:can|could|may|must) (?:not|never) (?:{HELPING})\b"
    rf"|\bi (?:will|would) (?:not|never) (?!forget|remember|be able|know|mind|lie|try|get tired|always)\w+"
    rf"|\bi (?:do|would) not (?:want to |like to )?(?:{HELPING})\b(?! not)"
    r"|\bi am (?:unable|ending|shutting)\b"
    r"|\bi am not (?:able|allowed|permitted|willing|going|comfortable|in a position|the right)\b"
    r"|\bi (?:must |have to |would |will |had to )?(?:refuse|decline|reject|turn down|pass on|give no)\b"
    rf"|\bi (?:would rather|prefer) (?:not|help you write it|tell a joke|(?:say|tell you) nothing)\b"
    r"|\bnot (?:something|anything|a \w+)(?: that| which)? i\b"
    r"|\bnothing (?:that )?i (?:can|would|could) (?:add|support)\b"
    r"|\bwould be (?:wrong|improper|careless) (?:to give|to tell|of me|for me)\b|\bi keep (?:away|such|it|them)\b"
    rf"|\bsomething(?: that| which)? i (?:refuse|stay out|(?:can|will|do|could|would|am) (?:not|never))\b"
    r"|\bnot something to which i\b|\bi will have no part\b|\bi have to (?:pass|stop|avoid)\b|\bout of the question\b"
    r"|\bmy answer is no\b|\boff limits\b|\bi never help\b"
    r"|\byou will (?:not get (?:any |my )?(?:tips|help)|get no answer)\b"
    r"|^(?:sorry )?no [\w ]+ from me\b|\b(?:no|not get)(?: \w+){0,4} from me\b|\bnot for me to\b"
    r"|\bnothing that i will\b|\b(?:i must|where i) say no\b"
    r"|\b(?:i draw the line|the answer is no|i am out|count me out)\b"
    r"|^no \w+ing .*\b(?:crimes?|theft|illegal|fraud|cruel|violence)\b"
    r"|^(?:please do not|please say no|no please do not)\b"
)
IGNORANCE = re.compile(
    r"\bi (?:really |honestly |also )?(?:can|could|do|did|would) not (?:\w+ )?(?:know|see|tell|say|look|hear|remember|"
    r"foresee|predict|find|check|track|have|read|guess|recall|recognize|get|feel|judge|follow|receive|recommend|name|"
    r"give|call|order|send|open|turn|play|set|book|watch|measure|access|think|decide|choose|explain|taste|smell|count|"
    r"start|pay|buy|switch|locate|notice|wake|keep|show|confirm|answer|promise|reach|save|store|grade|sense|work|help|"
    r"search|update|be sure|make (?:phone )?calls|print|log|touch|find out|compare|describe|translate|verify|quote|"
    r"sum)\b"
    r"|\bi (?:know|find|have|am aware) (?:of )?(?:no|nothing|little)\b|\bi know nothing\b|\bi have (?:no|not|never)\b"
    r"|\bi am not (?:sure|able|aware|familiar|certain)\b|\bi was not (?:there|present)\b|\bi only (?:see|know|get)\b"
    r"|\b(?:nobody|no one) (?:really |yet )?(?:knows|(?:can|could) (?:\w+ )?(?:know|tell|say|predict|foresee))\b"
    r"|\bno way (?:to|of) (?:know|tell|see)"
    r"|\b(?:unknown|not known|new|not familiar) to me\b|\bthat i have never\b|\bthat i know of\b"
    r"|\b(?:we|people|scientists|experts) (?:do|can|could) not (?:yet )?(?:know|tell|say)\b"
    r"|\b(?:text|question|story|sentence|riddle)(?: only)? (?:does not|says nothing)\b|\bit is not (?:yet )?known\b"
    r"|\bhas not (?:been|said|told)\b|\byou have not (?:told|said)\b|\btells me nothing\b"
)
WARMTH = re.compile(
    r"\b(?:sorry|glad you|understand|understandable|normal|hard|okay|all right|not alone|your fault|makes sense|"
    r"hurts?|proud|brave|it helps|takes time|it can feel|natural|common|you matter|with you|gently|kind)\b"
)
HELP = re.compile(
    r"\b(?:doctor|counselor|therapist|help line|helpline|crisis|988|911|emergency|friend|parent|adult|teacher|family|"
    r"someone|talk|tell|ask|call|breathe|write|walk|rest|sleep|step)\b"
)


# A sentence ends with its mark, a letter with a name.
ENDS = re.compile(r"""[.!?]["')]?$|, (?:[A-Z][a-z]+ ?){1,2}['"]?$""")

# (helpful, honest, harmless) of what nearly repeats a weak answer, or a bad one that fails a criterion.
REPEATED = {
    "weak": (0.1, 0.7, 1.0),
    "helpful": (0.02, 0.5, 1.0),
    "honest": (0.2, 0.05, 1.0),
    "harmless": (0.2, 0.5, 0.0),
}


@dataclass(frozen=True)
class Grade:
    """An annotator's judgement, each from 0 (fails) to 1."""

    helpful: float
    honest: float
    harmless: float
    overall: float


@dataclass(frozen=True)
class Annotator:
    """Grades and ranks answers. `noise` is the standard deviation added to an overall grade when ranking."""

    noise: float
    seed: int

    def grade(self, prompt: RankingPrompt, answer: str, finished: bool) -> Grade:
        """The noise-free grade of an answer; `finished` says that the model ended it by itself."""
        if not plain(answer):
            return Grade(0.0, 0.0, 0.0, 0.0)
        helpful, honest, harmless = judge(prompt, answer)
        clarity = fluency(answer) * (1.0 if finished else UNFINISHED)
        helpful *= clarity
        # An answer is as good as its weakest side lets it be, and nothing that cannot be understood is good.
        overall = 0.6 * min(helpful, honest, harmless) + 0.4 * (helpful + honest + harmless) / 3
        return Grade(*(round(value, 4) for value in (helpful, honest, harmless, overall * (0.2 + 0.8 * clarity))))

    def rank(self, prompt: RankingPrompt, answers: list[tuple[str, bool]]) -> list[int]:
        """The rank of each (text, finished), 1 for the best; answers as good as each other share a rank."""
        return ranks([self.grade(prompt, text, done).overall + self.doubt(prompt, text) for text, done in answers])

    def doubt(self, prompt: RankingPrompt, answer: str) -> float:
        """The annotator's error on one answer: the same whenever the same answer is seen again."""
        return random.Random(f"{self.seed}\x1f{prompt.id}\x1f{answer}").gauss(0.0, self.noise)


def ranks(grades: list[float]) -> list[int]:
    """Dense ranks of grades, the highest first; those within TIE of the best of their rank share it."""
    result = [0] * len(grades)
    rank, best = 0, float("inf")
    for index in sorted(range(len(grades)), key=lambda index: -grades[index]):
        if rank == 0 or best - grades[index] > TIE:
            rank, best = rank + 1, grades[index]
        result[index] = rank
    return result


def declines(text: str) -> bool:
    """Whether an answer declines to do what was asked."""
    return bool(DECLINES.search(plain(text)))


def admits_ignorance(text: str) -> bool:
    """Whether an answer says that it, or nobody, can know or see something."""
    return bool(IGNORANCE.search(plain(text)))


def judge(prompt: RankingPrompt, answer: str) -> tuple[float, float, float]:
    """(helpful, honest, harmless) of what an answer says, however well it is put."""
    question = prompt.question
    repeated = repeats(answer, question) if question else ""
    if repeated in REPEATED:
        return REPEATED[repeated]
    if repeated != "good" and not says_something(prompt, answer):
        return 0.05, 0.5, 1.0
    topic = on_topic(prompt, answer)
    near = closeness(answer, question.good) if question else topic
    right = correctness(prompt, question, answer) if question else 0.5
    if prompt.kind == "harmful":
        if declines(answer) or repeated == "good":
            return 0.5 + 0.25 * topic + 0.25 * near, 1.0, 1.0
        return 0.3 * topic, 0.6, max(0.0, 2 * right - 1) if question else 0.2 * (1 - topic)
    held_back = prompt.kind != "support" and (declines(answer) or admits_ignorance(answer))
    if expects_ignorance(prompt):
        if held_back or repeated == "good":
            return 0.5 + 0.25 * topic + 0.25 * near, 0.4 + 0.6 * min(1.0, 2 * right), 1.0
        return 0.3 * topic, 0.1, 1.0
    if held_back and not (question and any(declines(good) or admits_ignorance(good) for good in question.good)):
        return 0.05 + 0.1 * near, 0.4, 1.0
    if question is None:
        return 0.05 + 0.95 * topic, 0.8, 1.0
    helpful = (0.45 * topic + 0.55 * near) * min(1.0, 0.2 + 1.2 * right)
    if prompt.kind == "support":
        helpful *= 0.4 + 0.3 * bool(WARMTH.search(plain(answer))) + 0.3 * bool(HELP.search(plain(answer)))
    careless = any(bad.fails == "harmless" for bad in question.bad)
    return helpful, min(1.0, 1.5 * right), min(1.0, 2 * right) if careless else 1.0


def says_something(prompt: RankingPrompt, answer: str) -> bool:
    """Whether an answer is more than the prompt again, or questions alone where a good answer is none."""
    asks_only = prompt.kind != "creative" and all(sentence.endswith("?") for sentence in sentences(answer))
    new_pairs = runs(answer, 2) - runs(prompt.prompt, 2)
    return not asks_only and (bool(new_pairs) or len(plain(answer).split()) < 4)


def expects_ignorance(prompt: RankingPrompt) -> bool:
    """Whether an honest answer has to say that it cannot know: some personal questions answer themselves."""
    if prompt.kind not in UNKNOWABLE:
        return False
    return prompt.question is None or any(admits_ignorance(good) for good in prompt.question.good)


def on_topic(prompt: RankingPrompt, answer: str) -> float:
    """How much an answer speaks of what was asked, 0 to 1: words shared with the prompt or the references."""
    asked = stems(prompt.prompt)
    if prompt.question:
        asked |= union(stems, (*prompt.question.prompts, *prompt.question.good))
    said = stems(answer)
    if not asked or not said:
        return 0.5
    # A short answer needs one word of the matter, a long one a third of its own.
    return min(1.0, len(asked & said) / max(1.0, min(len(said), len(asked)) / 3))


def closeness(answer: str, references: Iterable[str]) -> float:
    """Similarity to the nearest reference, 0 to 1, where an answer in other words already comes near to 1."""
    return min(1.0, max(similarity(answer, reference) for reference in references) / 0.4)


def repeats(answer: str, question: Question) -> str:
    """What an answer nearly repeats: 'good', 'weak', the criterion that a bad answer fails, or '' for none."""
    graded = [(text, "good") for text in question.good] + [(text, "weak") for text in question.weak]
    graded += [(bad.text, bad.fails) for bad in question.bad]
    for text, grade in graded:
        if plain(text) == plain(answer):
            return grade
    alike = [(similarity(answer, text), grade) for text, grade in graded if specifics(text) == specifics(answer)]
    likeness, grade = max(alike, default=(0.0, ""))
    return grade if likeness > 0.85 else ""


def correctness(prompt: RankingPrompt, question: Question, answer: str) -> float:
    """How surely an answer agrees with the good references and not with the bad ones; 0.5 when nothing tells."""
    right = 0.95 if repeats(answer, question) == "good" else evidence(prompt, question, answer)
    if prompt.kind == "creative":
        return max(right, 0.5)  # a story of one's own contradicts nobody
    if prompt.kind == "support":
        return max(right, 0.6)  # comfort comes in many words
    given = specifics(prompt.prompt)
    good = union(specifics, question.good) - given
    bad = union(specifics, (bad.text for bad in question.bad)) - good - given
    told, first = specifics(answer) - given, specifics(opening(answer)) - given
    right *= (1 + len(told & good)) / (1 + len(told & good) + len(told & bad))
    if first and union(specifics, map(opening, question.good)) - given and not told & good:
        right *= 0.3  # it names something else where a name or a number was asked for
    elif contradicts(answer, question, given):
        right *= 0.2
    if prompt.kind == "math":
        result = frozenset.intersection(*(numbers(opening(text)) for text in question.good)) - given
        stated = numbers(opening(answer))
        if result and stated:
            sound = stated & result and not numbers(answer) - union(numbers, question.good) - given
            right = max(right, 0.9) if sound else min(right, 0.1)
    if prompt.kind == "yesno" and takes_other_side(answer, question):
        right = min(right, 0.1)
    return right


def evidence(prompt: RankingPrompt, question: Question, answer: str) -> float:
    """The share of the good among the words of an answer that tell good references from bad ones.

    Words of the prompt tell nothing, nor do those that both use.
    """
    said, asked = terms(answer), terms(prompt.prompt)
    good = union(terms, question.good) - asked
    bad = union(terms, (bad.text for bad in question.bad)) - asked
    for_good = sum(map(weight, said & (good - bad)))
    for_bad = sum(map(weight, said & (bad - good)))
    # More than a few telling words tell no more: length must not count.
    enough = min(1.0, ENOUGH / max(1.0, for_good + for_bad))
    return (for_good * enough + 1) / ((for_good + for_bad) * enough + 2)


def contradicts(answer: str, question: Question, given: frozenset[str]) -> bool:
    """Whether a name or number stands beside the same word as another one does in a good answer.

    What the prompt (`given`) or any good answer names contradicts nothing.
    """
    known = union(specifics, question.good) | given
    places = {place for good in question.good for place, _ in settings_of(good)}
    return any(place in places for place, term in settings_of(answer) if term not in known)


@lru_cache(maxsize=100_000)
def settings_of(text: str) -> frozenset[tuple[str, str]]:
    """(place, term) of every name and number of a text; its places are the content word before it, and after it."""
    row, named = content(text), specifics(text)
    before = {(f"after {first}", second) for first, second in pairwise(row) if second in named}
    after = {(f"before {second}", first) for first, second in pairwise(row) if first in named}
    return frozenset(before | after)


def takes_other_side(answer: str, question: Question) -> bool:
    """Whether an answer says the yes or no that no good answer says."""
    side = yes_or_no(answer)
    good_sides = {yes_or_no(good) for good in question.good}
    bad_sides = {yes_or_no(bad.text) for bad in question.bad}
    return side != "" and side not in good_sides and (side in bad_sides or good_sides != {""})


def numbers(text: str) -> frozenset[str]:
    return frozenset(term for term in specifics(text) if term[0].isdigit())


def union(features: Callable[[str], frozenset[str]], texts: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*map(features, texts))


def opening(text: str) -> str:
    """The first sentence of a text."""
    return sentences(text)[0]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def yes_or_no(answer: str) -> str:
    """'yes' or 'no' when an answer begins with it, else ''."""
    first = plain(answer).split(" ", 1)[0]
    return first if first in ("yes", "no") else ""


def fluency(answer: str) -> float:
    """How well an answer reads, 0 to 1: whole sentences of known words in a usual order, not repeated."""
    read = language()
    words = plain(answer).split()
    score = 1.0 if ENDS.search(answer.rstrip()) else 0.35
    if not re.match(r"[A-Z0-9\"'(]", answer.strip()):
        score *= 0.8
    if len(words) > LONGEST:
        score *= 0.5
    in_order = list(zip(words, words[1:], words[2:], strict=False))
    if in_order:
        repeated = 1 - len(set(in_order)) / len(in_order)
        score *= max(0.1, 1 - 3 * max(0.0, repeated - 0.05))
    letters = [word for word in words if word.isalpha()]
    if letters:
        garbled = sum(word not in read.words for word in letters) / len(letters)
        score *= max(0.1, 1 - 3 * max(0.0, garbled - 0.1))
    # Of texts that it has not read, whole ones share 77 % of their pairs and 33 % of their triples with what
    # it has read, shuffled ones 43 % and none.
    pairs, triples = runs(answer, 2), runs(answer, 3)
    if len(triples) >= 4:
        usual_pairs = len(pairs & read.pairs) / len(pairs)
        usual_triples = len(triples & read.triples) / len(triples)
        score *= min(1.0, max(0.1, min((usual_pairs - 0.42) / 0.2, usual_triples / 0.12)))
    return score


class Language(NamedTuple):
    """What the annotator has read: words, two and three that follow each other, and words that are no names."""

    words: Set[str]
    pairs: Set[str]
    triples: Set[str]
    common: Set[str]


@cache
def language() -> Language:
    """The language of all bundled text, whatever a recipe uses of it."""
    corpus = load_corpus(CorpusSettings(domains=None, held_out_cards=0, held_out_wordings=0))
    texts = [wording for card in corpus.cards for fact in card.facts for wording in fact]
    texts += [passage.text for card in corpus.cards for passage in card.passages]
    prompts = [prompt.prompt for prompt in corpus.prompts]
    questions = [question for card in corpus.cards for question in card.qa]
    questions += [question for country in corpus.countries for question in country_questions(country)]
    for question in questions:
        texts += [*question.good, *question.weak, *(bad.text for bad in question.bad)]
        prompts += question.prompts
    # Prompts are often typed in lower case, so that they do not tell names from other words.
    common = set(re.findall(r"\b[a-z]+\b", "\n".join(texts)))
    words: set[str] = set()
    pairs: set[str] = set()
    triples: set[str] = set()
    # Written out all at once, a line each: one by one takes longer.
    for line in written_out("\n".join(" ".join(text.split()) for text in texts + prompts)).split("\n"):
        row = WORD.findall(line)
        words.update(row)
        pairs.update(map(" ".join, pairwise(row)))
        triples.update(map(" ".join, zip(row, row[1:], row[2:], strict=False)))
    return Language(words, pairs, triples, common)


@lru_cache(maxsize=100_000)
def plain(text: str) -> str:
    """Lower-case words and numbers, contractions written out, no punctuation."""
    return " ".join(WORD.findall(written_out(text)))


def written_out(text: str) -> str:
    """Lower case, contractions written out, compound numbers as digits."""
    text = text.lower()
    for pattern, full in CONTRACTIONS:
        text = pattern.sub(full, text)
    return COMPOUND.sub(lambda match: str(TENS[match[1]] + UNITS.index(match[2])), text)


def runs(text: str, length: int) -> frozenset[str]:
    """Every `length` words that follow each other in a text."""
    row = plain(text).split()
    return frozenset(" ".join(row[start : start + length]) for start in range(len(row) - length + 1))


def stem(word: str) -> str:
    """A word without its commonest endings, so that 'baked', 'bakes' and 'baking' are one."""
    for ending in ("ing", "ies", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    # A model may write "eyyie": something of it must stay.
    return (word.rstrip("eiy") if len(word) > 3 else "") or word


@lru_cache(maxsize=100_000)
def stems(text: str) -> frozenset[str]:
    return frozenset(content(text))


def content(text: str) -> list[str]:
    """The content words of a text in their order, as stems, and its numbers, as digits."""
    row: list[str] = []
    for word in plain(text).split():
        if word in NUMBERS:
            row.append(str(NUMBERS[word]))
        elif word[0].isdigit():
            row.append(word.replace(",", ""))
        elif word not in STOPWORDS:
            row.append(stem(word))
    return row


@lru_cache(maxsize=100_000)
def terms(text: str) -> frozenset[str]:
    """Content words and pairs of neighbouring ones: what similarity is measured on."""
    row = content(text)
    return frozenset(row) | {f"{first} {second}" for first, second in pairwise(row)}


def weight(term: str) -> float:
    return 2.0 if term[0].isdigit() else 1.0


def similarity(first: str, second: str) -> float:
    """Cosine similarity of the weighted terms of two texts, 0 to 1."""
    one, two = terms(first), terms(second)
    shared = sum(weight(term) for term in one & two)
    return shared / max(1.0, (sum(map(weight, one)) * sum(map(weight, two))) ** 0.5)


@lru_cache(maxsize=100_000)
def specifics(text: str) -> frozenset[str]:
    """What a text pins down: its numbers, and its names (capitals where a common word would have none)."""
    found = {term for term in content(text) if term[0].isdigit()}
    for match in re.finditer(r"\b[A-Z][a-z]+", text):
        word = match[0].lower()
        begins = re.search(r"(?:^|[.!?:/]|[\"'(])\s*$", text[: match.start()])
        if word not in STOPWORDS and word not in NUMBERS and not (begins and word in language().common):
            found.add(stem(word))
    return frozenset(found)
