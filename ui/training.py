"""The tab on training: the curves of every stage, the time line from SFT to RLHF, and what each stage was shown."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from pipeline.checkpoint import Checkpoint
from pipeline.errors import InputError
from pipeline.inference.curves import Record, logged
from pipeline.inference.decoding import Decoding
from pipeline.inference.examples import TrainingData
from pipeline.inference.snapshots import TimeLine
from ui.answering import SECONDS_BETWEEN_VIEWS, LoadedFamily, State
from ui.columns import BUSY, ENDINGS, icon, place, problem, signed, span
from ui.controls import Controls
from ui.curves import READING, curves
from ui.examples import page_of
from ui.limits import in_time

NAMES = {"base": "Base", "sft": "SFT", "reward": "Reward model", "rlhf": "RLHF", "dpo": "DPO"}
ABOUT = {
    "base": "A network of random numbers reads text, and learns to predict the next token.",
    "sft": "The base model learns to answer, by imitating answers that trainers wrote.",
    "reward": "A copy of the SFT model learns from rankings to put a number on an answer.",
    "rlhf": "The SFT model answers, the reward model scores, and what scored well becomes likelier.",
    "dpo": "The SFT model learns from the same rankings directly, without a reward model.",
}
LIVE = "Move the slider: the model of that step answers now, with its likeliest tokens."
RECORDED = "Move the slider: these answers were written down during training."
SCORED = "It writes nothing itself. These are answers of SFT, with its score for each."
BEFORE = {"base": "random numbers", "sft": "still base", "rlhf": "still SFT", "dpo": "still SFT"}
# Long enough to read an answer while the time line plays.
SECONDS_A_STEP = 1.5
MARK_STEP = """(index) => {
  const charts = document.querySelector("#curves [data-steps]");
  if (!charts) return;
  const step = JSON.parse(charts.dataset.steps)[index];
  document.querySelector("#step input[type=range]").setAttribute("aria-valuetext", `step ${step}`);
  charts.dispatchEvent(new CustomEvent("step", {detail: step, bubbles: true}));
}"""


@dataclass(frozen=True)
class Reached:
    """What a stage wrote to a prompt after some step of its training; `state` as in the columns of Compare."""

    stage: str
    step: int
    state: State
    text: str = ""
    reward: float | None = None


class History:
    """How the stages of a family came to be. What it logged is read, and verified, when it is asked for."""

    def __init__(self, family: LoadedFamily) -> None:
        self.family = family
        self.stages = [stage for stage in NAMES if family.files.has(stage)]
        both = {"sft", "rlhf"} <= set(family.models)
        self.time_line = TimeLine(family.files, family.local["sft"], family.local["rlhf"]) if both else None

    def checkpoint(self, stage: str) -> Checkpoint:
        return self.family.files.checkpoint(stage)

    def is_live(self, stage: str) -> bool:
        return stage == "rlhf" and self.time_line is not None

    def samples(self, stage: str) -> list[Record]:
        """What was written down during training; nothing for a stage that kept no samples."""
        checkpoint = self.checkpoint(stage)
        return checkpoint.lines("samples.jsonl") if "samples.jsonl" in checkpoint.record["files"] else []

    def steps(self, stage: str) -> list[int]:
        """The steps whose answers are known, in order."""
        if stage == "rlhf" and self.time_line:
            return self.time_line.steps
        return sorted({record["step"] for record in self.samples(stage)}) if stage != "reward" else []

    def prompts(self, stage: str) -> list[str]:
        return list(dict.fromkeys(record["prompt"] for record in self.samples(stage)))

    def reached(self, stage: str, step: int, prompt: str) -> Iterator[Reached]:
        """The answer at a step: as it grows where the model was kept, at once where only the answer was.

        Raises InputError for a prompt that cannot be answered, or to which nothing was written down.
        """
        latest = Reached(stage, step, "waiting")
        for latest in self.answering(step, prompt) if self.is_live(stage) else [self.recorded(stage, step, prompt)]:
            yield latest
        if self.family.reward:
            [reward] = self.family.reward.scores([(prompt, latest.text)], [latest.state == "stopped"])
            yield replace(latest, reward=reward)

    def answering(self, step: int, prompt: str) -> Iterator[Reached]:
        assert self.time_line
        self.family.admit(prompt, 1)
        reached = Reached("rlhf", step, "waiting")
        yield reached
        shown, stopped = 0.0, False
        for answer in in_time(self.time_line.model(step).stream(prompt, Decoding(temperature=0))):
            reached, stopped = replace(reached, state="writing", text=answer.text), answer.stopped
            if time.monotonic() - shown >= SECONDS_BETWEEN_VIEWS:
                shown = time.monotonic()
                yield reached
        yield replace(reached, state="stopped" if stopped else "cut")

    def recorded(self, stage: str, step: int, prompt: str) -> Reached:
        for record in self.samples(stage):
            if (record["step"], record["prompt"]) == (step, prompt):
                return Reached(stage, step, "stopped" if record["stopped"] else "cut", record["text"])
        raise InputError("nothing was written down for this prompt; choose another")


def training_tab(family: LoadedFamily, tab: gr.Tab) -> Controls | None:
    """Lay out the tab inside the current `gr.Blocks` and connect its events."""
    if family.published:
        gr.HTML("<p>This family was trained elsewhere: there are no curves and no earlier steps of it here.</p>")
        return None
    history, data = History(family), TrainingData(family.files)
    first = "rlhf" if "rlhf" in history.stages else history.stages[-1]

    with gr.Column(elem_id="training"):
        stage = gr.Radio(
            [(name, stage) for stage, name in NAMES.items() if stage in history.stages],
            value=first,
            label="Stage",
            show_label=False,
            container=False,
            elem_id="training-stage",
        )
        about = gr.HTML(about_stage(history, first), apply_default_css=False)
        with gr.Row(elem_id="training-parts"):
            with gr.Column(elem_id="time-line"):
                with gr.Row(elem_id="time-line-steps") as travel:
                    slider = gr.Slider(0, 1, 0, step=1, label="Step", container=False, buttons=[], elem_id="step")
                    play = gr.Button("Play", size="sm", elem_id="play")
                stops = gr.HTML(apply_default_css=False)
                prompts = gr.Radio([], label="Prompt", show_label=False, container=False, elem_id="training-prompts")
                prompt = gr.Textbox(
                    label="Prompt of the time line",
                    show_label=False,
                    container=False,
                    placeholder="Or ask something else, and press Enter",
                    lines=1,
                    max_lines=4,
                    elem_id="training-prompt",
                )
                answer = gr.HTML(apply_default_css=False, elem_id="reached")
            drawn = gr.HTML(js_on_load=READING, apply_default_css=False, elem_id="curves")
        with gr.Accordion("What it was trained on: real examples", open=False, elem_id="examples") as part:
            shown = gr.HTML(apply_default_css=False)
            with gr.Row(elem_id="turning"):
                back = gr.Button("Previous", size="sm")
                onward = gr.Button("Next", size="sm")
                shuffle = gr.Button("Shuffle", size="sm")
                position = gr.HTML(apply_default_css=False)
    # Which order the examples stand in, and the page of them; whether they are looked at.
    order, page, opened = gr.State(0), gr.State(0), gr.State(False)

    def choose(stage: str, asked: str) -> dict[Any, Any]:
        try:
            known, steps, live = history.prompts(stage), history.steps(stage), history.is_live(stage)
            note = about_stage(history, stage)
        except InputError as error:
            return nothing | {drawn: problem(f"This stage cannot be read: {error}")}
        asked = asked if asked in known or (live and asked) else (known or [""])[0]
        several = len(steps) > 1
        return {
            about: note,
            travel: gr.update(visible=several),
            slider: gr.update(maximum=max(1, len(steps) - 1), value=0),
            stops: step_labels(steps) if several else "",
            prompts: gr.update(choices=known, value=asked if asked in known else None, visible=several),
            prompt: gr.update(value=asked, visible=live),
            drawn: drawing(history, stage, steps),
            answer: scored_samples(history) if stage == "reward" else "",
        }

    hidden = gr.update(visible=False)
    nothing = {about: "", travel: hidden, stops: "", prompts: hidden, prompt: hidden, answer: ""}

    def reach(stage: str, index: int, asked: str) -> Iterator[Any]:
        try:
            steps = history.steps(stage)
            if not steps or not asked:
                yield gr.skip()
                return
            for reached in history.reached(stage, steps[min(int(index), len(steps) - 1)], asked):
                yield answer_at(reached, family.scale)
        except InputError as error:
            yield problem(f"There is no answer: {error}")

    def walk(stage: str, index: int, asked: str) -> Iterator[tuple[int, str]]:
        """From the step where the slider stands to the last, or from the first if it stands there."""
        last = len(history.steps(stage)) - 1
        for at in range(int(index) if index < last else 0, last + 1):
            start = time.monotonic()
            for html in reach(stage, at, asked):
                yield at, html
            if at < last:
                time.sleep(max(0.0, SECONDS_A_STEP - (time.monotonic() - start)))

    def turn(stage: str, order: int, page: int, opened: bool) -> tuple[Any, ...]:
        if not opened:
            return (gr.skip(),) * 5
        try:
            html, page, pages = page_of(data, stage, order, page)
        except InputError as error:
            html, page, pages = problem(f"There are no examples: {error}"), 0, 1
        where = f"<p>Page {page + 1:,} of {pages:,}</p>"
        return html, page, where, gr.update(interactive=page > 0), gr.update(interactive=page < pages - 1)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    reaching: dict[str, Any] = {
        "fn": reach,
        "inputs": [stage, slider, prompt],
        "outputs": answer,
        "concurrency_limit": 2,
        "concurrency_id": "time line",
        # While an answer is on its way, of all moves only the last one counts.
        "trigger_mode": "always_last",
        **quiet,
    }
    turning: dict[str, Any] = {
        "fn": turn,
        "inputs": [stage, order, page, opened],
        "outputs": [shown, page, position, back, onward],
        "show_progress_on": shown,
        "api_visibility": "private",
    }
    choosing: dict[str, Any] = {
        "fn": choose,
        "inputs": [stage, prompt],
        "outputs": [about, travel, slider, stops, prompts, prompt, drawn, answer],
        **quiet,
    }
    playing = play.click(walk, [stage, slider, prompt], [slider, answer], concurrency_limit=2, **quiet)
    slider.change(None, slider, None, js=MARK_STEP, **quiet)
    slider.input(None, cancels=[playing], **quiet)
    slider.input(**reaching)
    prompt.submit(None, None, prompts, js="() => null", **quiet)
    prompt.submit(cancels=[playing], **reaching)
    prompts.input(lambda chosen: chosen, prompts, prompt, queue=False, **quiet).then(**reaching)
    tab.select(**choosing).then(**reaching)
    stage.input(cancels=[playing], **choosing).then(**reaching).then(lambda: (0, 0), None, [order, page], **quiet).then(
        **turning
    )
    part.expand(lambda: True, None, opened, **quiet).then(**turning)
    part.collapse(lambda: False, None, opened, **quiet)
    back.click(lambda page: page - 1, page, page, **quiet).then(**turning)
    onward.click(lambda page: page + 1, page, page, **quiet).then(**turning)
    shuffle.click(lambda: (random.randrange(1, 10**6), 0), None, [order, page], **quiet).then(**turning)
    # Opening the tab answers the prompt.
    return Controls({"prompt": prompt})


def about_stage(history: History, stage: str) -> str:
    checkpoint = history.checkpoint(stage)
    note = SCORED if stage == "reward" else LIVE if history.is_live(stage) else RECORDED
    if not history.steps(stage) and stage != "reward":
        note = "No answers were kept from its training."
    if history.is_live(stage) and len(history.steps(stage)) == 2:
        note = f"No steps in between were kept, only the two ends. {LIVE}"
    return (
        f'<div class="about-stage {stage}"><h2>{NAMES[stage]}</h2><p>{ABOUT[stage]} '
        f"{checkpoint.record['steps']:,} steps, {duration(checkpoint.record['seconds'])}.</p><p>{note}</p></div>"
    )


def duration(seconds: float) -> str:
    """A time as people say it: `40 seconds`, `7 minutes`, `2.5 hours`."""
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.0f} seconds"


def drawing(history: History, stage: str, steps: list[int]) -> str:
    """The curves of a stage, or why there are none."""
    try:
        return curves(stage, logged(history.checkpoint(stage)), steps)
    except InputError as error:
        return problem(f"There are no curves: {error}")


def step_labels(steps: list[int]) -> str:
    """The steps, to stand under the slider."""
    labels = "".join(f"<span>{step:,}</span>" for step in steps)
    return f'<p class="stops" aria-hidden="true">{labels}</p>'


def answer_at(reached: Reached, scale: tuple[float, float]) -> str:
    """The answer of a step with its end and its reward."""
    words, paths = ENDINGS[reached.state]
    caret = '<span class="caret"></span>' if reached.state in ("waiting", "writing") else ""
    text = escape(reached.text) or ("" if caret else '<span class="aside">It wrote nothing.</span>')
    busy = str(reached.state in BUSY).lower()
    return (
        f'<div class="reached {reached.stage}" data-state="{reached.state}" aria-busy="{busy}">'
        f"<h3>After step {reached.step:,}{'' if reached.step else f': {BEFORE[reached.stage]}'}</h3>"
        f'<p class="text">{text}{caret}</p>'
        f'<p class="how">{icon(paths)}{words}</p>{reward_bar(reached.reward, scale)}</div>'
    )


def reward_bar(reward: float | None, scale: tuple[float, float]) -> str:
    """A reward as a thin bar from zero on the family's fixed scale, with the number."""
    number = "\N{EN DASH}" if reward is None else signed(reward)
    return (
        f'<p class="score"><span>Reward</span><span class="track" aria-hidden="true">'
        f'<i class="bar" style="{span(reward or 0.0, scale)}"></i>'
        f'<i class="zero" style="left:{place(0.0, scale):.2f}%"></i></span><b>{number}</b></p>'
    )


def scored_samples(history: History) -> str:
    """What the reward model says of SFT's answers to the fixed prompts."""
    return "".join(
        f'<div class="reached reward"><p class="asked">{escape(record["prompt"])}</p>'
        f'<p class="text">{escape(record["text"])}</p>{reward_bar(record["reward"], history.family.scale)}</div>'
        for record in history.samples("reward")
    )
