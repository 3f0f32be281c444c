"""One real run of the nano recipe through every stage, and what it must leave behind."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from pipeline.__main__ import main
from pipeline.checkpoint import STAGES, Family, sha256
from pipeline.corpus.cards import load_corpus
from pipeline.recipe import load_recipe
from pipeline.training import FIXED_PROMPTS
from tests.curves import FILE, curves

TRAINED = [stage for stage in STAGES if stage not in ("tokenizer", "ranking")]
PARENTS = {"sft": "base", "ranking": "sft", "reward": "sft", "rlhf": "sft", "dpo": "sft"}
# Four minutes on two cores. Processor time, because other work on the machine must not fail the test.
PROCESSOR_SECONDS = 2 * 4 * 60


def test_every_stage_is_finished_in_time(nano_family: Path) -> None:
    family = Family(nano_family)
    assert family.stages == list(STAGES)
    assert float(nano_family.with_name("processor-seconds").read_text()) < PROCESSOR_SECONDS
    assert [entry.name for entry in (nano_family / ".work").iterdir() if entry.name in STAGES] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_record_says_what_a_checkpoint_came_from(nano_family: Path, stage: str) -> None:
    recipe = load_recipe("nano")
    record = Family(nano_family).checkpoint(stage).record
    assert record["stage"] == stage
    assert record["recipe"] == {"name": "nano", "sha256": recipe.digest(stage)}
    assert record["corpus"] == {"sha256": load_corpus(recipe.corpus).sha256}
    assert record["steps"] > 0
    assert record["seconds"] > 0
    assert record["figures"]
    assert record["hardware"]
    assert {"torch", "transformers", "trl", "python"} <= set(record["versions"])
    in_folder = {
        str(file.relative_to(nano_family / stage)) for file in (nano_family / stage).rglob("*") if file.is_file()
    }
    assert in_folder == set(record["files"]) | {"stage.json"}
    for name, digest in record["files"].items():
        assert sha256(nano_family / stage / name) == digest


@pytest.mark.parametrize("stage", TRAINED)
def test_a_trained_stage_is_whole(nano_family: Path, stage: str) -> None:
    checkpoint = Family(nano_family).checkpoint(stage)
    assert {"model.safetensors", "tokenizer.json", "metrics.jsonl", "samples.jsonl", "README.md"} <= set(
        checkpoint.record["files"]
    )
    assert checkpoint.lines("metrics.jsonl")
    card = (nano_family / stage / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "nano" in card


@pytest.mark.parametrize("stage", ["base", "sft", "rlhf", "dpo"])
def test_the_fixed_prompts_were_answered_before_training_and_after(nano_family: Path, stage: str) -> None:
    checkpoint = Family(nano_family).checkpoint(stage)
    samples = checkpoint.lines("samples.jsonl")
    steps = sorted({sample["step"] for sample in samples})
    assert steps[0] == 0
    assert steps[-1] == checkpoint.record["steps"]
    for step in steps:
        assert [sample["prompt"] for sample in samples if sample["step"] == step] == list(FIXED_PROMPTS)


@pytest.mark.parametrize("stage", PARENTS)
def test_the_parent_is_named_with_its_weights(nano_family: Path, stage: str) -> None:
    family = Family(nano_family)
    parent = family.checkpoint(stage).record["parent"]
    files = family.checkpoint(PARENTS[stage]).record["files"]
    assert parent == {"stage": PARENTS[stage], "weights": files.get("model.safetensors")}


@pytest.mark.parametrize(("stage", "tolerance"), [("base", 0.03), ("sft", 0.05), ("reward", 0.1)])
def test_the_curves_are_those_that_were_committed(nano_family: Path, stage: str, tolerance: float) -> None:
    expected = json.loads(FILE.read_text(encoding="utf-8"))[stage]
    assert curves(Family(nano_family))[stage] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("stage", ["rlhf", "dpo"])
def test_what_learns_from_samples_comes_out_as_it_did(nano_family: Path, stage: str) -> None:
    expected = json.loads(FILE.read_text(encoding="utf-8"))[stage]
    assert fmean(curves(Family(nano_family))[stage]) == pytest.approx(fmean(expected), abs=0.3)


def test_base_learned_to_predict(nano_family: Path) -> None:
    losses = [line["loss"] for line in Family(nano_family).checkpoint("base").lines("metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_running_again_changes_nothing(nano_family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {stage: (nano_family / stage / "stage.json").stat().st_mtime_ns for stage in STAGES}
    assert main(["run", "--recipe", "nano", "--out", str(nano_family)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{stage}: finished already" for stage in STAGES]
    assert {stage: (nano_family / stage / "stage.json").stat().st_mtime_ns for stage in STAGES} == before


def test_compare_and_score_agree(nano_family: Path, tmp_path: Path) -> None:
    prompts, compared = tmp_path / "prompts.jsonl", tmp_path / "compared.jsonl"
    answers, scored = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    prompts.write_text(
        "".join(json.dumps({"id": str(n), "prompt": text}) + "\n" for n, text in enumerate(FIXED_PROMPTS))
    )
    family = ["--family", str(nano_family)]
    assert main(["compare", *family, "--prompts", str(prompts), "--out", str(compared), "--temperature", "0"]) == 0
    records = [json.loads(line) for line in compared.read_text(encoding="utf-8").splitlines()]
    assert [record["prompt"] for record in records] == list(FIXED_PROMPTS)
    assert {stage for record in records for stage in record["answers"]} == {"base", "sft", "rlhf", "dpo"}

    # Compare knows which answers were cut, and has them scored as such; `score` takes all for finished.
    answered = [(record["prompt"], answer) for record in records for answer in record["answers"].values()]
    pairs = [(prompt, answer) for prompt, answer in answered if answer["stopped"]]
    assert pairs
    answers.write_text(
        "".join(json.dumps({"prompt": prompt, "response": answer["text"]}) + "\n" for prompt, answer in pairs)
    )
    assert main(["score", *family, "--in", str(answers), "--out", str(scored)]) == 0
    rewards = [json.loads(line)["reward"] for line in scored.read_text(encoding="utf-8").splitlines()]
    assert rewards == pytest.approx([answer["reward"] for _, answer in pairs], abs=1e-4)
    assert len(set(rewards)) > 1


def test_the_report_measures_every_stage_on_held_out_prompts(
    nano_family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--family", str(nano_family), "--prompts", "1"]) == 0
    text = capsys.readouterr().out
    assert (nano_family / "report.md").read_text(encoding="utf-8").strip() == text.strip()
    for heading in ("## Bars", "## Every stage", "## Reward model", "## RLHF over its steps", "## Base: held-out text"):
        assert heading in text
    for picture in ("report-behaviour.svg", "report-curve.svg", "report-calibration.svg"):
        assert f"]({picture})" in text
        assert (nano_family / picture).stat().st_size < 60_000
    report = json.loads((nano_family / "report.json").read_text(encoding="utf-8"))
    assert list(report["stages"]) == ["base", "sft", "rlhf", "dpo"]
    by_name = {stage: {figure["name"]: figure for figure in figures} for stage, figures in report["stages"].items()}
    for figures in by_name.values():
        assert figures["stops by itself"]["count"] == report["prompts"]
    assert by_name["rlhf"]["KL from SFT"]["value"] > 0
    assert "win rate against SFT" in by_name["dpo"]
    everything = [*report["reward"], *report["text"], *report["agreement"]]
    everything += [figure for part in ("stages", "sampled") for found in report[part].values() for figure in found]
    for figure in everything:
        assert figure["low"] <= figure["value"] <= figure["high"], figure
        assert figure["count"] > 0
    assert {bar["met"] for bar in report["bars"]} <= {True, False, None}
