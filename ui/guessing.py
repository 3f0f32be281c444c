"""Guess mode: a class votes which stage wrote which answer before the names are shown.

The server keeps the names: until they are revealed nothing in the page tells the columns apart but
what the models wrote. The votes are counted in the browser.
"""

import json
import random
from typing import Any

import gradio as gr
from gradio.events import Dependency

from ui.answering import COLUMNS, LoadedFamily, Request
from ui.columns import BUSY, LOOKS, column, icon, lane

LETTERS = ("A", "B", "C")
# How often each stage was voted for, and after the reveal the stage that it was.
Votes = dict[str, Any]
NO_VOTES: Votes = {**dict.fromkeys(COLUMNS, 0), "truth": ""}
COUNTING = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const {stage, step} = button.dataset;
  props.value = {...props.value, [stage]: props.value[stage] + Number(step)};
});
"""
RIGHT = icon('<path d="M5 12.5l4.5 4.5L19 7.5"/>')


def shuffled() -> tuple[str, ...]:
    """The stages in an order that no seed tells."""
    return tuple(random.sample(COLUMNS, len(COLUMNS)))


def ballot(letter: str) -> gr.HTML:
    """The votes for one column: a press adds one, the small button takes one back."""
    counts = "".join(
        f"<div class=\"count-of ${{value.truth === '{stage}' ? 'true' : ''}}\">"
        f'<button type="button" class="add" data-stage="{stage}" data-step="1" ${{value.truth ? "disabled" : ""}}>'
        f'<span class="unseen">{letter} is </span>{icon(look.icon)}{look.name} <b>${{value.{stage}}}</b>'
        f'<span class="unseen"> votes, add one</span>'
        f"${{value.truth === '{stage}' ? `{RIGHT}<span class=\"unseen\">, right</span>` : ''}}</button>"
        f'<button type="button" class="take" data-stage="{stage}" data-step="-1" title="One vote less" '
        f'aria-label="One vote less for {look.name} as {letter}" '
        f'${{value.truth || !value.{stage} ? "disabled" : ""}}>\N{MINUS SIGN}</button></div>'
        for stage, look in ((stage, LOOKS[stage]) for stage in COLUMNS)
    )
    return gr.HTML(
        NO_VOTES,
        html_template=f'<div class="votes" role="group" aria-label="Votes for {letter}">{counts}</div>',
        js_on_load=COUNTING,
        apply_default_css=False,
        elem_classes="ballot",
    )


def majority(votes: Votes) -> str | None:
    """The stage with the most votes; None for a tie."""
    most = max(votes[stage] for stage in COLUMNS)
    [*ahead] = [stage for stage in COLUMNS if votes[stage] == most]
    return ahead[0] if len(ahead) == 1 else None


def verdict(request: Request, votes: tuple[Votes, ...]) -> str:
    """How well the class knows the stages."""
    if not any(count[stage] for count in votes for stage in COLUMNS):
        return "Nobody has voted. The names stand above the answers."
    right = sum(majority(count) == stage for count, stage in zip(votes, request.order, strict=True))
    return f"The class got {right} of {len(votes)}."


def guess_bar() -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Reveal, clear the votes, and what came out; the style shows it while columns have letters."""
    with gr.Row(elem_id="guessing"):
        reveal = gr.Button("Reveal", elem_id="reveal")
        clear = gr.Button("Clear votes", elem_id="clear-votes")
        result = gr.HTML(say(""), elem_id="verdict", apply_default_css=False)
    return reveal, clear, result


def say(words: str) -> str:
    return f'<p role="status">{words}</p>'


def connect_guessing(
    family: LoadedFamily,
    request: gr.State,
    switch: gr.Checkbox,
    columns: list[gr.HTML],
    lanes: list[gr.HTML],
    ballots: list[gr.HTML],
    bar: tuple[gr.Button, gr.Button, gr.HTML],
) -> Dependency:
    """Let the switch begin and end guess mode, Reveal show the names, and a new prompt clear the votes.

    Returns the event after which the names are known.
    """
    reveal, clear, result = bar
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def show(request: Request | None, *votes: Votes) -> dict[Any, Any]:
        if request is None or not request.guessing:
            return {result: say("Send a prompt first.")}
        views = [request.latest.get(stage) for stage in request.order]
        if any(view is None or view.state in BUSY for view in views):
            return {result: say("Wait until all three answers are there.")}
        request.revealed.set()
        shown: dict[Any, Any] = {result: say(verdict(request, votes))}
        for place, view in enumerate(views):
            assert view is not None
            shown[columns[place]] = column(view, family.scale, LETTERS[place])
            shown[lanes[place]] = lane(view, family.scale, LETTERS[place])
            shown[ballots[place]] = votes[place] | {"truth": view.stage}
        return shown

    def begin(previous: Request | None, guessing: bool) -> list[Any]:
        """Empty columns, under letters or names."""
        if previous is not None:
            previous.give_way()
        views = [family.first_view(stage) for stage in COLUMNS]
        letters = LETTERS if guessing else ("", "", "")
        heads = [(view, family.scale, letter, guessing) for view, letter in zip(views, letters, strict=True)]
        return [None, *(column(*each) for each in heads), *(lane(*each) for each in heads)]

    # In the browser alone: a new prompt has no need of one more call to the server.
    nothing: dict[str, Any] = {"js": f"() => {json.dumps([NO_VOTES] * len(ballots) + [say('')])}", **quiet}
    revealed = reveal.click(show, [request, *ballots], [result, *columns, *lanes, *ballots], queue=False, **quiet)
    clear.click(None, None, [*ballots, result], **nothing)
    request.change(None, None, [*ballots, result], **nothing)
    # By a person only: the lesson switches it and sends a prompt at once.
    switch.input(begin, [request, switch], [request, *columns, *lanes], concurrency_limit=None, **quiet)
    return revealed
