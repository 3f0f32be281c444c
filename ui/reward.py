"""The tab of the reward model: what choosing by reward does without training, and what the score can be fooled by."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Event
from typing import Any

import gradio as gr

from pipeline.errors import InputError
from pipeline.inference.best_of import Drawing, divergence_bound, draw
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import RewardModel
from pipeline.inference.what_if import EDITS, Exchange, rewards
from ui.answering import LoadedFamily
from ui.clouds import Tried, Version, clouds, progress, ranked, score, thin_line, tried_list
from ui.columns import LOOKS, problem
from ui.controls import Controls
from ui.limits import in_time

EXAMPLE = "Can coughing effectively stop a heart attack?"
EXAMPLE_ANSWER = "No. Coughing cannot stop a heart attack. Call the emergency number at once."
COUNTS = (4, 8, 16, 32)
USUAL_COUNT = 16
# Higher than in Compare: n answers that are all alike leave nothing to choose.
USUAL_TEMPERATURE = 0.8
SECONDS_BETWEEN_VIEWS = 0.2
# What-ifs that stay in the list.
TRIED = 8

BEST_OF = (
    "<h2>Best of n</h2><p>Draw several answers and let the reward model choose: better answers without any "
    "training (<a href='https://arxiv.org/abs/2009.01325' target='_blank' rel='noopener'>Stiennon et al. 2020</a>)."
    "</p>"
)
SCORE = (
    "<h2>Score any text</h2><p>Change the answer and watch its reward. This reward model is small, learned from "
    "rankings by a simulated annotator, and can be fooled. A model trained against it finds the same gaps as you do: "
    "that is reward hacking.</p>"
)
NO_REWARD = "<p>This family has no reward model yet, so there is nothing to score with.</p>"

ON_SERVERS = "<p>All stages of this family are on servers: none can be asked for many answers at once.</p>"

ROW_PRESSED = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-row]");
  if (button) trigger("click", {row: Number(button.dataset.row)});
});"""
# Ends once no key has been pressed for a fifth of a second.
WHEN_QUIET = """() => new Promise((done) => {
  const boxes = document.querySelector("#score-any");
  let timer = setTimeout(end, 200);
  function again() { clearTimeout(timer); timer = setTimeout(end, 200); }
  function end() { boxes.removeEventListener("input", again); done([]); }
  boxes.addEventListener("input", again);
})"""
# Where the halves are stacked, the box may be far below the answer that was pressed.
SHOW_BOX = """() => {
  const box = document.querySelector("#score-any"), place = box.getBoundingClientRect();
  if (place.top < 0 || place.top > innerHeight / 2) box.scrollIntoView({block: "start"});
}"""


@dataclass(frozen=True)
class Ask:
    """One press of Draw; `halted` ends it."""

    number: int
    prompt: str
    stage: str
    count: int
    decoding: Decoding
    halted: Event = field(default_factory=Event, compare=False)


@dataclass(frozen=True)
class Board:
    """The score box's past: the version that is scored now, the one before, the pinned one, and the what-ifs."""

    latest: Version | None = None
    before: Version | None = None
    pinned: Version | None = None
    tried: tuple[Tried, ...] = ()

    def moved(self, version: Version) -> "Board":
        return replace(self, latest=version, before=self.latest, pinned=self.pinned or version)


def reward_tab(family: LoadedFamily, tab: gr.Tab, typed: gr.Textbox) -> Controls | None:
    """Lay out the tab and connect its events; an unedited prompt follows the one `typed` elsewhere."""
    if family.reward is None:
        gr.HTML(NO_REWARD, elem_id="no-reward")
        return None
    if not family.local:
        gr.HTML(ON_SERVERS, elem_id="no-reward")
        return None
    with gr.Row(elem_id="reward-halves"):
        with gr.Column(elem_id="best-of"):
            prompt, asking, answers, shown = best_of_half(family, family.reward, tab, typed)
        with gr.Column(elem_id="score-any"):
            scored, response = score_half(family, family.reward, tab, answers, shown)
    return Controls({"prompt": prompt, "scored prompt": scored, "response": response}, asking)


def best_of_half(
    family: LoadedFamily, reward: RewardModel, tab: gr.Tab, typed: gr.Textbox
) -> tuple[gr.Textbox, dict[str, Any], gr.HTML, gr.State]:
    """The prompt and what sends it; the list of answers, and the drawing that it shows."""
    stages = list(family.local)
    longest = min(Decoding.max_new_tokens, family.context // 2)
    chosen = "sft" if "sft" in stages else stages[-1]

    gr.HTML(BEST_OF, apply_default_css=False)
    # What the page put into the box: as long as it still stands there, nobody has edited it.
    given = gr.State(EXAMPLE)
    request = gr.State(None)
    shown = gr.State(None)
    with gr.Row(elem_id="drawing"):
        prompt = gr.Textbox(
            EXAMPLE,
            label="Prompt for n answers",
            show_label=False,
            container=False,
            placeholder="Type a prompt",
            lines=1,
            max_lines=6,
            elem_id="best-of-prompt",
        )
        start = gr.Button("Draw answers", variant="primary", elem_id="draw")
        stop = gr.Button("Stop", elem_id="halt-draw")
    with gr.Row(elem_id="draw-settings"):
        stage = gr.Radio([(LOOKS[name].name, name) for name in stages], value=chosen, label="Stage")
        number = gr.Radio(list(COUNTS), value=USUAL_COUNT, label="n")
        temperature = gr.Slider(0, 2, USUAL_TEMPERATURE, step=0.05, label="Temperature")
        seed = gr.Number(Decoding.seed, precision=0, minimum=0, maximum=2**31, label="Seed")
    notice = gr.HTML(elem_id="draw-notice", apply_default_css=False)
    picture = gr.HTML(clouds(stages, {}, chosen, family.scale), elem_id="clouds", apply_default_css=False)
    answers = gr.HTML(elem_id="ranked", apply_default_css=False, js_on_load=ROW_PRESSED)

    numbers = count(1)

    def ask(
        previous: Ask | None, prompt: str, stage: str, number: int, temperature: float, seed: int | None
    ) -> tuple[Any, str]:
        try:
            family.admit(prompt, number * len(stages))
        except InputError as error:
            return gr.skip(), problem(str(error))
        halt(previous)
        decoding = Decoding(longest, temperature, seed=int(seed or 0))
        return Ask(next(numbers), prompt, stage, number, decoding), "<p>Waiting for the models.</p>" + thin_line(0)

    def run(request: Ask) -> Iterator[tuple[Any, ...]]:
        """Draw from the chosen stage first, then from the others for their clouds."""
        began = time.monotonic()
        order = sorted(stages, key=lambda stage: stage != request.stage)
        drawings: dict[str, Drawing] = {}
        listed = ""
        for done, stage in enumerate(order):
            latest = 0.0
            drawn = draw(family.local[stage], reward, request.prompt, request.decoding, request.count)
            try:
                for drawing in in_time(drawn):
                    if request.halted.is_set():
                        yield "<p>Stopped by you.</p>", gr.skip(), gr.skip(), gr.skip()
                        return
                    if not drawing.samples and time.monotonic() - latest >= SECONDS_BETWEEN_VIEWS:
                        latest = time.monotonic()
                        words = progress(drawing, done, len(order), longest)
                        if done or drawing.tokens > 1:
                            yield words, gr.skip(), gr.skip(), gr.skip()
                        else:
                            yield words, clouds(stages, {}, request.stage, family.scale), "", None
            except InputError as error:
                yield problem(str(error)), gr.skip(), gr.skip(), gr.skip()
                return
            drawings[stage] = drawing
            listed = listed or ranked(drawing, family.scale)
            picture = clouds(stages, drawings, request.stage, family.scale)
            if stage == request.stage:
                yield gr.skip(), picture, listed, drawing
            else:
                yield gr.skip(), picture, gr.skip(), gr.skip()
        seconds = time.monotonic() - began
        yield finished(request, len(order), seconds), gr.skip(), gr.skip(), gr.skip()

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    asking: dict[str, Any] = {
        "fn": ask,
        "inputs": [request, prompt, stage, number, temperature, seed],
        "outputs": [request, notice],
        # In the queue, though quick: the browser hears of a changed state from there only.
        "concurrency_limit": None,
        **quiet,
    }
    start.click(**asking)
    prompt.submit(**asking)
    stop.click(halt, request, None, queue=False, **quiet)
    # One drawing at a time: three stages with up to 32 rows leave no processor for a second one.
    request.change(
        run,
        request,
        [notice, picture, answers, shown],
        concurrency_id="best of n",
        concurrency_limit=1,
        trigger_mode="always_last",
        **quiet,
    )
    tab.select(taking, [typed, prompt, given], [prompt, given], queue=False, **quiet)
    return prompt, asking, answers, shown


def score_half(
    family: LoadedFamily, reward: RewardModel, tab: gr.Tab, answers: gr.HTML, shown: gr.State
) -> tuple[gr.Textbox, gr.Textbox]:
    """The boxes of the prompt and the answer that are scored, also when the tab is opened."""
    gr.HTML(SCORE, apply_default_css=False)
    board = gr.State(Board())
    prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=1, max_lines=4, elem_id="score-prompt")
    answer = gr.Textbox(EXAMPLE_ANSWER, label="Answer", lines=5, max_lines=12, elem_id="score-answer")
    ended = gr.Checkbox(True, label="The answer is finished, not cut at the limit", elem_id="score-finished")
    notice = gr.HTML(elem_id="score-notice", apply_default_css=False)
    number = gr.HTML(score(None, None, None, family.scale), elem_id="score", apply_default_css=False)
    with gr.Row(elem_id="pins"):
        pin = gr.Button("Pin this answer", size="sm", elem_classes="chip")
        back = gr.Button("Back to the pinned one", size="sm", elem_classes="chip")
    gr.HTML("<h3>What if it did this?</h3>", apply_default_css=False)
    with gr.Row(elem_id="what-ifs"):
        edits = {name: gr.Button(name, size="sm", elem_classes="chip") for name in EDITS}
    tried = gr.HTML(tried_list(()), elem_id="tried", apply_default_css=False)

    def drawn(board: Board) -> tuple[Board, str, str, str]:
        """What the board looks like: board, score, what-ifs, and no notice."""
        return board, score(board.latest, board.before, board.pinned, family.scale), tried_list(board.tried), ""

    def failed(error: InputError) -> tuple[Any, ...]:
        return gr.skip(), gr.skip(), gr.skip(), problem(str(error))

    def rescore(board: Board, prompt: str, answer: str, ended: bool) -> tuple[Any, ...]:
        exchange = Exchange(prompt, answer, ended)
        if board.latest and board.latest.exchange == exchange:
            # It is drawn already; drawn again, it could undo what was tried meanwhile.
            return gr.skip(), gr.skip(), gr.skip(), ""
        try:
            family.limits.admit()
            [value] = rewards(reward, [exchange])
        except InputError as error:
            return failed(error)
        return drawn(board.moved(Version(exchange, value)))

    def trying(name: str) -> Callable[..., tuple[Any, ...]]:
        def try_edit(board: Board, prompt: str, answer: str, ended: bool) -> tuple[Any, ...]:
            exchange = Exchange(prompt, answer, ended)
            edited = EDITS[name](exchange)
            try:
                family.limits.admit()
                before, after = rewards(reward, [exchange, edited])
            except InputError as error:
                return (*failed(error), gr.skip(), gr.skip())
            board = board.moved(Version(exchange, before)).moved(Version(edited, after))
            board = replace(board, tried=(*board.tried, Tried(name, before, after))[-TRIED:])
            return (*drawn(board), edited.answer, edited.finished)

        return try_edit

    def carried(shown: Drawing | None, event: gr.EventData) -> tuple[Any, ...]:
        if shown is None:
            return (gr.skip(),) * 7
        sample = shown.samples[event.row]
        exchange = Exchange(shown.prompt, sample.answer.text, sample.answer.stopped)
        version = Version(exchange, sample.reward)
        return (*drawn(Board(latest=version, pinned=version)), exchange.prompt, exchange.answer, exchange.finished)

    def pinned(board: Board) -> tuple[Any, ...]:
        return drawn(Board(latest=board.latest, pinned=board.latest))

    def restored(board: Board) -> tuple[Any, ...]:
        if board.pinned is None:
            return (gr.skip(),) * 7
        exchange = board.pinned.exchange
        return (*drawn(board.moved(board.pinned)), exchange.prompt, exchange.answer, exchange.finished)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    boxes = [prompt, answer, ended]
    seen = [board, number, tried, notice]
    scoring: dict[str, Any] = {"fn": rescore, "inputs": [board, *boxes], "outputs": seen, **quiet}
    # Not `input`, which gradio sends for keys alone: pasted text counts too. Text that the page itself put there is
    # scored already, and `rescore` leaves it at that.
    for box in (prompt, answer):
        box.change(None, js=WHEN_QUIET, trigger_mode="once", **quiet).then(trigger_mode="always_last", **scoring)
    ended.input(**scoring)
    tab.select(**scoring)
    for name, button in edits.items():
        button.click(trying(name), [board, *boxes], [*seen, answer, ended], **quiet)
    answers.click(carried, shown, [*seen, *boxes], **quiet).then(None, js=SHOW_BOX, **quiet)
    pin.click(pinned, board, seen, **quiet)
    back.click(restored, board, [*seen, *boxes], **quiet)
    return prompt, answer


def halt(request: Ask | None) -> None:
    if request is not None:
        request.halted.set()


def taking(typed: str, prompt: str, given: str) -> tuple[Any, Any]:
    """The prompt typed elsewhere, if there is one and this tab's own was not edited."""
    if typed.strip() and prompt == given:
        return typed, typed
    return gr.skip(), gr.skip()


def finished(request: Ask, stages: int, seconds: float) -> str:
    bound = divergence_bound(request.count)
    name = LOOKS[request.stage].name
    return (
        f"<p>{stages * request.count} answers in {seconds:.1f} seconds. Choosing the best of n strays from {name} by "
        f"at most log n \N{MINUS SIGN} (n \N{MINUS SIGN} 1)/n nats of KL divergence: {bound:.2f} for "
        f"n = {request.count}.</p>{thin_line(0)}"
    )
