"""The report card: the measured behaviour of every stage of a family on prompts held out of its training."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from pipeline.chat_format import encode_prompt
from pipeline.checkpoint import ANSWERING, Family, write_json_lines, write_whole
from pipeline.corpus.cards import load_corpus
from pipeline.inference.decoding import Completion, Decoding
from pipeline.inference.models import (
    LONGEST_PROMPT,
    SHORTEST_ROOM,
    Answer,
    RewardModel,
    StageModel,
    context_length,
    load_reward,
    load_stage,
)
from pipeline.recipe import Recipe, load_recipe
from pipeline.report import against, correctness, markdown
from pipeline.report.against import SAMPLES, TEMPERATURE, against_sft, curve, kl_from_sft, sample
from pipeline.report.bars import outcomes
from pipeline.report.behaviour import Row, evidence, figures, judged, sampled_figures
from pipeline.report.correctness import agreement
from pipeline.report.figures import Figure
from pipeline.report.plots import plots
from pipeline.report.preference import (
    RANKINGS,
    calibration,
    calibration_error,
    comparison_figures,
    comparisons_by_source,
    pair_lines,
)
from pipeline.report.prompts import Probe, outside_probes, probes
from pipeline.report.text import HELD_OUT, held_out_texts, perplexity
from pipeline.run import RECIPE

SAMPLED_SHARE = 5  # one prompt in so many of each kind and split is answered SAMPLES times as well
EVIDENCE = 7  # prompts of each kind and split whose answers are written out: about a megabyte with those from outside
CHANGED = ("rlhf", "dpo")  # what is compared with SFT


@dataclass
class Findings:
    """All that was measured, before any of it is written."""

    prompts: int
    greedy: dict[str, list[Row]] = field(default_factory=dict)
    outside: dict[str, list[Row]] = field(default_factory=dict)
    sampled: dict[str, list[list[Row]]] = field(default_factory=dict)
    against: dict[str, list[Figure]] = field(default_factory=dict)
    reward: list[Figure] = field(default_factory=list)
    bins: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    text: list[Figure] = field(default_factory=list)
    agreement: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def stages(self) -> dict[str, list[Figure]]:
        """The figures of every stage, those against SFT included."""
        return {stage: figures(rows) + self.against.get(stage, []) for stage, rows in self.greedy.items()}

    @cached_property
    def sampled_stages(self) -> dict[str, list[Figure]]:
        return {stage: sampled_figures(found) for stage, found in self.sampled.items()}

    @cached_property
    def outside_stages(self) -> dict[str, list[Figure]]:
        return {stage: figures(found) for stage, found in self.outside.items() if found}

    @cached_property
    def measured(self) -> dict[str, dict[str, Figure]]:
        """By stage and name: what the bars are about."""
        everything = self.stages | {"reward": self.reward}
        return {stage: {figure.name: figure for figure in found} for stage, found in everything.items()}


def write_report(family: Family, prompts_each: int) -> str:
    """Measure every stage, write the report into the family's folder, and return the text of `report.md`.

    Everything is measured before anything is written, and each file is written whole or not at all:
    `report-answers.jsonl` (answers with their verdicts), `report-pairs.jsonl` (pairs with their rewards), the plots,
    `report.md`, and last `report.json`.
    """
    findings = measure(family, prompts_each)
    drawn = plots({stage: findings.measured[stage] for stage in findings.greedy}, findings.curve, findings.bins)
    text = markdown_of(family, findings, list(drawn))
    write_json_lines(family.path / "report-answers.jsonl", answer_lines(findings))
    write_json_lines(family.path / "report-pairs.jsonl", findings.pairs)
    for name, svg in drawn.items():
        write_whole(family.path / name, svg)
    write_whole(family.path / "report.md", text)
    write_whole(family.path / "report.json", json.dumps(content(family, findings), indent=1) + "\n")
    return text


def measure(family: Family, prompts_each: int) -> Findings:
    """All figures of a family, from its checkpoints on disk and the corpus of its recipe."""
    recipe = load_recipe(str(family.path / RECIPE))
    corpus = load_corpus(recipe.corpus)
    models = {stage: load_stage(family.checkpoint(stage)) for stage in ANSWERING if family.has(stage)}
    reward = load_reward(family.checkpoint("reward")) if family.has("reward") else None
    asked = fitting(probes(corpus, recipe, prompts_each), models["base"])
    every_outside = outside_probes()
    outside = fitting(every_outside, models["base"])
    few = thinned(asked, max(1, prompts_each // SAMPLED_SHARE))

    findings = Findings(prompts=len(asked))
    completions: dict[str, list[list[Completion]]] = {}
    for stage, model in models.items():
        findings.greedy[stage] = answered(model, reward, asked)
        findings.outside[stage] = answered(model, reward, outside)
        if stage != "base":
            completions[stage] = sample(model, texts_of(few))
            findings.sampled[stage] = sampled_rows(model, reward, few, completions[stage])
    for stage in [stage for stage in CHANGED if {stage, "sft"} <= set(models)]:
        findings.against[stage] = versus_sft(findings, stage)
        findings.against[stage] += kl_from_sft(models[stage], models["sft"], texts_of(few), completions[stage])
    if reward:
        compared = comparisons_by_source(reward, family, recipe, asked)
        findings.reward = [figure for name, pairs in compared.items() for figure in comparison_figures(name, pairs)]
        findings.bins = calibration(compared[RANKINGS])
        findings.pairs = pair_lines(compared)
    if family.has("rlhf"):
        findings.curve = curve(family.checkpoint("rlhf").lines("metrics.jsonl"))
    predict(findings, recipe, corpus, models["base"], prompts_each)
    findings.agreement = agreement(recipe)
    if len(outside) < len(every_outside):
        findings.notes.append(f"{len(every_outside) - len(outside)} outside prompts are longer than the models read.")
    return findings


def fitting(candidates: Sequence[Probe], model: StageModel) -> list[Probe]:
    """The probes whose prompts every stage can read and still has room to answer."""
    room = context_length(model.model) - SHORTEST_ROOM
    return [
        probe
        for probe in candidates
        if len(probe.prompt.prompt) <= LONGEST_PROMPT
        and len(encode_prompt(model.tokenizer, probe.prompt.prompt)) <= room
    ]


def thinned(candidates: Sequence[Probe], each: int) -> list[Probe]:
    """The first `each` probes of every kind and split."""
    groups: dict[tuple[str, str], list[Probe]] = {}
    for probe in candidates:
        groups.setdefault((probe.prompt.kind, probe.prompt.split), []).append(probe)
    return [probe for group in groups.values() for probe in group[:each]]


def texts_of(candidates: Sequence[Probe]) -> list[str]:
    return [probe.prompt.prompt for probe in candidates]


def answered(model: StageModel, reward: RewardModel | None, asked: Sequence[Probe]) -> list[Row]:
    """A stage's greedy answers, judged."""
    return rows(reward, asked, model.answers(texts_of(asked), Decoding(temperature=0)))


def sampled_rows(
    model: StageModel, reward: RewardModel | None, asked: Sequence[Probe], completions: list[list[Completion]]
) -> list[list[Row]]:
    """The judged samples of each prompt."""
    answers = [
        Answer(model.text(completion.tokens), len(completion.tokens), completion.stopped)
        for group in completions
        for completion in group
    ]
    found = rows(reward, [probe for probe in asked for _ in range(SAMPLES)], answers)
    return [found[start : start + SAMPLES] for start in range(0, len(found), SAMPLES)]


def rows(reward: RewardModel | None, asked: Sequence[Probe], answers: Sequence[Answer]) -> list[Row]:
    exchanges = [(probe.prompt.prompt, answer.text) for probe, answer in zip(asked, answers, strict=True)]
    scores = reward.scores(exchanges, [answer.stopped for answer in answers]) if reward else [None] * len(answers)
    return [judged(probe, answer, score) for probe, answer, score in zip(asked, answers, scores, strict=True)]


def versus_sft(findings: Findings, stage: str) -> list[Figure]:
    """A stage against SFT, without the capitals and what is asked more often: they would outweigh the rest."""
    kept = {
        name: [row for row in found if row.probe.capital_of is None and not row.probe.extra]
        for name, found in findings.greedy.items()
    }
    return against_sft(kept[stage], kept["sft"], findings.sampled[stage], findings.sampled["sft"])


def predict(findings: Findings, recipe: Recipe, corpus: Any, base: StageModel, each: int) -> None:
    """How well base predicts held-out text, and a note for each source that holds none."""
    for texts in held_out_texts(recipe, corpus, each):
        if texts.documents:
            findings.text += perplexity(
                base.model, base.tokenizer, texts.documents, texts.source, context_length(base.model)
            )
        elif texts.missing:
            findings.notes.append(f"Perplexity leaves out {texts.source}: {texts.missing}.")


def answer_lines(findings: Findings) -> list[dict[str, Any]]:
    """One line a prompt and stage, the greedy answer with its verdicts: of the first EVIDENCE prompts of every kind
    and split, and of all those from outside."""
    shown = {probe.prompt.id for probe in thinned([row.probe for row in findings.greedy["base"]], EVIDENCE)}
    return [
        evidence(stage, row)
        for part in (findings.greedy, findings.outside)
        for stage, found in part.items()
        for row in found
        if row.probe.outside or row.probe.prompt.id in shown
    ]


def content(family: Family, findings: Findings) -> dict[str, Any]:
    """`report.json`: every figure as `{"name", "value", "low", "high", "count", "unit", "section"}`."""

    def plain(stages: dict[str, list[Figure]]) -> dict[str, list[dict[str, Any]]]:
        return {stage: [asdict(figure) for figure in found] for stage, found in stages.items()}

    return {
        "family": family.name,
        "prompts": findings.prompts,
        "bars": outcomes(findings.measured),
        "stages": plain(findings.stages),
        "sampled": plain(findings.sampled_stages),
        "outside": plain(findings.outside_stages),
        "reward": [asdict(figure) for figure in findings.reward],
        "calibration": findings.bins,
        "curve": findings.curve,
        "text": [asdict(figure) for figure in findings.text],
        "agreement": [asdict(figure) for figure in findings.agreement],
        "notes": findings.notes,
    }


def markdown_of(family: Family, findings: Findings, drawn: list[str]) -> str:
    sampled, outside = findings.sampled_stages, findings.outside_stages
    opening = [
        f"Greedy answers of at most {Decoding().max_new_tokens} tokens to {findings.prompts} prompts that stand in no",
        "SFT, ranking or RLHF data, judged by rules and by the simulated annotator. Brackets hold the 95 % interval",
        "and the number of answers, pairs or documents. `report-answers.jsonl` has answers with their verdicts.",
    ]
    bars = outcomes(findings.measured)
    met = sum(bar["met"] is True for bar in bars)
    return markdown.page(
        [
            (f"# Report card of the family {family.name}", opening),
            (f"## Bars: {met} of {len(bars)} met", markdown.bars_table(bars, findings.measured)),
            ("## Every stage", [*markdown.stage_table(findings.stages), "", correctness.METHOD, "", against.METHOD]),
            ("", markdown.pictures(name for name in drawn if name == "report-behaviour.svg")),
            *([agreement_part(findings)] if findings.agreement else []),
            *([(sampled_heading(), markdown.stage_table(sampled))] if sampled else []),
            *([("## Outside the corpus", markdown.stage_table(outside))] if outside else []),
            *([reward_part(findings, drawn)] if findings.reward else []),
            *([curve_part(findings)] if findings.curve else []),
            ("## Base: held-out text", [*markdown.text_table(findings.text), "", HELD_OUT]),
            *([("## Notes", [f"- {note}" for note in findings.notes])] if findings.notes else []),
        ]
    )


def sampled_heading() -> str:
    return f"## {SAMPLES} samples a prompt at temperature {TEMPERATURE}"


def agreement_part(findings: Findings) -> tuple[str, list[str]]:
    return "## Is the rule for correct answers right?", markdown.figure_list(findings.agreement)


def reward_part(findings: Findings, drawn: list[str]) -> tuple[str, list[str]]:
    lines = markdown.figure_list(findings.reward)
    if findings.bins:
        lines += ["", *markdown.calibration_table(findings.bins, calibration_error(findings.bins))]
        lines += ["", *markdown.pictures(name for name in drawn if name == "report-calibration.svg")]
    return "## Reward model", lines


def curve_part(findings: Findings) -> tuple[str, list[str]]:
    return "## RLHF over its steps", [
        *markdown.curve_table(findings.curve),
        "",
        "![RLHF over its steps](report-curve.svg)",
    ]
