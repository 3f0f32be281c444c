"""The RLHF stage earns more reward than SFT, stays measurable, stops when it should, and can be resumed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import training
from pipeline.chat_format import encode_prompt, stop_tokens
from pipeline.checkpoint import Checkpoint, Family
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.ranking_prompts import held_out_texts
from pipeline.corpus.splits import same_text
from pipeline.errors import InputError
from pipeline.inference.decoding import Completion
from pipeline.inference.divergence import divergence_from_start
from pipeline.recipe import Recipe, load_recipe
from pipeline.stages import rlhf
from pipeline.training import FIXED_PROMPTS
from tests.families import random_family, write
from tests.rankings import Interrupted, StopAt, small


class LikesLetters:
    """A reward that a random model can learn in seconds: the share of small letters among the characters."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def scores(self, exchanges: list[tuple[str, str]]) -> list[float]:
        return [letters(answer) for _, answer in exchanges]


def letters(text: str) -> float:
    return 10 * sum("a" <= character <= "z" for character in text) / max(1, len(text))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return small(
        load_recipe("nano"),
        "rlhf",
        steps=12,
        group_size=8,
        max_new_tokens=12,
        learning_rate=0.01,
        kl_coefficient=0.01,
        evaluate_every=4,
        evaluation_prompts=16,
        snapshots=2,
    )


def teachable_family(path: Path, recipe: Recipe) -> Family:
    """A random family whose SFT model can be sure of a token: small random embeddings allow no large logit."""
    family = random_family(path, ("base", "sft", "reward"))
    model: Any = AutoModelForCausalLM.from_pretrained(path / "sft", dtype=torch.float32)
    model.get_input_embeddings().weight.data *= 8
    write(path, "sft", recipe, model, AutoTokenizer.from_pretrained(path / "sft"), {})
    return family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Family:
    return teachable_family(tmp_path_factory.mktemp("rlhf") / "family", recipe)


@pytest.fixture(scope="module", autouse=True)
def likes_letters(family: Family) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(family.path / "reward")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rlhf, "load_reward", lambda checkpoint: LikesLetters(tokenizer))
        yield


@pytest.fixture(scope="module")
def trained(family: Family, recipe: Recipe) -> Checkpoint:
    return rlhf.run(recipe, family)


def steps(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return [record for record in checkpoint.lines("metrics.jsonl") if rlhf.WIN_RATE not in record]


def checks(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return [record for record in checkpoint.lines("metrics.jsonl") if rlhf.WIN_RATE in record]


def test_the_policy_starts_at_sft_and_earns_more(trained: Checkpoint) -> None:
    first, *_, last = checks(trained)
    assert first["held_out_kl"] == 0
    assert first[rlhf.WIN_RATE] == 0.5
    assert last["held_out_reward"] > first["held_out_reward"] + 3
    assert last["held_out_kl"] > 1
    assert trained.figures["held_out_reward"] == last["held_out_reward"]
    assert trained.figures["sft_held_out_reward"] == first["held_out_reward"]
    assert trained.figures["stopped_by"] == "step budget"


def test_every_step_is_measured(trained: Checkpoint) -> None:
    records = steps(trained)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert abs(records[0]["kl"]) < 0.01
    assert records[-1]["kl"] > 1
    assert records[-1]["reward"] > records[0]["reward"] + 3
    for record in records:
        assert 0 < record["length"] <= 12
        assert 0 <= record["unfinished"] <= 1
        assert record["entropy"] > 0
        assert record["sampling_seconds"] > 0
        assert record["update_seconds"] > 0


def test_completions_are_kept_with_their_rewards(trained: Checkpoint, recipe: Recipe) -> None:
    corpus = load_corpus(recipe.corpus)
    records = trained.lines("completions.jsonl")
    assert [record["step"] for record in records] == list(range(1, 13))
    held_out = held_out_texts(corpus, recipe)
    for record in records:
        assert same_text(record["prompt"]) not in held_out
        assert len(record["completions"]) == 8
        for completion in record["completions"]:
            assert completion["reward"] == letters(completion["text"])
    assert {sample["prompt"] for sample in trained.lines("samples.jsonl")} == set(FIXED_PROMPTS)


def test_the_last_snapshot_on_sft_is_the_final_model(trained: Checkpoint, family: Family) -> None:
    folders = sorted((trained.path / "snapshots").iterdir())
    assert [folder.name for folder in folders] == ["step-0006", "step-0012"]
    final = load_file(trained.path / "model.safetensors")
    sft = load_file(family.path / "sft" / "model.safetensors")
    early, last = (rlhf.merged(family.checkpoint("sft"), folder).to(torch.bfloat16).state_dict() for folder in folders)
    assert all(torch.equal(weight, last[name]) for name, weight in final.items())
    assert not all(torch.equal(weight, early[name]) for name, weight in final.items())
    assert not all(torch.equal(weight, sft[name].to(torch.bfloat16)) for name, weight in final.items())
    assert (folders[0] / "../../../sft").resolve() == (family.path / "sft").resolve()
    assert '"../../../sft"' in (folders[0] / "adapter_config.json").read_text()


def test_an_interrupted_run_reaches_the_same_result(
    trained: Checkpoint, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = teachable_family(tmp_path / "family", recipe)
    monkeypatch.setattr(rlhf, "StopOnNaN", lambda: StopAt(6))
    with pytest.raises(Interrupted):
        rlhf.run(recipe, family)
    rest = StopAt()
    monkeypatch.setattr(rlhf, "StopOnNaN", lambda: rest)
    resumed = rlhf.run(recipe, family)
    assert rest.first == 5
    unbroken = trained.lines("metrics.jsonl")
    for record, expected in zip(resumed.lines("metrics.jsonl"), unbroken, strict=True):
        assert without_seconds(record) == pytest.approx(without_seconds(expected), abs=1e-3)
    assert resumed.lines("completions.jsonl") == trained.lines("completions.jsonl")
    assert resumed.lines("samples.jsonl") == trained.lines("samples.jsonl")


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.endswith("seconds")}


def test_rloo_stops_at_the_target_reward_and_does_not_train_on_after_a_crash(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = teachable_family(tmp_path / "family", recipe)
    recipe = small(recipe, "rlhf", algorithm="rloo", target_reward=0.0, evaluate_every=2)

    def crash(*_: Any, **__: Any) -> None:
        raise Interrupted

    monkeypatch.setattr(rlhf, "finish", crash)
    with pytest.raises(Interrupted):
        rlhf.run(recipe, family)
    rest = StopAt()
    monkeypatch.setattr(rlhf, "finish", training.finish)
    monkeypatch.setattr(rlhf, "StopOnNaN", lambda: rest)
    checkpoint = rlhf.run(recipe, family)
    assert rest.first is None
    assert checkpoint.figures["stopped_by"] == "target reward"
    assert checkpoint.record["steps"] == 2
    assert [record["step"] for record in steps(checkpoint)] == [1, 2]
    assert "kl" in steps(checkpoint)[0]
    assert [folder.name for folder in (checkpoint.path / "snapshots").iterdir()] == ["step-0002"]
    assert not (family.path / ".work" / "rlhf").exists()


def history(*checks: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Evaluations every 10 steps from (win rate, KL, reward)."""
    return [
        {"step": 10 * number, rlhf.WIN_RATE: win_rate, "held_out_kl": kl, "held_out_reward": reward}
        for number, (win_rate, kl, reward) in enumerate(checks)
    ]


@pytest.mark.parametrize(
    ("checks", "reason", "step"),
    [
        ([(0.5, 0, 0)], None, None),
        ([(0.5, 0, 0), (0.7, 3, 1)], None, None),
        ([(0.5, 0, 0), (0.7, 3, 1), (0.6, 4, 2), (0.65, 5, 1)], "step budget", 30),
        ([(0.5, 0, 0), (0.7, 3, 2.5)], "target reward", 10),
        ([(0.5, 0, 0), (0.7, 3, 1), (0.45, 4, 2.5)], "win rate fell", 10),
        ([(0.5, 0, 0), (0.6, 3, 1), (0.7, 11, 1)], "KL budget", 10),
        ([(0.5, 0, 0), (0.7, 11, 1)], "KL budget", 10),
        ([(0.5, 0, 0), (0.25, 1, 1)], "win rate fell", 10),
    ],
)
def test_when_it_stops_and_what_it_takes(
    recipe: Recipe, checks: list[tuple[float, float, float]], reason: str | None, step: int | None
) -> None:
    settings = small(recipe, "rlhf", steps=30, kl_budget=10.0, win_rate_drop=0.2, target_reward=2.0).rlhf
    assert rlhf.stop_reason(history(*checks), settings) == reason
    if reason is not None:
        assert rlhf.taken_step(history(*checks), reason, settings) == step


def test_snapshots_are_evenly_spaced(recipe: Recipe) -> None:
    assert rlhf.snapshot_steps(small(recipe, "rlhf", steps=200, snapshots=8).rlhf) == list(range(25, 201, 25))
    assert rlhf.snapshot_steps(small(recipe, "rlhf", steps=10, snapshots=3).rlhf) == [3, 7, 10]
    assert rlhf.snapshot_steps(small(recipe, "rlhf", steps=2, snapshots=5).rlhf) == [1, 2]


def test_an_answer_cut_at_the_limit_is_penalised(family: Family, recipe: Recipe, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family.path / "sft")
    end, document_end = stop_tokens(tokenizer)
    reward: Any = LikesLetters(tokenizer)
    scoring = rlhf.Scoring(tmp_path, reward, small(recipe, "rlhf", unfinished_penalty=1.5).rlhf)
    assert scoring.unfinished([[7, 8, end], [7, 8, 9], [document_end]]) == [0.0, -1.5, 0.0]


def test_what_the_annotator_cannot_tell_apart_is_half_a_win() -> None:
    assert rlhf.win_rate([0.9, 0.5, 0.51, 0.1], [0.2, 0.5, 0.5, 0.6]) == 0.5


def test_the_divergence_is_that_of_the_adapter_at_every_token_of_an_answer(family: Family) -> None:
    sft = AutoModelForCausalLM.from_pretrained(family.path / "sft", dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    policy = get_peft_model(copy.deepcopy(sft), lora)
    prompts, end = [[1, 20, 3, 2], [1, 30, 2]], 3
    completions = [Completion([40, 41], stopped=True), Completion([50], stopped=False)]

    def expected(prompt: list[int], written: list[int]) -> float:
        with torch.no_grad():
            tokens = torch.tensor([prompt + written])
            moved, start = ((model(tokens).logits[0] / 0.5).log_softmax(-1) for model in (policy, sft))
        steps = slice(len(prompt) - 1, len(prompt) + len(written) - 1)
        return torch.nn.functional.kl_div(start[steps], moved[steps], reduction="sum", log_target=True).item()

    found = divergence_from_start(policy, prompts, completions, end, temperature=0.5)
    assert found > 0.01
    both = [expected(prompts[0], [40, 41, end]), expected(prompts[1], [50])]
    assert found == pytest.approx(sum(both) / 2, rel=1e-4)


def test_prompts_that_leave_no_room_are_left_out(family: Family, recipe: Recipe) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family.path / "sft")
    corpus = load_corpus(recipe.corpus)
    crowded = small(recipe, "rlhf", max_new_tokens=225)
    dataset = rlhf.training_prompts(corpus, crowded, tokenizer)
    assert len(dataset) == crowded.rlhf.steps * crowded.rlhf.prompts_per_step
    assert all(len(encode_prompt(tokenizer, row["prompt"][0]["content"])) <= 31 for row in dataset)
    with pytest.raises(InputError, match=r"rlhf\.max_new_tokens"):
        rlhf.training_prompts(corpus, small(recipe, "rlhf", max_new_tokens=256), tokenizer)


def test_evaluation_prompts_are_held_out(family: Family, recipe: Recipe) -> None:
    corpus = load_corpus(recipe.corpus)
    tokenizer = AutoTokenizer.from_pretrained(family.path / "sft")
    prompts = rlhf.evaluation_prompts(corpus, recipe, tokenizer)
    assert len(prompts) == recipe.rlhf.evaluation_prompts
    assert {same_text(prompt.prompt) for prompt in prompts} <= held_out_texts(corpus, recipe)
    assert len({prompt.kind for prompt in prompts}) > 4
