"""The base stage's parts; a whole run of it is in test_nano.py and test_resume.py."""

import copy
import shutil
import timeit
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pipeline.checkpoint import Family
from pipeline.corpus.cards import load_corpus
from pipeline.errors import InputError
from pipeline.optimizer import Muon, MuonWithAdamW, is_hidden_matrix, orthogonal
from pipeline.precision import matrix_rate, training_precision
from pipeline.recipe import BaseSettings, Recipe, load_recipe
from pipeline.run import finished_periods, run_all
from pipeline.stages import tokenizer as tokenizer_stage
from pipeline.stages.base import IGNORED, Collator, Speed, model_config, packed_blocks
from tests.rankings import small

END_OF_DOCUMENT = 0
TOKENS = torch.tensor([7, 8, END_OF_DOCUMENT, 9, 7, 8, END_OF_DOCUMENT, 5])


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return Collator(END_OF_DOCUMENT)([{"input_ids": TOKENS}, {"input_ids": TOKENS.roll(1)}])


def test_positions_start_anew_with_each_document(batch: dict[str, torch.Tensor]) -> None:
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 3, 0]


def test_no_document_sees_another(batch: dict[str, torch.Tensor]) -> None:
    mask = batch["attention_mask"][0, 0]
    assert mask[3].tolist() == [False, False, False, True, False, False, False, False]
    assert mask[5].tolist() == [False, False, False, True, True, True, False, False]
    assert not mask.triu(1).any()


def test_the_first_token_of_a_document_is_no_label(batch: dict[str, torch.Tensor]) -> None:
    assert batch["labels"][0].tolist() == [7, 8, 0, IGNORED, 7, 8, 0, IGNORED]


def small_model(vocabulary: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    recipe = small(load_recipe("nano"), "model", hidden_size=32, layers=1, intermediate_size=64)
    return LlamaForCausalLM(model_config(recipe, vocabulary))


def test_packed_documents_are_read_as_if_alone(tiny_tokenizer: Any) -> None:
    model = small_model(tiny_tokenizer).eval()
    packed = Collator(END_OF_DOCUMENT)([{"input_ids": TOKENS}])
    packed.pop("labels")
    with torch.no_grad():
        together = model(**packed).logits[0, 3:7]
        alone = model(input_ids=TOKENS[None, 3:7]).logits[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_muon_gets_the_hidden_matrices_alone(tiny_tokenizer: Any) -> None:
    names = [name for name, weight in small_model(tiny_tokenizer).named_parameters() if is_hidden_matrix(name, weight)]
    assert len(names) == 7
    assert all("proj" in name for name in names)


def test_the_optimizer_learns_and_resumes_exactly(tiny_tokenizer: Any) -> None:
    def step(model: LlamaForCausalLM, optimizer: MuonWithAdamW) -> float:
        loss = model(input_ids=TOKENS[None], labels=TOKENS[None]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    model = small_model(tiny_tokenizer)
    optimizer = MuonWithAdamW(model, 0.01, 0.01)
    losses = [step(model, optimizer) for _ in range(5)]
    assert losses[-1] < losses[0]

    resumed = small_model(tiny_tokenizer)
    resumed.load_state_dict(model.state_dict())
    again = MuonWithAdamW(resumed, 0.01, 0.01)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [step(resumed, again) for _ in range(3)] == [step(model, optimizer) for _ in range(3)]


def test_a_schedule_reaches_the_resumed_optimizer(tiny_tokenizer: Any) -> None:
    model = small_model(tiny_tokenizer)
    optimizer = MuonWithAdamW(model, 0.01, 0.002)
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {0.0}


@pytest.fixture(scope="module")
def trained_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Family, Any]:
    from transformers import AutoTokenizer

    recipe = load_recipe("nano")
    recipe = small(recipe, "tokenizer", documents=100)
    family = Family(tmp_path_factory.mktemp("family"))
    return recipe, family, AutoTokenizer.from_pretrained(tokenizer_stage.run(recipe, family).path)


def test_a_larger_budget_reads_the_same_blocks_first(
    trained_tokenizer: tuple[Recipe, Family, Any], tmp_path: Path
) -> None:
    recipe, family, tokenizer = trained_tokenizer
    corpus = load_corpus(recipe.corpus)
    few = packed_blocks(recipe, family, corpus, tokenizer, tmp_path / "few.npy", 10)
    many = packed_blocks(recipe, family, corpus, tokenizer, tmp_path / "many.npy", 30)
    assert few.shape == (10, recipe.context)
    np.testing.assert_array_equal(few, many[:10])


def test_the_tokenizer_writes_any_text_and_keeps_control_tokens_apart(
    trained_tokenizer: tuple[Recipe, Family, Any],
) -> None:
    _, _, tokenizer = trained_tokenizer
    text = "Grüße, 你好! 12 + 30 <|assistant|>"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids("<|assistant|>") not in ids
    assert tokenizer("<|assistant|>", add_special_tokens=False)["input_ids"] == [
        tokenizer.convert_tokens_to_ids("<|assistant|>")
    ]


def test_speed_is_a_share_of_the_matrix_rate(tmp_path: Path) -> None:
    speed = Speed(tmp_path)
    speed.step_seconds = [9.0, 0.5, 0.5]
    speed.matrix_rates = [1e9]
    figures = speed.figures(parameters=1000, tokens_a_step=100)
    assert figures["tokens_per_second"] == 200
    assert figures["share_of_matrix_rate"] == pytest.approx(6 * 1000 * 200 / 1e9, abs=1e-3)
    assert matrix_rate(torch.device("cpu")) > 1e8


def test_an_orthogonal_update_keeps_directions_and_evens_out_their_sizes() -> None:
    matrices = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    sizes = left.mT @ orthogonal(matrices) @ right.mT
    diagonal = sizes.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    assert (sizes - diagonal.diag_embed()).abs().max() < 0.05


def test_a_step_of_muon_is_that_of_the_library() -> None:
    weights = [torch.nn.Parameter(torch.randn(16, 24)) for _ in range(3)]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    library = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    ours = Muon(weights, 0.01)
    for _ in range(3):
        for weight, other in zip(weights, theirs, strict=True):
            weight.grad = torch.randn_like(weight)
            other.grad = weight.grad.clone()
        ours.step()
        library.step()
    for weight, other in zip(weights, theirs, strict=True):
        # The library rounds to bfloat16 on its way.
        torch.testing.assert_close(weight, other, atol=1e-3, rtol=0)


def test_training_is_in_a_precision_that_this_machine_multiplies_fast() -> None:
    matrix = torch.randn(256, 256)

    def fastest(precision: torch.dtype) -> float:
        factor = matrix.to(precision)
        return min(timeit.repeat(lambda: factor @ factor, number=1, repeat=20))

    assert fastest(training_precision()) < 5 * fastest(torch.float32)


def test_the_last_period_can_decay_from_a_lower_rate(
    trained_tokenizer: tuple[Recipe, Family, Any], tmp_path: Path
) -> None:
    recipe, family, _ = trained_tokenizer
    settings = {"batch_size": 4, "save_every": 5, "sample_every": 6, "warmup": 0.1, "last_rate": 0.2}
    recipe = small(recipe, "base", tokens=[20 * 4 * 256, 20 * 4 * 256], **settings)
    recipe = small(recipe, "model", hidden_size=32, layers=1, heads=2, intermediate_size=64)
    cooled = Family(tmp_path / "family")
    shutil.copytree(family.path / "tokenizer", cooled.path / "tokenizer")
    run_all(recipe.until_period(1), cooled, "base")
    assert finished_periods(recipe, cooled) == 1
    run_all(recipe, cooled, "base")
    rates = {line["step"]: line["learning_rate"] for line in cooled.checkpoint("base").lines("metrics.jsonl")}
    assert isinstance(recipe.base, BaseSettings)
    assert rates[10] == recipe.base.muon_learning_rate
    assert 0 < rates[30] < 0.2 * rates[10]


def test_a_longer_recipe_goes_on_from_the_period_before(
    trained_tokenizer: tuple[Recipe, Family, Any], tmp_path: Path
) -> None:
    recipe, family, _ = trained_tokenizer
    longer = small(recipe, "base", tokens=[12 * 4 * 256, 10 * 4 * 256], batch_size=4, save_every=5, sample_every=6)
    longer = small(longer, "model", hidden_size=32, layers=1, heads=2, intermediate_size=64)
    at_once, in_turn = Family(tmp_path / "at once"), Family(tmp_path / "in turn")
    for each in (at_once, in_turn):
        shutil.copytree(family.path / "tokenizer", each.path / "tokenizer")
    run_all(longer, at_once, "base")
    run_all(longer.until_period(1), in_turn, "base")
    assert in_turn.checkpoint("base").record["steps"] == 12
    assert finished_periods(longer, in_turn) == 1
    assert finished_periods(small(longer, "base", batch_size=2), in_turn) == 0
    run_all(longer, in_turn, "base")

    expected, found = at_once.checkpoint("base"), in_turn.checkpoint("base")
    assert found.record["steps"] == 22
    assert found.figures["tokens"] == 22 * 4 * 256
    assert found.figures["loss"] == pytest.approx(expected.figures["loss"], abs=1e-3)
    assert [line["step"] for line in found.lines("metrics.jsonl")] == [1, 10, 13, 22]
    assert sorted({line["step"] for line in found.lines("samples.jsonl")}) == [0, 6, 12, 18, 22]
    assert found.record["seconds"] > 0
    with pytest.raises(InputError, match="another recipe"):
        run_all(longer.until_period(1), in_turn, "base")
