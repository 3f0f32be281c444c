"""The half of the Rank tab where votes become rewards, and rewards move a policy."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from pipeline.errors import InputError
from ui.answering import LoadedFamily
from ui.columns import LOOKS, problem
from ui.compare import Comparison
from ui.limits import TRAINING
from ui.presets import presets
from ui.room_panels import panels
from ui.rooms import MOVE, RETRAIN, Rooms

STEPS = (20, 40, 60)
MOST_PROMPTS = 24  # that the policy is trained on
ABOUT_RETRAIN = (
    "<h2>Retrain the reward model</h2><p>Your votes become pairs of a better and a worse answer, and the reward model "
    "learns to give the better one the higher number. The family's own reward model stays as it is.</p>"
)
ABOUT_MOVE = (
    "<h2>Move the policy</h2><p>A short RLHF run: the policy answers, your reward model scores, and what scored above "
    "the average becomes likelier. KL holds it near its start; at 0 nothing does. Try reward hacking: vote for the "
    "longest answers, or for those that begin with thanks, retrain, let go of KL, and see what becomes of it.</p>"
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def training_half(
    family: LoadedFamily,
    rooms: Rooms,
    room: gr.State,
    retrained: gr.HTML,
    moved: gr.HTML,
    parts: list[Any],
    tabs: gr.Tabs,
    comparison: Comparison,
) -> None:
    """Lay out both trainings; `parts` are all components that show something of the room."""
    gr.HTML(ABOUT_RETRAIN, apply_default_css=False)
    retrain, cancel_retrain, retrain_notice = doing("Retrain", "retrain")
    retrained.render()
    gr.HTML(ABOUT_MOVE, apply_default_css=False)
    with gr.Row(elem_id="move-settings"):
        starts = [(LOOKS[stage].name, stage) for stage in ("sft", "rlhf") if stage in family.models]
        start = gr.Radio(starts, value="sft", label="From", elem_id="move-start")
        steps = gr.Radio(list(STEPS), value=STEPS[0], label="Steps", elem_id="move-steps")
        kl = gr.Slider(0, 0.2, 0.05, step=0.01, label="KL", info="0: nothing holds it", elem_id="move-kl")
    move, cancel_move, move_notice = doing("Move the policy", "move")
    moved.render()
    show = gr.Button("Show it in Compare", elem_id="show-policy")

    def started(room: str, begin: Callable[[], object]) -> list[Any]:
        try:
            family.limits.admit(TRAINING)
            begin()
        except InputError as error:
            return [problem(str(error)), *[gr.skip()] * len(parts)]
        return ["", *panels(rooms, room)]

    def start_retraining(room: str) -> list[Any]:
        return started(room, lambda: rooms.retrain(room))

    def start_moving(room: str, start: str, steps: int, kl: float) -> list[Any]:
        voted = [vote.prompt for vote in rooms.labels.of(room)]
        prompts = list(dict.fromkeys([*voted, *(preset.prompt for preset in presets())]))[:MOST_PROMPTS]
        return started(room, lambda: rooms.move(room, prompts, start, steps, kl))

    def cancelling(kind: str) -> Callable[[str], list[Any]]:
        def cancel(room: str) -> list[Any]:
            if job := rooms.jobs.of(room, kind):
                rooms.jobs.cancel(job)
            return panels(rooms, room)

        return cancel

    def shown(room: str) -> list[Any]:
        place = rooms.place(room)
        if not place.has("rlhf"):
            return [problem("this room has not moved a policy yet"), *[gr.skip()] * (2 + len(comparison.own_parts))]
        return ["", room, gr.Tabs(selected="compare"), *[gr.update(visible=True) for _ in comparison.own_parts]]

    show.click(shown, room, [move_notice, comparison.own_room, tabs, *comparison.own_parts], **QUIET)
    retrain.click(start_retraining, room, [retrain_notice, *parts], **QUIET)
    move.click(start_moving, [room, start, steps, kl], [move_notice, *parts], **QUIET)
    cancel_retrain.click(cancelling(RETRAIN), room, parts, **QUIET)
    cancel_move.click(cancelling(MOVE), room, parts, **QUIET)


def doing(label: str, name: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The button that starts, the one that cancels, and where it is said what went wrong."""
    with gr.Row(elem_classes="doing"):
        start = gr.Button(label, variant="primary", elem_id=name)
        cancel = gr.Button("Cancel", elem_id=f"cancel-{name}")
    return start, cancel, gr.HTML(elem_classes="job-notice", apply_default_css=False)
