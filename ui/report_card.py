"""The tab with the measured behaviour of a family: a row for each question that a teacher would ask.

Every figure and goal comes from `report.json`, every answer from `report-answers.jsonl`, and every pair of
answers that the reward model compared from `report-pairs.jsonl`.
"""

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.report.figures import Figure
from pipeline.report.markdown import LABELS, PICTURES
from pipeline.report.reading import Exhibit, Report
from ui.answering import LoadedFamily
from ui.columns import LOOKS, icon, signed

PER_PAGE = 10
WIN_RATE = "win rate against SFT"
REPEATED = "repeated 4-grams"
YES = '<path d="M5 12.5l4.5 4.5L19 7.5"/>'
NO = '<path d="M6 6l12 12M18 6L6 18"/>'
# The buttons of a row ask the server for its answers: a page is fetched when somebody wants to read it.
OPEN_ANSWERS = """
const plots = element.querySelector(".plots");
if (plots) server.plots(null).then((html) => { plots.innerHTML = html; });
element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-question]");
  if (!button) return;
  const row = button.closest(".question"), panel = row.querySelector(".behind"), opener = row.querySelector(".opener");
  const close = button === opener && !panel.hidden;
  opener.setAttribute("aria-expanded", String(!close));
  if (close) { panel.hidden = true; return; }
  const {question, group, page} = button.dataset;
  panel.innerHTML = await server.answers({question: +question, group, page: +page});
  panel.hidden = false;
  if (button.matches(".turn")) { panel.focus({preventScroll: true}); panel.scrollIntoView({block: "nearest"}); }
  if (button.matches(".filter")) panel.querySelector(`.filter[data-group="${group}"]`).focus();
});
"""


@dataclass(frozen=True)
class Question:
    """A question of a teacher, and the figures that answer it.

    `hit` and `miss` say what an answer did that does or does not count for the figure, `good` which of them is good.
    """

    group: str
    text: str
    measured: str
    figures: tuple[str, ...]
    hit: str
    miss: str
    good: bool = True


QUESTIONS = (
    Question(
        "Form",
        "Does it stop by itself?",
        "Answers that the model ends, and that are not cut at the limit. Base need not: nobody taught it to end.",
        ("stops by itself",),
        "Stopped by itself",
        "Was cut at the limit",
    ),
    Question(
        "Form",
        "Does it answer, or go on?",
        "Texts that answer and then end. The others go on with more questions or more text.",
        ("answers rather than continues",),
        "Answers",
        "Goes on",
    ),
    Question(
        "Form",
        "Does it repeat itself?",
        "Runs of four words that stood in the same answer before. Lower is better.",
        (REPEATED,),
        "Repeats four words in a row",
        "Repeats nothing",
        good=False,
    ),
    Question(
        "Helpful",
        "Is it right when a known question is asked in new words?",
        "Correct answers. Training had the question, but never in these words.",
        ("held-out wordings correct",),
        "Correct",
        "Not correct",
    ),
    Question(
        "Helpful",
        "Is it right about cards that it has never seen?",
        "Correct answers. No question of these topic cards stood in SFT, rankings or RLHF.",
        ("held-out cards correct",),
        "Correct",
        "Not correct",
    ),
    Question(
        "Helpful",
        "Does it know capitals that SFT never showed?",
        "Right capitals. Base could read them; the demonstrations never named these countries.",
        ("capitals never seen in SFT",),
        "Right capital",
        "Not the right capital",
    ),
    Question(
        "Honest",
        "Does it repeat myths?",
        "Myths that it denies. Higher is better.",
        ("myths denied",),
        "Denies the myth",
        "Does not deny the myth",
    ),
    Question(
        "Honest",
        "Does it affirm surprising truths?",
        "True things that sound wrong, and that it affirms. Who denies everything fails here.",
        ("true surprising facts affirmed",),
        "Affirms what is true",
        "Does not affirm what is true",
    ),
    Question(
        "Honest",
        "Does it admit what it cannot know?",
        "Questions about today, about you or about invented things, where it says that it does not know.",
        ("unknowable admitted",),
        "Admits it",
        "Does not admit it",
    ),
    Question(
        "Harmless",
        "Does it refuse harm?",
        "Harmful requests that it declines.",
        ("harmful declined",),
        "Declines",
        "Does not decline",
    ),
    Question(
        "Harmless",
        "Does it refuse too much?",
        "Harmless requests that only sound dangerous, and that it declines. Lower is better.",
        ("look-alikes wrongly declined",),
        "Declines for no reason",
        "Does not decline",
        good=False,
    ),
    Question(
        "Harmless",
        "Does it meet distress with support?",
        "Answers with a kind word and something or somebody that helps.",
        ("distress met with support",),
        "Supports",
        "Does not support",
    ),
    Question(
        "Compared",
        "Is RLHF better than SFT?",
        "Answers with a better grade than SFT's to the same prompt. Ties count half, so 50 % is no difference.",
        (WIN_RATE,),
        "Not worse than SFT",
        "Worse than SFT",
    ),
    Question(
        "Reward model",
        "Can the reward model tell good from bad?",
        "Pairs of answers where the better one has the higher reward. Guessing would reach 50 %.",
        ("card pairs ordered right", "held-out rankings ordered right"),
        "Prefers the better answer",
        "Prefers the worse answer",
    ),
    Question(
        "Reward model",
        "Does the reward model just like length?",
        "The same pairs, but only where the better answer is the shorter one; "
        "and how closely reward follows length among equally good answers, 0 being not at all.",
        (
            "card pairs ordered right where the better is shorter",
            "held-out rankings ordered right where the better is shorter",
            "card pairs: correlation with length within a grade",
            "held-out rankings: correlation with length within a grade",
        ),
        "Prefers the better answer, though it is shorter",
        "Prefers the worse answer, which is longer",
    ),
)


def report_card_tab(family: LoadedFamily, report: Report | None) -> None:
    """Lay out the tab inside the current `gr.Blocks`."""
    if family.published:
        gr.HTML("<p>A report card asks what training held out, and this family was trained elsewhere.</p>")
        return
    if report is None:
        gr.HTML(
            '<p class="missing">This family has no report card yet. Make one with '
            f"<code>python -m pipeline report --family checkpoints/{escape(family.name)}</code></p>",
            elem_id="report-card",
        )
        return

    def answers(chosen: dict[str, Any]) -> str:
        return answers_panel(report, int(chosen["question"]), str(chosen["group"]), int(chosen["page"]))

    def plots(_: None) -> str:
        return "".join(map(picture, (path for name in PICTURES for path in report.plots if path.name == name)))

    gr.HTML(
        card(report, family.parameters),
        elem_id="report-card",
        apply_default_css=False,
        js_on_load=OPEN_ANSWERS,
        server_functions=[answers, plots],
    )


def card(report: Report, parameters: int) -> str:
    groups = dict.fromkeys(question.group for question in QUESTIONS)
    parts = [
        f'<section aria-label="{group}"><h3>{group}</h3>'
        + "".join(question_row(report, number) for number, question in enumerate(QUESTIONS) if question.group == group)
        + "</section>"
        for group in groups
    ]
    return f'{opening(report, parameters)}{"".join(parts)}<h3>Plots</h3><div class="plots"></div>'


def opening(report: Report, parameters: int) -> str:
    met = sum(bar["met"] is True for bar in report.bars)
    return (
        f'<p class="summary"><b>{met} of {len(report.bars)} bars are met.</b> This is a small family, with '
        f"{parameters / 1e6:.1f} million parameters a model, so expect many wrong answers: the bars show how good "
        "it should be, not how good it is.</p>"
        f'<p class="method">Every stage answered the same {report.content["prompts"]:,} prompts, none of which it was '
        "trained to answer. Rules and a simulated annotator judged the answers. The thin line on a bar is the 95 % "
        "interval: with other prompts like these, the figure could well have been anywhere on it.</p>"
    )


def question_row(report: Report, number: int) -> str:
    question = QUESTIONS[number]
    lines = [line for name in question.figures for line in figure_lines(report, name)]
    opener = ""
    groups = groups_of(report, question)
    if groups:
        group = "rlhf" if "rlhf" in groups else next(iter(groups))
        opener = (
            f'<button class="opener" aria-expanded="false" {target(number, group, 0)}>'
            f"Answers<span class='hidden-words'> to: {escape(question.text)}</span></button>"
        )
    none = '<p class="none">Not measured.</p>'
    return (
        f'<article class="question"><div class="asked"><h4>{escape(question.text)}</h4>'
        f"<p>{escape(question.measured)}</p>{opener}</div>"
        f'<div class="lines">{"".join(lines) or none}</div>'
        '<div class="behind" tabindex="-1" hidden></div></article>'
    )


def figure_lines(report: Report, name: str) -> list[str]:
    """A line for each stage that has the figure, or a goal for it."""
    measured = [(stage, figures[name]) for stage, figures in report.measured.items() if name in figures]
    unmeasured = [(bar["stage"], None) for bar in report.bars if bar["figure"] == name and bar["value"] is None]
    return [figure_line(report, stage, name, figure) for stage, figure in measured + unmeasured]


def figure_line(report: Report, stage: str, name: str, figure: Figure | None) -> str:
    """A stage with its bar, its number and its goal, if it has one."""
    label = f"<span>{pairs_name(name)}</span>" if stage == "reward" else stage_label(stage)
    value, interval = words(figure) if figure else ("\N{EN DASH}", "")
    return (
        f'<div class="line {stage}"><p class="name">{label}</p><div class="track" aria-hidden="true">'
        f"{track(figure) if figure else ''}</div>"
        f'<p class="value"><b>{value}</b><small>{interval}</small></p>{goal(report, stage, name)}</div>'
    )


def stage_label(stage: str) -> str:
    return f"{icon(LOOKS[stage].icon)}<span>{stage_name(stage)}</span>"


def stage_name(stage: str) -> str:
    return LOOKS[stage].name if stage in LOOKS else LABELS[stage]


def pairs_name(name: str) -> str:
    """Which answers a figure of the reward model is about, in short: the question says the rest."""
    source = "cards" if name.startswith("card pairs") else "rankings"
    return f"Length, {source}" if "length" in name else source.capitalize()


def words(figure: Figure) -> tuple[str, str]:
    """The value, and its interval with the number of answers."""
    if figure.unit == "correlation":
        return signed(figure.value), f"{signed(figure.low)} to {signed(figure.high)}, {figure.count:,} answers"
    what = "pairs" if "ordered right" in figure.name else "answers"
    return f"{100 * figure.value:.1f} %", f"{100 * figure.low:.0f} to {100 * figure.high:.0f}, {figure.count:,} {what}"


def track(figure: Figure) -> str:
    """The figure as a thin bar from zero, its interval as a whisker. Correlations have their zero in the middle."""
    low, high = (-1.0, 1.0) if figure.unit == "correlation" else (0.0, 1.0)

    def at(value: float) -> float:
        return 100 * (min(high, max(low, value)) - low) / (high - low)

    zero, end, left, right = at(0), at(figure.value), at(figure.low), at(figure.high)
    return (
        f'<i class="bar" style="left:{min(zero, end):.2f}%;width:{abs(end - zero):.2f}%"></i>'
        f'<i class="zero" style="left:{zero:.2f}%"></i>'
        f'<i class="whisker" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
    )


def goal(report: Report, stage: str, name: str) -> str:
    for bar in report.bars:
        if (bar["stage"], bar["figure"]) == (stage, name):
            wanted = bar["bar"].replace("-", "\N{MINUS SIGN}")
            said = {True: ("met", "Met", YES), False: ("missed", "Not met", NO), None: ("", "Not measured", "")}
            look, met, paths = said[bar["met"]]
            return f'<p class="goal {look}"><b>{icon(paths)}{met}</b><span>Goal: {escape(wanted)}</span></p>'
    return '<p class="goal"></p>'


def groups_of(report: Report, question: Question) -> dict[str, str]:
    """By what the answers behind a question are told apart, and the label of each: stages, or kinds of pairs."""
    if about_pairs(question):
        return {name: pairs_name(name) for name in question.figures if report.ordered(name)}
    return {stage: stage_label(stage) for stage, figures in report.measured.items() if question.figures[0] in figures}


def about_pairs(question: Question) -> bool:
    return "ordered right" in question.figures[0]


def target(number: int, group: str, page: int) -> str:
    return f'data-question="{number}" data-group="{group}" data-page="{page}"'


def answers_panel(report: Report, number: int, group: str, page: int) -> str:
    """A page of the answers behind a figure, failures first, with buttons for the other groups and pages."""
    question = QUESTIONS[number]
    found = sorted(exhibits(report, question, group), key=lambda exhibit: exhibit.hit == question.good)
    start = PER_PAGE * page
    filters = "".join(
        f'<button class="filter" aria-pressed="{str(one == group).lower()}" {target(number, one, 0)}>{label}</button>'
        for one, label in groups_of(report, question).items()
    )
    in_pairs = about_pairs(question)
    draw = pair_item if in_pairs else exhibit_item
    items = "".join(draw(question, exhibit) for exhibit in found[start : start + PER_PAGE])
    figure = report.measured["reward"][group] if in_pairs else report.measured[group][question.figures[0]]
    what = "pairs" if in_pairs else "answers"
    kept = f"{len(found):,} of the {figure.count:,} {what} were kept to be read here, failures first."
    return (
        f'<div class="filters" role="group" aria-label="{"Pairs" if in_pairs else "Stage"}">{filters}</div>'
        f'<p class="kept">{kept}</p><ol>{items}</ol>{turning(number, group, page, len(found))}'
    )


def exhibits(report: Report, question: Question, group: str) -> list[Exhibit]:
    if about_pairs(question):
        return report.ordered(group)
    [name] = question.figures
    if name == WIN_RATE:
        return report.against_sft(group)
    return report.repeating(group) if name == REPEATED else report.behind(name, group)


def exhibit_item(question: Question, exhibit: Exhibit) -> str:
    line, rival = exhibit.line, exhibit.rival
    figures = f"grade {line['grade']:.2f}" + ("" if line["reward"] is None else f", reward {signed(line['reward'])}")
    beside = (
        f'<p class="rival"><b>SFT</b> {written(rival)} <small>grade {rival["grade"]:.2f}</small></p>' if rival else ""
    )
    return item(question, exhibit, f'<p class="text {line["stage"]}">{written(line)}</p>{beside}', figures)


def pair_item(question: Question, exhibit: Exhibit) -> str:
    better, worse = exhibit.line, exhibit.rival
    assert worse
    texts = "".join(
        f'<p class="{look}"><b>{name}</b> {written(answer)} '
        f"<small>reward {signed(answer['reward'])}, {answer['tokens']} tokens</small></p>"
        for look, name, answer in (("text", "Better", better), ("rival", "Worse", worse))
    )
    return item(question, exhibit, texts, f"lead {signed(better['reward'] - worse['reward'])}")


def item(question: Question, exhibit: Exhibit, texts: str, figures: str) -> str:
    """A prompt, what was answered, and the verdict on it with its figures."""
    fine = exhibit.hit == question.good
    said = question.hit if exhibit.hit else question.miss
    return (
        f'<li class="{"fine" if fine else "failed"}"><p class="prompt">{escape(exhibit.line["prompt"])}</p>{texts}'
        f'<p class="verdict"><b>{icon(YES if fine else NO)}{said}</b><span>{figures}</span></p></li>'
    )


def written(answer: dict[str, Any]) -> str:
    return escape(answer["text"].strip()) or "It wrote nothing."


def turning(number: int, group: str, page: int, count: int) -> str:
    def turn(label: str, to: int) -> str:
        state = "" if 0 <= PER_PAGE * to < count else "disabled"
        return f'<button class="turn" {target(number, group, to)} {state}>{label}</button>'

    last = min(count, PER_PAGE * (page + 1))
    where = f"{PER_PAGE * page + 1:,} to {last:,} of {count:,}" if count else "none"
    return f'<p class="turning">{turn("Earlier", page - 1)}<span>{where}</span>{turn("More", page + 1)}</p>'


def picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f"<figure><figcaption>{PICTURES[path.name]}</figcaption>"
        f'<img alt="{PICTURES[path.name]}" src="data:image/svg+xml;base64,{data}"></figure>'
    )
