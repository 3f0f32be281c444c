"""The tab that the page is for: one prompt, three stages, three answers at the same time."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Any

import gradio as gr
import yaml

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.recipe import REPOSITORY
from ui.answering import COLUMNS, USUAL_TEMPERATURE, LoadedFamily, Request
from ui.columns import column

# Answers of one column that are written at the same time; who comes later waits in the queue.
PEOPLE_AT_ONCE = 2
# Gradio sends on Enter alone; this presses the button, so that Control and Enter do the same.
CONTROL_ENTER = """<script>
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#prompt")) {
    event.preventDefault();
    document.querySelector("#send").click();
  }
});
</script>"""
COUNTER = "Enter or Ctrl+Enter sends<span class='${value > LIMIT ? 'over' : ''}'>${value} / LIMIT</span>"


@dataclass(frozen=True)
class Preset:
    label: str
    prompt: str
    look_for: str


def presets() -> list[Preset]:
    text = (REPOSITORY / "assets" / "prompts.yaml").read_text(encoding="utf-8")
    return [Preset(**entry) for entry in yaml.safe_load(text)]


def compare_tab(family: LoadedFamily) -> None:
    """Lay out the tab inside the current `gr.Blocks` and connect its events."""
    request = gr.State(None)
    with gr.Column(elem_id="ask"):
        with gr.Row(elem_id="asking"):
            prompt = gr.Textbox(
                label="Prompt",
                show_label=False,
                container=False,
                placeholder="Type a prompt, or take one from below",
                # One line that grows: gradio then sends on Enter, and Shift+Enter begins a new line.
                lines=1,
                max_lines=8,
                autofocus=True,
                elem_id="prompt",
            )
            with gr.Row(elem_id="actions"):
                send = gr.Button("Send", variant="primary", elem_id="send")
                stop = gr.Button("Stop", elem_id="stop")
                again = gr.Button("Again", elem_id="again")
        with gr.Row(elem_id="presets"):
            chips = {preset: gr.Button(preset.label, size="sm", elem_classes="chip") for preset in presets()}
            counter = gr.HTML(0, html_template=COUNTER.replace("LIMIT", str(family.prompt_limit)), elem_id="counter")
        notice = gr.HTML(elem_id="notice")
        with gr.Accordion("Settings", open=False, elem_id="settings"), gr.Row():
            temperature = gr.Slider(
                0, 2, USUAL_TEMPERATURE, step=0.05, label="Temperature", info="0: always the likeliest token"
            )
            top_p = gr.Slider(0.05, 1, Decoding.top_p, step=0.05, label="Top-p", info="1: any token may be drawn")
            longest = min(256, family.context // 2)
            length = gr.Slider(
                8, longest, min(longest, Decoding.max_new_tokens), step=8, label="Length", info="tokens, at most"
            )
            seed = gr.Number(
                Decoding.seed, precision=0, minimum=0, maximum=2**31, label="Seed", info="same seed, same answers"
            )

    with gr.Row(elem_id="columns"):
        columns = [
            gr.HTML(column(family.first_view(stage), family.scale), apply_default_css=False) for stage in COLUMNS
        ]

    def ask(
        previous: Request | None, prompt: str, temperature: float, top_p: float, length: int, seed: int | None
    ) -> tuple[Any, Any]:
        try:
            family.check(prompt)
        except InputError as error:
            return gr.skip(), f'<p class="problem" role="alert">{escape(str(error))}</p>'
        halt(previous)
        decoding = Decoding(int(length), temperature, top_p, int(seed or 0))
        return Request(next(numbers), prompt, decoding), gr.skip()

    def filling(stage: str) -> Callable[[Request], Iterator[str]]:
        def fill(request: Request) -> Iterator[str]:
            for view in family.views(stage, request):
                yield column(view, family.scale)

        return fill

    numbers = count(1)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # Each column is a listener with a queue of its own, so that none waits for another.
    for stage, output in zip(COLUMNS, columns, strict=True):
        if stage in family.models:
            request.change(
                filling(stage),
                request,
                output,
                concurrency_id=stage,
                concurrency_limit=PEOPLE_AT_ONCE,
                trigger_mode="multiple",
                **quiet,
            )
    asking: dict[str, Any] = {
        "fn": ask,
        "inputs": [request, prompt, temperature, top_p, length, seed],
        "outputs": [request, notice],
        # In the queue, though quick: the browser hears of a changed state from there only.
        "concurrency_limit": None,
        **quiet,
    }
    send.click(**asking)
    prompt.submit(**asking)
    again.click(lambda: random.randrange(10_000), None, seed, queue=False, **quiet).then(**asking)
    for preset, chip in chips.items():
        chip.click(taking(preset), None, [prompt, notice], queue=False, **quiet).then(**asking)
    stop.click(halt, request, None, queue=False, **quiet)
    prompt.change(None, prompt, counter, js="(text) => text.length", **quiet)
    prompt.input(None, None, notice, js="() => ''", **quiet)


def halt(request: Request | None) -> None:
    """End the columns of a request, if there is one: each shows how far it came."""
    if request is not None:
        request.halted.set()


def taking(preset: Preset) -> Callable[[], tuple[str, str]]:
    return lambda: (preset.prompt, f"<p><b>What to look for</b> {escape(preset.look_for)}</p>")
