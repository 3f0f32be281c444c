"""The SFT stage trains on the assistant's tokens alone, and goes on where it was stopped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trl import SFTTrainer

from pipeline.batching import in_similar_batches
from pipeline.chat_format import ASSISTANT, END, USER, encode_answer, encode_prompt, encode_text
from pipeline.checkpoint import WEIGHTS, Checkpoint, Family
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.conversations import Demonstration
from pipeline.corpus.splits import same_text
from pipeline.recipe import LoraSettings, Recipe, load_recipe
from pipeline.stages import sft
from pipeline.training import FIXED_PROMPTS
from tests.families import random_family
from tests.rankings import Interrupted, StopAt, rehash, small

every_demonstration = sft.training_demonstrations
held_out_demonstrations = sft.held_out_demonstrations


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return small(load_recipe("nano"), "sft", epochs=2, batch_size=8, save_every=6, sample_every=8, learning_rate=0.003)


@pytest.fixture(scope="module")
def real(recipe: Recipe) -> tuple[list[Demonstration], list[Demonstration]]:
    """What the nano recipe trains on, and what it measures the held-out loss on."""
    corpus = load_corpus(recipe.corpus)
    return every_demonstration(corpus, recipe), held_out_demonstrations(corpus, recipe)


@pytest.fixture(autouse=True)
def _few_demonstrations(monkeypatch: pytest.MonkeyPatch, real: tuple[list[Demonstration], list[Demonstration]]) -> None:
    """Real demonstrations, no more than a test can train on: fourteen full batches and one of four."""
    shown, measured = real
    monkeypatch.setattr(sft, "training_demonstrations", lambda corpus, recipe: shown[:116])
    monkeypatch.setattr(sft, "held_out_demonstrations", lambda corpus, recipe: measured[:16])


def trained(recipe: Recipe, path: Path) -> Checkpoint:
    return sft.run(recipe, random_family(path, ("base",)))


def test_muon_trains_the_hidden_matrices_at_a_rate_of_its_own(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []

    class Recording(SFTTrainer):
        def train(self, *arguments: Any, **named: Any) -> Any:
            used.append(self.optimizer)
            return super().train(*arguments, **named)

    monkeypatch.setattr(sft, "SFTTrainer", Recording)
    rate = 20 * recipe.sft.learning_rate
    checkpoint = trained(small(recipe, "sft", muon_learning_rate=rate), tmp_path / "family")
    [muon, adamw] = used[0].parts
    assert sum(len(group["params"]) for group in muon.param_groups) == 2 * 7
    assert [group["initial_lr"] for group in (*muon.param_groups, *adamw.param_groups)] == [
        rate,
        recipe.sft.learning_rate,
    ]
    assert checkpoint.record["steps"] == 15


def test_only_the_answer_and_its_end_token_are_trained(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    batches: list[dict[str, torch.Tensor]] = []

    class Recording(SFTTrainer):
        def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *more: Any, **named: Any) -> Any:
            if model.training:
                batches.append(dict(inputs))
            return super().compute_loss(model, inputs, *more, **named)

    exchanges = {"Why?": "Because.", "Where is it?": "Here, I think.\nOr there."}
    shown = [Demonstration(prompt, answer, "fact", "good") for prompt, answer in exchanges.items()]
    monkeypatch.setattr(sft, "SFTTrainer", Recording)
    monkeypatch.setattr(sft, "training_demonstrations", lambda corpus, recipe: shown)
    trained(recipe, tmp_path / "family")

    (batch,) = batches
    expected = {
        (*encode_prompt(tiny_tokenizer, prompt),): (*encode_answer(tiny_tokenizer, answer),)
        for prompt, answer in exchanges.items()
    }
    found = {}
    for tokens, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        counted = labels != -100
        assert torch.equal(tokens[counted], labels[counted])
        found[(*tokens[mask.bool() & ~counted].tolist(),)] = (*labels[counted].tolist(),)
        # Prompt, answer, padding: one run of trained tokens.
        assert mask.sum() == counted.nonzero().max() + 1
    assert found == expected


def test_the_chat_formats_tokens_begin_as_what_base_has_read_in_their_places(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    base = random_family(tmp_path / "family", ("base",)).checkpoint("base")
    model: Any = AutoModelForCausalLM.from_pretrained(base.path)
    before = model.get_input_embeddings().weight
    begun = sft.beginning(base, tiny_tokenizer).get_input_embeddings().weight
    changed = (before != begun).any(1).nonzero()[:, 0].tolist()
    assert sorted(changed) == sorted(tiny_tokenizer.convert_tokens_to_ids([USER, ASSISTANT, END]))
    for control, text in ((USER, "Q"), (END, "\n"), (ASSISTANT, ":")):
        [alike] = encode_text(tiny_tokenizer, text)
        assert torch.equal(begun[tiny_tokenizer.convert_tokens_to_ids(control)], before[alike])


def test_it_learns_and_writes_a_plain_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = trained(recipe, tmp_path / "family")
    losses = [record["loss"] for record in checkpoint.lines("metrics.jsonl") if "loss" in record]
    assert losses[-1] < losses[0] - 0.5
    assert checkpoint.figures["held_out_loss"] < losses[0] - 0.5
    assert checkpoint.figures["demonstrations"] == 116
    assert checkpoint.record["steps"] == 15
    assert checkpoint.record["parent"]["stage"] == "base"
    samples = checkpoint.lines("samples.jsonl")
    assert [record["prompt"] for record in samples] == list(FIXED_PROMPTS) * 3
    assert [record["step"] for record in samples[:: len(FIXED_PROMPTS)]] == [0, 8, 15]


def test_the_lowest_weights_end_between_those_it_began_from_and_those_it_learned(
    recipe: Recipe, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    checkpoint = trained(small(recipe, "sft", base_share=0.25), tmp_path / "averaged")
    learned = trained(recipe, tmp_path / "learned")
    began = sft.beginning(Family(tmp_path / "averaged").checkpoint("base"), tiny_tokenizer).state_dict()
    averaged, whole = load_file(checkpoint.path / WEIGHTS), load_file(learned.path / WEIGHTS)
    lowest = {name for name in averaged if "embed_tokens" in name or "layers.0." in name}
    assert 0 < len(lowest) < len(averaged)
    for name, weights in averaged.items():
        share = 0.25 if name in lowest else 0
        expected = (1 - share) * whole[name].float() + share * began[name]
        torch.testing.assert_close(weights.float(), expected, rtol=0.02, atol=1e-3)
    assert checkpoint.figures["held_out_loss"] > learned.figures["held_out_loss"]


def test_an_interrupted_run_reaches_the_same_figures(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(recipe, tmp_path / "unbroken")
    family = random_family(tmp_path / "broken", ("base",))
    monkeypatch.setattr(sft, "StopOnNaN", lambda: StopAt(9))
    with pytest.raises(Interrupted):
        sft.run(recipe, family)
    rest = StopAt()
    monkeypatch.setattr(sft, "StopOnNaN", lambda: rest)
    resumed = sft.run(recipe, family)
    assert rest.first == 7
    assert resumed.figures == pytest.approx(unbroken.figures, abs=1e-3)
    assert resumed.lines("samples.jsonl") == unbroken.lines("samples.jsonl")


def test_a_loss_that_is_not_a_number_ends_the_run_without_a_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    family = random_family(tmp_path / "family", ("base",))
    file = family.path / "base" / WEIGHTS
    weights = load_file(file)
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    rehash(file)
    with pytest.raises(FloatingPointError, match="NaN"):
        sft.run(recipe, family)
    assert not family.has("sft")


def test_lora_is_merged_into_a_plain_checkpoint(recipe: Recipe, tmp_path: Path, tiny_tokenizer: Any) -> None:
    lora = LoraSettings(rank=4, alpha=8)
    family = random_family(tmp_path / "family", ("base",))
    base = sft.beginning(family.checkpoint("base"), tiny_tokenizer).state_dict()
    checkpoint = sft.run(small(recipe, "sft", lora=lora), family)
    weights = load_file(checkpoint.path / WEIGHTS)
    assert weights.keys() == load_file(family.path / "base" / WEIGHTS).keys()
    changes = {name: (weights[name].float() - base[name].float()).abs() for name in weights}
    changed = {name for name in changes if changes[name].max() > 0.01}
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name for name in changed)
    # Of the embeddings, only what base had no use for.
    rows = (changes["model.embed_tokens.weight"].amax(1) > 0.01).nonzero()[:, 0]
    assert rows.tolist() == sorted(tiny_tokenizer.convert_tokens_to_ids([USER, ASSISTANT, END]))
    AutoModelForCausalLM.from_pretrained(checkpoint.path)


def test_too_long_demonstrations_are_dropped_and_counted(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [Demonstration("Why?", answer, "fact", "good") for answer in ("No.", "word " * 400)]
    monkeypatch.setattr(sft, "training_demonstrations", lambda corpus, recipe: shown)
    figures = trained(recipe, tmp_path / "family").figures
    assert (figures["demonstrations"], figures["too_long"]) == (1, 1)


def test_held_out_wordings_are_measured_and_never_shown(real: tuple[list[Demonstration], list[Demonstration]]) -> None:
    shown, measured = real
    assert len(measured) == sft.HELD_OUT
    assert {same_text(entry.prompt) for entry in measured}.isdisjoint(same_text(entry.prompt) for entry in shown)
    assert {entry.answer for entry in measured} & {entry.answer for entry in shown}


def test_every_epoch_is_shown_in_turn(real: tuple[list[Demonstration], list[Demonstration]], recipe: Recipe) -> None:
    shown, _ = real
    corpus = load_corpus(recipe.corpus)
    first, second = (sft.demonstrations(corpus, recipe, epoch) for epoch in (0, 1))
    assert sorted(map(str, shown[: len(first)])) == sorted(map(str, first))
    assert sorted(map(str, shown[len(first) :])) == sorted(map(str, second))
    assert shown[: len(first)] != first


def test_batches_are_of_similar_length_and_lose_nothing() -> None:
    words = ["x" * (number * 37 % 101) for number in range(300)]
    ordered = in_similar_batches(words, len, batch_size=8, seed=1)
    assert sorted(ordered) == sorted(words)
    assert ordered == in_similar_batches(words, len, batch_size=8, seed=1)

    def padded(order: list[str]) -> int:
        return sum(8 * max(map(len, order[start : start + 8])) for start in range(0, 300, 8))

    assert padded(ordered) < 0.7 * padded(words)
    # The order at large stays: the first window holds the first examples.
    assert sorted(ordered[:128]) == sorted(words[:128])
