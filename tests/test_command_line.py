"""Bad input at the command line: one clear line, exit code 2, nothing half-written."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.checkpoint import Family
from pipeline.corpus.cards import load_corpus
from pipeline.recipe import RECIPES, REPOSITORY, load_recipe
from pipeline.run import begin, sole_run
from tests.families import random_family


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_family(tmp_path_factory.mktemp("families") / "random").path


@pytest.fixture
def family(random_weights: Path, tmp_path: Path) -> Path:
    """A family that a test may damage."""
    return Path(shutil.copytree(random_weights, tmp_path / "family"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return lines(tmp_path / "prompts.jsonl", {"id": "1", "prompt": "What is the capital of France?"})


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def nano_with(folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """The path of the nano recipe, changed."""
    content = yaml.safe_load((RECIPES / "nano.yaml").read_text(encoding="utf-8"))
    change(content)
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a refused command says."""
    assert main([str(argument) for argument in arguments]) == 2
    # A progress bar may stand before it.
    *before, message = capsys.readouterr().err.splitlines()
    assert message.startswith("stagewise: error: ")
    assert not [line for line in before if "error" in line.lower() or "Traceback" in line]
    return message


def compare(family: Path, prompts: Path, out: Path) -> list[str | Path]:
    return ["compare", "--family", family, "--prompts", prompts, "--out", out, "--max-new-tokens", "4"]


def test_compare_answers_with_every_stage(family: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert main([str(argument) for argument in compare(family, prompts, out)]) == 0
    (record,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert record["prompt"] == "What is the capital of France?"
    assert set(record["answers"]) == {"base", "sft", "rlhf"}
    for answer in record["answers"].values():
        assert set(answer) == {"text", "tokens", "stopped", "reward"}
        assert 0 <= answer["tokens"] <= 4


def test_missing_family(capsys: pytest.CaptureFixture[str], prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert "no family at" in complaint(capsys, *compare(tmp_path / "nowhere", prompts, out))
    assert not (tmp_path / "nowhere").exists()
    assert not out.exists()


def truncate(weights: Path) -> None:
    os.truncate(weights, weights.stat().st_size // 2)


def alter(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def pickled(weights: Path) -> None:
    weights.write_bytes(pickle.dumps({"weights": [1.0]}))


def pickle_beside(weights: Path) -> None:
    weights.with_name("pytorch_model.bin").write_bytes(pickle.dumps({"weights": [1.0]}))


@pytest.mark.parametrize("stage", ["base", "sft", "reward", "rlhf"])
@pytest.mark.parametrize("damage", [truncate, alter, pickled, pickle_beside, Path.unlink])
def test_damaged_weights(
    damage: Callable[[Path], None],
    stage: str,
    capsys: pytest.CaptureFixture[str],
    family: Path,
    prompts: Path,
    tmp_path: Path,
) -> None:
    damage(family / stage / "model.safetensors")
    out = tmp_path / "out.jsonl"
    assert str(family / stage) in complaint(capsys, *compare(family, prompts, out))
    assert not out.exists()


@pytest.mark.parametrize("prompt", ["", " \n", "why " * 25_000], ids=["empty", "blank", "100,000 characters"])
def test_prompts_that_no_model_can_take(
    prompt: str, capsys: pytest.CaptureFixture[str], family: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    prompts = lines(tmp_path / "prompts.jsonl", {"id": "1", "prompt": "Hello"}, {"id": "2", "prompt": prompt})
    message = complaint(capsys, *compare(family, prompts, out))
    assert len(message) < 500
    assert not out.exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"id": "1"}', '{"id": "1", "prompt": 5}'])
def test_a_malformed_prompts_file(
    content: str, capsys: pytest.CaptureFixture[str], family: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(content + "\n", encoding="utf-8")
    assert "prompts.jsonl" in complaint(capsys, *compare(family, prompts, tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_score_of_a_malformed_file(capsys: pytest.CaptureFixture[str], family: Path, tmp_path: Path) -> None:
    answers = lines(tmp_path / "answers.jsonl", {"prompt": "Hello"})
    message = complaint(capsys, "score", "--family", family, "--in", answers, "--out", tmp_path / "out.jsonl")
    assert "answers.jsonl" in message
    assert not (tmp_path / "out.jsonl").exists()


def test_unknown_recipe_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = nano_with(tmp_path, lambda content: content["base"].update(tokns=5))
    assert "unknown key 'base.tokns'" in complaint(capsys, "run", "--recipe", recipe, "--out", tmp_path / "family")
    assert not (tmp_path / "family").exists()


def test_ill_typed_recipe_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = nano_with(tmp_path, lambda content: content["base"].update(tokens="many"))
    assert "key 'base.tokens'" in complaint(capsys, "run", "--recipe", recipe, "--out", tmp_path / "family")
    assert not (tmp_path / "family").exists()


def test_missing_source_says_how_to_go_on_without_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = {"name": "books", "kind": "prose", "licence": "CC0", "share": 0.5, "path": "nowhere/books.parquet"}
    recipe = nano_with(tmp_path, lambda content: content["corpus"].update(sources=[source]))
    tokenizer = ["tokenizer", "--recipe", recipe, "--out", str(tmp_path / "family")]
    message = complaint(capsys, *tokenizer)
    assert "books" in message
    assert "--authored-only" in message
    assert not Family(tmp_path / "family").has("tokenizer")
    assert main([*tokenizer, "--authored-only"]) == 0
    assert Family(tmp_path / "family").has("tokenizer")


def test_a_finished_stage_of_another_recipe_is_not_taken_over(capsys: pytest.CaptureFixture[str], family: Path) -> None:
    before = (family / "base" / "stage.json").read_bytes()
    message = complaint(capsys, "run", "--recipe", "tiny", "--authored-only", "--out", family)
    assert "trained with another recipe" in message
    assert (family / "base" / "stage.json").read_bytes() == before


def test_an_unfinished_stage_of_another_recipe_is_not_gone_on_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    family = Family(tmp_path / "family")
    recipe = load_recipe("nano")
    corpus = load_corpus(recipe.corpus).sha256
    save = family.work("tokenizer") / "save"
    begin("tokenizer", recipe, corpus, family)
    save.write_text("half of it", encoding="utf-8")
    another = nano_with(tmp_path, lambda content: content.update(seed=2))
    message = complaint(capsys, "run", "--recipe", another, "--out", family.path)
    assert "unfinished tokenizer stage of another recipe" in message
    assert save.read_text(encoding="utf-8") == "half of it"
    begin("tokenizer", recipe, corpus, family)


def test_a_second_run_of_a_family_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with sole_run(Family(tmp_path)):
        message = complaint(capsys, "tokenizer", "--recipe", "nano", "--out", tmp_path)
    assert "another run is training" in message


def test_a_malformed_card_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(REPOSITORY / "assets" / "corpus", tmp_path / "corpus"))
    cards = corpus / "cards" / "honesty.jsonl"
    first, second, *rest = cards.read_text(encoding="utf-8").splitlines()
    broken = json.loads(second)
    broken["qa"][0]["kind"] = "gossip"
    cards.write_text("\n".join([first, json.dumps(broken), *rest]) + "\n", encoding="utf-8")
    recipe = nano_with(tmp_path, lambda content: content["corpus"].update(cards=str(corpus)))
    message = complaint(capsys, "corpus", "check", "--recipe", recipe)
    assert "honesty.jsonl, line 2: key 'qa.0.kind'" in message


@pytest.mark.parametrize("step", ["tokenizer", "compare"])
def test_a_full_disk(step: str, family: Path, prompts: Path, tmp_path: Path) -> None:
    # A limit on file sizes stands in for it: it needs no rights, and fails the same writes.
    commands: dict[str, list[str | Path]] = {
        "tokenizer": ["tokenizer", "--recipe", "nano", "--out", tmp_path / "full"],
        "compare": compare(family, prompts, tmp_path / "out.jsonl"),
    }
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, commands[step])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines()[-1].startswith("stagewise: error: disk full")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "full" / "tokenizer").exists()
    assert not (tmp_path / "out.jsonl").exists()
    assert not list(tmp_path.rglob("*.writing"))


def test_chat_answers_until_the_end_of_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, family: Path
) -> None:
    typed = iter(["Hello", "", "why " * 25_000])

    def input_line(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", input_line)
    assert main(["chat", "--family", str(family), "--stage", "sft", "--max-new-tokens", "4"]) == 0
    said = capsys.readouterr().out.splitlines()
    # A greeting, an answer of any text, and two refusals.
    assert "prompt" in said[-3]
    assert "prompt" in said[-2]


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_impossible_options(value: str, family: Path, prompts: Path, tmp_path: Path) -> None:
    arguments = compare(family, prompts, tmp_path / "out.jsonl")[:-1]
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments), value])
    assert caught.value.code == 2
