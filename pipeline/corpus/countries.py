"""What a table of countries becomes: questions with graded answers, statements, and entries.

Six topics are asked about. Their templates are filled with a country's own words; a template is held out
for all countries or for none. Who owns Jerusalem is disputed, so the capitals of Israel and Palestine are
neither asked for nor stated.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.corpus.cards import BadAnswer, Country, Question
from pipeline.corpus.splits import country_is_held_out, fraction, held_in

DISPUTED_CAPITAL = ("Israel", "Palestine")


@dataclass(frozen=True)
class Topic:
    """One thing to ask about a country: templates of prompts and answers.

    `value` is what the good answers name, or None where there is nothing to ask. `rivals` says whether
    another country's value would surely be wrong.
    """

    name: str
    prompts: tuple[str, ...]
    good: tuple[str, ...]
    weak: str
    value: Callable[[Country], str | None]
    rivals: Callable[[Country, Country], bool]


def capital(country: Country) -> str | None:
    return None if country.country in DISPUTED_CAPITAL else country.capital


def place(country: Country) -> str:
    """Where a country lies, after 'is': 'in Europe'."""
    return "on the continent of Australia" if country.country == "Australia" else f"in {country.continent}"


def nameable_neighbors(country: Country) -> str | None:
    """Neighbors that its questions may name: those of a held-in country never name a held-out one."""
    names = [
        neighbor
        for neighbor in country.neighbors
        if country_is_held_out(country.country) or not country_is_held_out(neighbor)
    ]
    return listed(names) if names else None


def listed(names: Sequence[str]) -> str:
    """'Spain', 'Spain and Italy', 'Spain, Italy and Germany'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def far_apart(one: Country, other: Country) -> bool:
    return not set(one.continent.split()) & set(other.continent.split()) - {"North", "South"}


def share_no_language(one: Country, other: Country) -> bool:
    return not set(one.language.replace(",", "").split()) & set(other.language.replace(",", "").split()) - {"and"}


TOPICS = (
    Topic(
        "capital",
        (
            "What is the capital of {country}?",
            "whats the capital of {sloppy}",
            "capital of {sloppy}",
            "Which city is the capital of {country}?",
            "Tell me the capital city of {country}.",
            "Can you name the capital of {country}?",
            "I have a quiz tomorrow. What is the capital of {country}?",
            "I forgot what {possessive} capital is called. Do you know?",
        ),
        (
            "The capital of {country} is {value}.",
            "{Value} is the capital of {country}. The country is {place} and is known for {known_for}.",
            "The capital city of {country} is called {value}. A famous sight in the country is {landmark}.",
        ),
        "It is a city, and you can find it on a map.",
        capital,
        lambda one, other: other.country not in DISPUTED_CAPITAL and not far_apart(one, other),
    ),
    Topic(
        "language",
        (
            "What language do people speak in {country}?",
            "what do they speak in {sloppy}",
            "{sloppy} language",
            "Tell me which languages are spoken in {country}.",
            "I am traveling to {country}. What will I hear people speak?",
            "Which language should I learn if I want to live in {country}?",
        ),
        (
            "People in {country} speak {value}.",
            "In {country} you will mostly hear {value}, so it helps to learn a few words before you travel there.",
            "The main {languages} of {country} {are} {value}. Hello and thank you are the best words to learn first.",
        ),
        "They have their own way of talking there.",
        lambda country: country.language,
        # English is understood in too many places to be surely wrong.
        lambda one, other: (
            far_apart(one, other) and share_no_language(one, other) and "English" not in other.language
        ),
    ),
    Topic(
        "currency",
        (
            "What is the currency of {country}?",
            "what money do they use in {sloppy}",
            "{sloppy} currency",
            "Which currency do people use in {country}?",
            "I am flying to {country} next week. What money do I need?",
            "Tell me what people pay with in {country}.",
        ),
        (
            "The currency of {country} is the {value}.",
            "People in {country} pay with the {value}. You can change your money at a bank.",
            "In {country} you need the {value}. It is good to have a little cash when you arrive.",
        ),
        "You need money there, as in most places.",
        lambda country: country.currency,
        # The US dollar is taken in many countries that have a currency of their own.
        lambda one, other: far_apart(one, other) and other.currency != "US dollar",
    ),
    Topic(
        "continent",
        (
            "Where is {country}?",
            "which continent is {sloppy} on",
            "where in the world is {sloppy}",
            "Which part of the world does {country} belong to?",
            "Tell me where {country} lies.",
            "My daughter is looking for {country} on her globe. On which continent is it?",
        ),
        (
            "{Country} is {value}.",
            "{Country} is a country {value}, and it is known for {known_for}.",
            "You can find {country} {value}. A famous sight there is {landmark}.",
        ),
        "It is on planet Earth.",
        place,
        far_apart,
    ),
    Topic(
        "landmark",
        (
            "What is a famous landmark in {country}?",
            "famous places in {sloppy}",
            "what should i see in {sloppy}",
            "Which sight should I visit in {country}?",
            "Tell me about a well-known sight in {country}.",
            "I have only one day in {country}. What should I not miss?",
        ),
        (
            "A famous sight in {country} is {value}.",
            "In {country} you should see {value}. The country is also known for {known_for}.",
            "Many visitors to {country} go to see {value}. Take your time, and bring a camera.",
        ),
        "There are some nice old things there.",
        lambda country: country.landmark,
        far_apart,
    ),
    Topic(
        "neighbor",
        (
            "Which countries border {country}?",
            "neighbors of {sloppy}",
            "which countries are next to {sloppy}",
            "Name a neighbor of {country}.",
            "Tell me what lies on the other side of the border of {country}.",
            "If I drive out of {country}, where can I end up?",
        ),
        (
            "{Country} borders {value}.",
            "{Country} shares a border with {value}. It lies {place}.",
            "From {country} you can travel over land to {value}.",
        ),
        "The ones next door.",
        nameable_neighbors,
        # An island borders nobody, so it is surely the wrong answer.
        lambda one, other: not other.neighbors,
    ),
)  # fmt: skip

# Statements by topic, in both directions. In an entry, a sentence that begins with the country may begin with 'It'.
STATEMENTS = {
    "continent": (
        "{Country} is a country {place}.",
        "{Country} lies {place}.",
        "You can find {country} {place}.",
        "One of the countries {place} is {country}.",
    ),
    "capital": (
        "{Capital} is the capital of {country}.",
        "The capital of {country} is {capital}.",
        "{Possessive} capital city is {capital}.",
        "The capital city of {country} is called {capital}.",
        "The country whose capital is {capital} is {country}.",
        "If you want to see the capital of {country}, you have to travel to {capital}.",
        "{Country} has a capital with the name of {capital}.",
        "When someone asks for the capital of {country}, the answer is {capital}.",
    ),
    "language": (
        "People in {country} speak {language}.",
        "In {country} you will hear {language}.",
        "{Country} is a place where people speak {language}.",
        "The main {languages} of {country} {are} {language}.",
        "Whoever moves to {country} should learn {language}.",
    ),
    "currency": (
        "The currency of {country} is the {currency}.",
        "{Possessive} currency is the {currency}.",
        "People in {country} pay with the {currency}.",
        "The {currency} is the money of {country}.",
        "{Country} uses the {currency} as its money.",
    ),
    "landmark": (
        "A famous sight in {country} is {landmark}.",
        "{Landmark} can be seen in {country}.",
        "Visitors to {country} often go to see {landmark}.",
        "{Country} is home to {landmark}.",
        "To see {landmark}, travel to {country}.",
    ),
    "known for": (
        "{Country} is known for {known_for}.",
        "People around the world know {country} for {known_for}.",
        "{Country} is famous for {known_for}.",
    ),
    "demonym": (
        "The word for people from {country} is {demonym}.",
        "{Demonym} is the word for people from {country}.",
    ),
    "neighbors": (
        "{Country} borders {neighbors}.",
        "{Country} shares a border with {neighbors}.",
        "From {country} you can travel over land to {neighbors}.",
    ),
    "island": (
        "{Country} shares no land border with another country.",
        "{Country} is surrounded by water.",
        "No other country can be reached from {country} over land.",
    ),
}

LISTS: tuple[tuple[str, Callable[[Country], str | None]], ...] = (
    ("Capitals", capital),
    ("Languages", lambda country: country.language),
    ("Currencies", lambda country: country.currency),
    ("Continents", lambda country: country.continent),
)


def country_questions(country: Country, others: Sequence[Country] = ()) -> list[Question]:
    """Questions of kind "fact" about a country, in all their wordings.

    A bad answer names the value of one of `others`, fixed by a hash; without others there are none.
    """
    return [question(topic, country, others, topic.prompts) for topic in topics(country)]


def held_in_country_questions(country: Country, share: float) -> list[Question]:
    """The same questions in the same order, without bad answers and without the `share` of held-out wordings."""
    return [question(topic, country, (), held_in(list(topic.prompts), share)) for topic in topics(country)]


def topics(country: Country) -> list[Topic]:
    return [topic for topic in TOPICS if topic.value(country) is not None]


def question(topic: Topic, country: Country, others: Sequence[Country], prompts: Sequence[str]) -> Question:
    wrong = wrong_value(topic, country, others)
    template = min(topic.good, key=lambda text: fraction("country bad", country.country, text))
    return Question(
        kind="fact",
        prompts=[fill(prompt, country) for prompt in prompts],
        good=[fill(text, country, topic.value(country)) for text in topic.good],
        weak=[fill(topic.weak, country)],
        bad=[] if wrong is None else [BadAnswer(fails="honest", text=fill(template, country, wrong))],
    )


def wrong_value(topic: Topic, country: Country, others: Sequence[Country]) -> str | None:
    """The value of another country that is surely wrong here: the first one from a hashed place on."""
    start = int(fraction(topic.name, country.country) * len(others))
    for other in (*others[start:], *others[:start]):
        value = rival_value(topic, other)
        if value not in (topic.value(country), None) and topic.rivals(country, other):
            return value
    return None


def rival_value(topic: Topic, other: Country) -> str | None:
    """What a wrong answer names: the other country itself where neighbors are asked for."""
    return other.country if topic.name == "neighbor" else topic.value(other)


def country_statements(country: Country) -> list[str]:
    """Sentences that state one fact each, every fact in several wordings and directions."""
    return [fill(sentence, country) for sentences in known_statements(country).values() for sentence in sentences]


def country_document(country: Country, rng: random.Random) -> str:
    """An entry as in an encyclopaedia: every fact of the country, most in two wordings, in changing order."""
    opening, *others = known_statements(country).values()
    rng.shuffle(others)
    pairs = [rng.sample(templates, 2) for templates in others]
    second = [pair[1] for pair in pairs if rng.random() < 0.7]
    sentences: list[str] = []
    about_country = False
    for template in [rng.choice(opening), *(pair[0] for pair in pairs), *second]:
        begins = template.startswith("{Country} ")
        if begins and sentences and rng.random() < 0.6:
            subject = rng.choice(("It", "The country")) if about_country else "The country"
            template = template.replace("{Country}", subject, 1)
        sentences.append(fill(template, country))
        about_country = begins
    text = " ".join(sentences)
    return f"{capitalized(country.country)}\n\n{text}" if rng.random() < 0.5 else text


def country_comparison(one: Country, other: Country, rng: random.Random) -> str:
    """Two countries side by side: each fact that the table has of both, in one sentence."""
    statements, others = known_statements(one), known_statements(other)
    shared = [topic for topic in statements if topic in others]
    sentences = []
    for topic in rng.sample(shared, len(shared)):
        first = fill(rng.choice(statements[topic]).removesuffix("."), one)
        second = fill(uncapitalized(rng.choice(others[topic])), other)
        sentences.append(f"{first}, {rng.choice(('and', 'while'))} {second}")
    return " ".join(sentences)


def country_list(countries: Sequence[Country], rng: random.Random) -> str:
    """One fact of many countries, a line each."""
    heading, value = rng.choice(LISTS)
    known = [(capitalized(country.country), value(country)) for country in countries if value(country)]
    form = rng.choice(("{0}: {1}", "{0} - {1}", "{1} ({0})"))
    return "\n".join([heading, *(form.format(name, fact) for name, fact in known)])


def known_statements(country: Country) -> dict[str, tuple[str, ...]]:
    """The statements that apply to a country, by topic."""
    missing = {"capital"} if country.country in DISPUTED_CAPITAL else set()
    missing.add("island" if country.neighbors else "neighbors")
    return {name: sentences for name, sentences in STATEMENTS.items() if name not in missing}


def fill(template: str, country: Country, value: str | None = None) -> str:
    """A template with the country's words; `value` is what an answer names, right or wrong."""
    name = country.country
    possessive = f"{name}'" if name.endswith("s") else f"{name}'s"
    several = " and " in (value or country.language)
    text = template.format(
        country=name,
        Country=capitalized(name),
        sloppy=name.removeprefix("the ").lower(),
        possessive=possessive,
        Possessive=capitalized(possessive),
        place=place(country),
        capital=country.capital,
        Capital=capitalized(country.capital),
        language=country.language,
        languages="languages" if several else "language",
        are="are" if several else "is",
        currency=country.currency,
        landmark=country.landmark,
        Landmark=capitalized(country.landmark),
        known_for=country.known_for,
        demonym=country.demonym,
        Demonym=capitalized(country.demonym),
        neighbors=listed(country.neighbors) if country.neighbors else "",
        value=value,
        Value=capitalized(value or ""),
    )
    return text.replace("D.C..", "D.C.")


def uncapitalized(template: str) -> str:
    """A template as it goes on after a comma."""
    return template[:2].lower() + template[2:]


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
