"""The tab that the page is for: one prompt, and every stage answers it at the same time."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import count, zip_longest
from typing import Any

import gradio as gr
from gradio.events import Dependency

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from ui.answering import COLUMNS, OWN, USUAL_TEMPERATURE, LoadedFamily, Request, View
from ui.columns import LOOKS, TOOLS, axis, column, lane, problem
from ui.controls import Controls
from ui.guessing import LETTERS, ballot, connect_guessing, guess_bar, shuffled
from ui.presets import CHOOSING, Preset, chips, presets
from ui.rooms import Rooms

# Gradio sends on Enter alone; this presses the button, so that Control and Enter do the same.
CONTROL_ENTER = """<script>
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#prompt")) {
    event.preventDefault();
    document.querySelector("#send").click();
  }
});
</script>"""
RAW = "the raw text"
CHAT = "the chat format"
BASE_SEES = (
    "SFT and RLHF always read your prompt between marks that say who speaks: the chat format. Base has only read "
    "plain text. Put the marks around its prompt, too, and see whether the marks alone make it answer."
)
REWARDS = (
    "<h2>Rewards</h2><p>What the reward model, trained on ranked answers, thinks of each answer. It can be wrong.</p>"
)
COUNTER = "Enter or Ctrl+Enter sends<span class='${value > LIMIT ? 'over' : ''}'>${value} / LIMIT</span>"


@dataclass(frozen=True)
class Comparison:
    """What other parts of the page need of this tab.

    `settings` by the names they have in a link, `places` are where the columns stand. `asking` are the
    arguments of an event that sends the prompt, `filled` the events after which more is to be seen: a column
    is full, or the names are revealed. The value of `request` is what is shown, that of `shown` in which columns.
    The fourth column, of the policy of the room `own_room`, is hidden with its lane until these `own_parts` are made
    visible.
    """

    request: gr.State
    prompt: gr.Textbox
    settings: dict[str, gr.Slider | gr.Number]
    base_sees: gr.Radio
    guessing: gr.Checkbox
    notice: gr.HTML
    shown: gr.CheckboxGroup
    places: list[gr.Column]
    lanes: list[gr.HTML]
    folds: gr.Row
    asking: dict[str, Any]
    filled: list[Dependency]
    own_room: gr.State
    own_parts: list[gr.Column | gr.HTML]

    @property
    def controls(self) -> Controls:
        return Controls({"prompt": self.prompt, **self.settings, "guess mode": self.guessing}, self.asking)


def compare_tab(family: LoadedFamily, rooms: Rooms) -> Comparison:
    """Lay out the tab inside the current `gr.Blocks` and connect its events."""
    request = gr.State(None)
    # With fewer than three stages there is little to guess, and the ballots know these three.
    guessable = tuple(family.models) == COLUMNS
    rewarded = family.reward is not None or family.published is None
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
        offered = presets()
        chosen = gr.HTML(chips(offered), js_on_load=CHOOSING, apply_default_css=False, elem_id="presets")
        notice = gr.HTML("<p>A click on a prompt sends it to all columns.</p>", elem_id="notice")
        with gr.Row(elem_id="options") as folds:
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                temperature, top_p, length, seed, base_sees = settings(family)
                names = [(LOOKS[stage].name, stage) for stage in family.columns]
                shown = gr.CheckboxGroup(names, value=list(family.columns), label="Columns", elem_id="shown")
            counter = gr.HTML(0, html_template=COUNTER.replace("LIMIT", str(family.prompt_limit)), elem_id="counter")
            guessing = gr.Checkbox(label="Guess mode", container=False, elem_id="guess-mode", visible=guessable)

    places, columns, lanes, ballots = [], [], [], []
    with gr.Row(elem_id="columns", elem_classes=[] if rewarded else ["unrewarded"]):
        for stage, letter in zip_longest(family.columns, LETTERS if guessable else ""):
            with gr.Column(elem_classes="place") as place:
                places.append(place)
                drawn = column(family.first_view(stage), family.scale)
                columns.append(gr.HTML(drawn, js_on_load=TOOLS, apply_default_css=False))
                if guessable:
                    ballots.append(ballot(letter))
        with gr.Column(elem_classes="place", visible=False) as own_place:
            own_column = gr.HTML(column(View(OWN, "idle"), family.scale), js_on_load=TOOLS, apply_default_css=False)
    if family.notes:
        gr.HTML(f"<p>{escape('; '.join(family.notes))}.</p>", elem_id="notes")
    bar = guess_bar()
    with gr.Column(elem_id="rewards", visible=rewarded):
        gr.HTML(REWARDS, apply_default_css=False)
        for stage in family.columns:
            lanes.append(gr.HTML(lane(family.first_view(stage), family.scale), apply_default_css=False))
        own_lane = gr.HTML(lane(View(OWN, "idle"), family.scale), apply_default_css=False, visible=False)
        gr.HTML(axis(family.scale), apply_default_css=False)
    # The room whose policy has the fourth column; none while that is hidden.
    own_room = gr.State("")
    revealed = [connect_guessing(family, request, guessing, columns, lanes, ballots, bar)] if guessable else []

    def ask(
        previous: Request | None,
        prompt: str,
        temperature: float,
        top_p: float,
        length: int,
        seed: int | None,
        base_sees: str,
        guessing: bool,
    ) -> tuple[Any, Any]:
        try:
            family.admit(prompt, len(family.models))
        except InputError as error:
            return gr.skip(), problem(str(error))
        if previous is not None:
            previous.give_way()
        decoding = Decoding(int(length), temperature, top_p, int(seed or 0))
        hidden = guessing and guessable
        order = shuffled() if hidden else family.columns
        chat_format = base_sees == CHAT
        allocation = family.allocation(prompt, decoding, chat_format)
        return Request(next(numbers), prompt, decoding, chat_format, order, hidden, allocation), gr.skip()

    # Gradio sends the last output once more when a listener ends: it must not be of a replaced request.
    nothing: Any = (gr.skip(), gr.skip())

    def filling(place: int) -> Callable[[Request | None, list[str]], Iterator[tuple[str, str]]]:
        def fill(request: Request | None, shown: list[str]) -> Iterator[tuple[str, str]]:
            if request is None or request.order[place] in request.latest:
                yield nothing
                return
            stage = request.order[place]
            if shown and stage not in shown and not request.guessing:
                # Nobody sees this column, until it is brought back; what stands in it answers an older prompt.
                view = family.first_view(stage)
                yield column(view, family.scale), lane(view, family.scale)
                return
            letter = LETTERS[place] if request.guessing else ""
            for view in family.views(stage, request):
                if request.replaced.is_set():
                    yield nothing
                    return
                request.latest[stage] = view
                hidden = request.hidden
                yield column(view, family.scale, letter, hidden), lane(view, family.scale, letter, hidden)

        return fill

    def fill_own(request: Request | None, room: str) -> Iterator[tuple[str, str]]:
        # Its name would give the others away.
        if request is None or request.guessing or not room:
            yield nothing
            return
        policy = rooms.policy(room)
        for view in family.beside(OWN, policy).views(OWN, request):
            if request.replaced.is_set():
                yield nothing
                return
            yield column(view, family.scale), lane(view, family.scale)

    numbers = count(1)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # Each column is a listener with a queue of its own, so that none waits for another.
    filled = [
        gr.on(
            [request.change, shown.change],
            filling(place),
            [request, shown],
            [columns[place], lanes[place]],
            concurrency_id=stage,
            concurrency_limit=family.people_at_once,
            trigger_mode="multiple",
            **quiet,
        )
        for place, stage in enumerate(family.columns)
        if stage in family.models
    ]
    request.change(
        fill_own, [request, own_room], [own_column, own_lane], concurrency_limit=2, trigger_mode="multiple", **quiet
    )
    asking: dict[str, Any] = {
        "fn": ask,
        "inputs": [request, prompt, temperature, top_p, length, seed, base_sees, guessing],
        "outputs": [request, notice],
        # In the queue, though quick: the browser hears of a changed state from there only.
        "concurrency_limit": None,
        **quiet,
    }
    send.click(**asking)
    prompt.submit(**asking)
    again.click(lambda: random.randrange(10_000), None, seed, queue=False, **quiet).then(**asking)
    chosen.select(taking(offered), None, [prompt, notice], queue=False, **quiet).then(**asking)
    stop.click(halt, request, None, queue=False, **quiet)
    prompt.change(None, prompt, counter, js="(text) => text.length", **quiet)
    prompt.input(None, None, notice, js="() => ''", **quiet)
    fields: dict[str, gr.Slider | gr.Number] = {
        "temperature": temperature,
        "top_p": top_p,
        "length": length,
        "seed": seed,
    }
    return Comparison(
        request,
        prompt,
        fields,
        base_sees,
        guessing,
        notice,
        shown,
        places,
        lanes,
        folds,
        asking,
        [*filled, *revealed],
        own_room,
        [own_place, own_lane],
    )


def settings(family: LoadedFamily) -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Number, gr.Radio]:
    """What decides how a prompt is answered, besides the models."""
    longest = min(256, family.context // 2)
    with gr.Row():
        temperature = gr.Slider(
            0, 2, USUAL_TEMPERATURE, step=0.05, label="Temperature", info="0: always the likeliest token"
        )
        top_p = gr.Slider(0.05, 1, Decoding.top_p, step=0.05, label="Top-p", info="1: any token may be drawn")
        length = gr.Slider(
            8, longest, min(longest, Decoding.max_new_tokens), step=8, label="Length", info="tokens, at most"
        )
        seed = gr.Number(
            Decoding.seed, precision=0, minimum=0, maximum=2**31, label="Seed", info="same seed, same answers"
        )
    base_sees = gr.Radio(
        [RAW, CHAT],
        value=RAW,
        label="Base sees",
        info=BASE_SEES,
        visible="base" in family.columns,
        elem_id="base-sees",
    )
    return temperature, top_p, length, seed, base_sees


def halt(request: Request | None) -> None:
    """End the columns of a request, if there is one: each shows how far it came."""
    if request is not None:
        request.halted.set()


def taking(offered: list[Preset]) -> Callable[[gr.EventData], tuple[str, str]]:
    def take(event: gr.EventData) -> tuple[str, str]:
        preset = offered[event.index]
        return preset.prompt, f"<p><b>What to look for</b> {escape(preset.look_for)}</p>"

    return take
