"""What a room sees of itself as HTML: its votes, how far people agree, and its training before and after.

Everything that a person or a model wrote is escaped: it is shown as text.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.rooms.agreement import Disagreement, alpha, disagreements
from pipeline.rooms.labels import Label, Tally
from ui.columns import LOOKS, problem, signed
from ui.curves import Chart, figure
from ui.jobs import Job
from ui.rooms import MOVE, OWN, RETRAIN, Rooms

MOST_DISAGREEMENTS = 8
CURVES = (
    Chart("Loss", "nats a pair", "It falls: your votes surprise the reward model less.", "loss"),
    Chart(
        "Accuracy",
        "% of pairs",
        "It rises: more often, the answer that you put higher gets the higher number.",
        "accuracy",
        level=(0.5, "a coin toss"),
        share=True,
    ),
)
POLICY_CURVES = (
    Chart("Reward", "mean of the answers", "It rises: the policy writes what the reward model likes.", "reward"),
    Chart("KL from its start", "nats an answer", "It rises: the policy moves away from where it began.", held_out="kl"),
    Chart("Length", "tokens an answer", "Does it grow? Then somebody rewarded length.", "length"),
)


def tally_line(room: str, tally: Tally, collected_in: str) -> str:
    """How many votes a room has, how others get into it, and who else gets the votes."""
    votes = (
        f"{tally.votes} vote{'s' * (tally.votes != 1)} of {tally.people} {'people' if tally.people != 1 else 'person'}"
    )
    consent = (
        f" <b>Who votes here agrees</b> that the votes are collected in the private dataset {escape(collected_in)}."
        if collected_in
        else ""
    )
    if room.startswith(OWN):
        return f"<p><b>{votes}.</b> Nobody else sees this room. Name one to share it with a class.{consent}</p>"
    return (
        f"<p><b>{votes}</b> in room <b>{escape(room)}</b>. Others come in with "
        f'<a href="?room={escape(room)}">this link</a>.{consent}</p>'
    )


def agreement_panel(votes: Sequence[Label]) -> str:
    """How far the people of a room agree, and where they do not."""
    value = alpha(votes)
    if value is None:
        said = "<p>Once two people have ranked the same answers, their agreement is shown here.</p>"
    else:
        said = (
            f"<p>Krippendorff's alpha is <b>{signed(value)}</b>: 1 would be perfect agreement, 0 what chance gives.</p>"
        )
    items = "".join(map(disagreement_item, disagreements(votes)[:MOST_DISAGREEMENTS]))
    return f"<h3>Do you agree?</h3>{said}" + (f"<ol class='contested'>{items}</ol>" if items else "")


def disagreement_item(found: Disagreement) -> str:
    sides = ((found.for_one, found.one), (found.for_other, found.other))
    lines = "".join(f"<p><b>{count}</b> {escape(text)}</p>" for count, text in sides)
    ties = f"<small>{found.ties} for neither</small>" if found.ties else ""
    return f'<li><p class="prompt">{escape(found.prompt)}</p>{lines}{ties}</li>'


def state_line(job: Job, place: int) -> str:
    """Where a job stands."""
    if job.state == "failed":
        return problem(f"It failed: {job.error}")
    if job.state == "cancelled":
        return "<p>Cancelled by you. Nothing was changed.</p>"
    if job.state == "waiting":
        return f"<p>Waiting: {place} other room{'s' * (place != 1)} first.</p>" if place else "<p>Waiting.</p>"
    steps = [told for told in job.told if "check" not in told]
    if not steps:
        return "<p>Starting: the training packages are loaded, and the models measured as they are.</p>"
    step, count = steps[-1]["step"], steps[-1]["steps"]
    done = "Done" if job.state == "done" else f"Step {step} of {count}"
    return f'<p>{done}.</p><div class="so-far"><i style="width:{100 * step / count:.0f}%"></i></div>'


def retrain_panel(job: Job | None, place: int, trained: Checkpoint | None) -> str:
    """The retraining of the reward model: where it stands, its curves, and what it changed."""
    parts = []
    if job is not None:
        parts.append(state_line(job, place))
        if job.told and job.state in ("running", "done"):
            last = job.told[-1]["steps"]
            parts.append(small_curves("reward", CURVES, job.told, 1, last))
    if trained is not None and (job is None or job.over):
        parts.append(before_and_after(trained.figures))
    return "".join(parts)


def before_and_after(figures: dict[str, Any]) -> str:
    """Accuracies before and after, and the rewards of fixed answers."""
    rows = "".join(
        f"<tr><th scope='row'>{name}</th><td>{share(figures['before'][key])}</td>"
        f"<td><b>{share(figures['after'][key])}</b></td><td>{figures[f'{key}_test_pairs']}</td></tr>"
        for key, name in (("room", "Your held-out votes"), ("original", "The original held-out rankings"))
    )
    answers = "".join(
        f'<tr class="{answer["stage"]}"><td><span class="prompt">{escape(answer["prompt"])}</span>'
        f"<b>{LOOKS[answer['stage']].name}</b> {escape(answer['text'].strip())}</td>"
        f"<td>{signed(answer['before'])}</td><td><b>{signed(answer['after'])}</b></td></tr>"
        for answer in figures["fixed"]
    )
    return (
        f"<p>Learned from {figures['votes']} votes, in {figures['pairs']} pairs of answers; "
        f"{figures['original_pairs']} of them are from the original rankings, so that those are not forgotten.</p>"
        "<table><thead><tr><th>Pairs ordered right</th><th>before</th><th>after</th><th>pairs</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        "<table class='fixed'><thead><tr><th>Rewards of the same answers</th><th>before</th><th>after</th></tr></thead>"
        f"<tbody>{answers}</tbody></table>"
    )


def share(value: float | None) -> str:
    return "none yet" if value is None else f"{100 * value:.0f} %"


def move_panel(job: Job | None, place: int, trained: Checkpoint | None) -> str:
    """The moving policy: where it stands, its curves, and what it says to the fixed prompts."""
    parts = []
    if job is not None:
        parts.append(state_line(job, place))
        steps = [told for told in job.told if "check" not in told]
        checks = [told for told in job.told if "check" in told]
        if checks and job.state in ("running", "done"):
            records = steps + [{"step": told["step"], "kl": told["check"]["kl"]} for told in checks]
            parts.append(small_curves("rlhf", POLICY_CURVES, records, 0, checks[0]["steps"]))
            parts.append(said_then_and_now(checks[0]["answers"], checks[-1]["answers"], checks[-1]["step"]))
    elif trained is not None:
        answers = trained.lines("samples.jsonl")
        last = answers[-1]["step"]
        first = [answer for answer in answers if answer["step"] == 0]
        now = [answer for answer in answers if answer["step"] == last]
        parts.append(said_then_and_now(first, now, last))
    return "".join(parts)


def small_curves(stage: str, charts: Sequence[Chart], records: list[dict[str, Any]], first: int, last: int) -> str:
    drawn = "".join(figure(chart, records, first, last) for chart in charts)
    steps = f'data-first="{first}" data-last="{last}" data-steps="[]" data-step="{last}"'
    return f'<div class="curves {stage}" {steps}>{drawn}</div>'


def said_then_and_now(first: list[dict[str, Any]], now: list[dict[str, Any]], step: int) -> str:
    rows = "".join(
        f'<li><p class="prompt">{escape(before["prompt"])}</p>'
        f'<p class="then"><small>at the start, reward {signed(before["reward"])}</small> {said(before)}</p>'
        f'<p class="now"><small>after {step} steps, reward {signed(after["reward"])}</small> {said(after)}</p></li>'
        for before, after in zip(first, now, strict=True)
    )
    return f"<ol class='moved'>{rows}</ol>"


def said(answer: dict[str, Any]) -> str:
    return escape(answer["text"].strip()) or "It wrote nothing."


def stamp(rooms: Rooms, room: str) -> tuple[Any, ...]:
    """Differs whenever something of the room that is shown has changed."""
    jobs = [rooms.jobs.of(room, kind) for kind in (RETRAIN, MOVE)]
    return (room, rooms.labels.tally(room), *((id(job), job.state, len(job.told)) for job in jobs if job))


def panels(rooms: Rooms, room: str) -> list[Any]:
    """The tally, the agreement, both trainings, and the stamp of all that."""
    newest = {kind: rooms.jobs.of(room, kind) for kind in (RETRAIN, MOVE)}
    trainings = [
        draw(newest[kind], rooms.jobs.place(job) if (job := newest[kind]) else 0, rooms.trained(room, kind))
        for kind, draw in ((RETRAIN, retrain_panel), (MOVE, move_panel))
    ]
    votes = rooms.labels.of(room)
    collected_in = rooms.collecting.dataset if rooms.collecting else ""
    tally = tally_line(room, rooms.labels.tally(room), collected_in)
    return [tally, agreement_panel(votes), *trainings, stamp(rooms, room)]
