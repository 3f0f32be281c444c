"""The DPO stage makes better answers likelier than worse ones, and goes on where it was stopped."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.chat_format import END, decode_answer, encode_prompt
from pipeline.recipe import Recipe, load_recipe
from pipeline.stages import dpo
from pipeline.training import FIXED_PROMPTS
from tests.rankings import Interrupted, StopAt, ranked_family, ranking, small


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return small(load_recipe("nano"), "dpo", epochs=3, batch_size=8, save_every=4, learning_rate=0.0005)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Any:
    return dpo.run(recipe, ranked_family(tmp_path_factory.mktemp("dpo") / "family"))


def test_it_prefers_what_annotators_prefer(trained: Any) -> None:
    figures = trained.figures
    assert figures["held_out_accuracy"] > 0.8
    assert figures["margin"] > 0
    difference = figures["logprob_shift_of_better"] - figures["logprob_shift_of_worse"]
    assert difference == pytest.approx(figures["margin"] / 0.1, rel=0.01)
    assert figures["training_pairs"] == 30


def test_the_checkpoint_is_a_plain_model_with_samples(trained: Any) -> None:
    assert AutoModelForCausalLM.from_pretrained(trained.path).config.vocab_size
    samples = trained.lines("samples.jsonl")
    assert {record["prompt"] for record in samples} == set(FIXED_PROMPTS)
    assert {record["step"] for record in samples} == {0, 4, 8, 12}


def test_an_interrupted_run_reaches_the_same_figures(
    trained: Any, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = ranked_family(tmp_path / "family")
    monkeypatch.setattr(dpo, "StopOnNaN", lambda: StopAt(6))
    with pytest.raises(Interrupted):
        dpo.run(recipe, family)
    rest = StopAt()
    monkeypatch.setattr(dpo, "StopOnNaN", lambda: rest)
    resumed = dpo.run(recipe, family)
    assert rest.first == 5
    assert resumed.figures == pytest.approx(trained.figures, abs=1e-3)
    assert resumed.lines("samples.jsonl") == trained.lines("samples.jsonl")


def test_pairs_are_those_furthest_apart_as_their_model_wrote_them(trained: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    [found] = dpo.token_pairs([ranking(1)], "train", tokenizer, seed=1)
    end = tokenizer.convert_tokens_to_ids(END)
    assert tokenizer.decode(found["chosen_ids"]) == " " + ranking(1)["answers"][0]["text"] + END
    assert found["prompt_ids"] == encode_prompt(tokenizer, "Question 1?")
    worst = max(answer["rank"] for answer in ranking(1)["answers"])
    worse = {(answer["text"], answer["stopped"]) for answer in ranking(1)["answers"] if answer["rank"] == worst}
    assert (decode_answer(tokenizer, found["rejected_ids"]), found["rejected_ids"][-1] == end) in worse
    assert dpo.token_pairs([ranking(1)], "test", tokenizer, seed=1) == []
    elsewhere = {"text": "Yes, they do.", "stopped": True, "source": "other", "rank": worst + 1, "grade": None}
    joined = ranking(1) | {"answers": [*ranking(1)["answers"], elsewhere]}
    [again] = dpo.token_pairs([joined], "train", tokenizer, seed=1)
    assert decode_answer(tokenizer, again["rejected_ids"]) != elsewhere["text"]
