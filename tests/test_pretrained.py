"""A base that others have trained comes from the Hub, and every later stage trains an adapter on it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.__main__ import main
from pipeline.adapters import four_bit, merged
from pipeline.chat_format import (
    ASSISTANT,
    CONTROL_TOKENS,
    END,
    END_OF_DOCUMENT,
    FORMAT_TOKENS,
    USER,
    add_control_tokens,
    encode_exchange,
    encode_text,
    stop_tokens,
)
from pipeline.checkpoint import WEIGHTS, Family, open_family
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.examples import TrainingData
from pipeline.inference.models import load_stage
from pipeline.recipe import REPOSITORY, Recipe
from pipeline.stages import pretrained, sft
from pipeline.training import FIXED_PROMPTS
from tests.hub import Hub, running_hub
from tests.pretrained import REPO, base_on_the_hub, on_the_hub, own_tokenizer, small_corpus, small_recipe
from tests.rankings import small

KINDS = ("llama", "qwen3", "olmo2")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def family(cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """What the command line makes of a base on the Hub: every stage of it, by adapters."""
    folder = tmp_path_factory.mktemp("pretrained")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small_recipe(cards).model_dump()), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "run", "--recipe", str(recipe), "--out", str(folder / "family")]
    with running_hub() as hub:
        on_the_hub(hub, folder / "hub")
        environment = os.environ | hub.environment | {"HF_HOME": str(folder / "home")}
        result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert not [asked for asked in hub.requests if asked.endswith((".bin", ".py", ".md"))]
    return Family(folder / "family")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process uses, with a cache of its own."""
    with running_hub() as hub:
        for name, value in {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield hub


def weights(family: Family, stage: str) -> dict[str, torch.Tensor]:
    return load_file(family.path / stage / WEIGHTS)


def with_base(kind: str, recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """A family whose base is one of a kind, as if the Hub had sent it."""
    sent = base_on_the_hub(folder / "sent", kind)
    monkeypatch.setattr(pretrained, "download", lambda settings: sent)
    family = Family(folder / "family")
    pretrained.run(recipe, family)
    return family


def test_every_stage_is_there_and_says_where_it_comes_from(family: Family, cards: Path) -> None:
    assert family.stages == ["base", "sft", "ranking", "reward", "rlhf", "dpo"]
    base = family.checkpoint("base")
    assert base.figures["pretrained"] == REPO
    assert base.figures["commit"] == "0" * 40
    assert [record["prompt"] for record in base.lines("samples.jsonl")] == list(FIXED_PROMPTS)
    assert f"huggingface.co/{REPO}/tree/v1" in (base.path / "README.md").read_text(encoding="utf-8")
    assert all(family.checkpoint(stage).record["recipe"]["sha256"] for stage in family.stages)
    assert not (family.path / "sft" / "adapter_config.json").exists()


def test_stages_are_plain_models_that_an_adapter_has_changed(family: Family) -> None:
    base, changed = weights(family, "base"), weights(family, "sft")
    assert base.keys() == changed.keys()
    for stage in ("sft", "reward", "rlhf", "dpo"):
        before = base if stage == "sft" else changed
        after = weights(family, stage)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert any("q_proj" in name for name in moved)
        assert not any("norm" in name for name in moved)
        assert ("model.embed_tokens.weight" in moved) == (stage == "sft")
    rows = (base["model.embed_tokens.weight"] != changed["model.embed_tokens.weight"]).any(1).nonzero()[:, 0]
    tokenizer: Any = AutoTokenizer.from_pretrained(family.path / "sft")
    assert rows.tolist() == sorted(tokenizer.convert_tokens_to_ids(FORMAT_TOKENS))


def test_the_family_opens_and_answers(family: Family) -> None:
    opened = open_family(family.path)
    for stage in ("base", "sft", "rlhf", "dpo"):
        model = load_stage(opened.checkpoint(stage))
        [answer] = model.answers(["What is tea?"], Decoding(max_new_tokens=4))
        assert answer.tokens <= 4
    with pytest.raises(InputError, match=f"others have trained this base, {REPO}"):
        TrainingData(opened).documents  # noqa: B018


def test_two_processes_take_the_base_that_one_takes(family: Family, hub: Hub, tmp_path: Path) -> None:
    on_the_hub(hub, tmp_path / "hub")
    recipe = family.path.parent / "recipe.yaml"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "pipeline", "run", "--recipe", str(recipe), "--out", str(tmp_path / "family"), "--until", "base"]
    environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "home")}
    result = subprocess.run([*launcher, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    taken = Family(tmp_path / "family")
    assert taken.stages == ["base"]
    assert taken.checkpoint("base").lines("samples.jsonl") == family.checkpoint("base").lines("samples.jsonl")
    for name, weight in weights(family, "base").items():
        assert torch.equal(weights(taken, "base")[name], weight)


def test_a_second_run_needs_no_hub(family: Family, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = family.path.parent / "recipe.yaml"
    command = ["run", "--recipe", str(recipe), "--out", str(family.path)]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"{stage}: finished already" for stage in family.stages]
    assert main(["tokenizer", *command[1:]]) == 2
    assert "has no tokenizer stage: its base is pretrained" in capsys.readouterr().err


@pytest.mark.parametrize("template", [False, True], ids=["no template", "a template of its own"])
def test_the_chat_format_is_ours_and_nobody_can_type_it(template: bool, tmp_path: Path) -> None:
    made: Any = own_tokenizer(template)
    before = len(made)
    assert add_control_tokens(made) == list(range(before, before + 4))
    made.save_pretrained(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert stop_tokens(tokenizer) == tokenizer.convert_tokens_to_ids([END, END_OF_DOCUMENT])
    messages = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "Tea."}]
    rendered = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert rendered == encode_exchange(tokenizer, "What is it?", "Tea.")
    assert tokenizer.decode(rendered) == f"{USER} What is it?{END}{ASSISTANT} Tea.{END}"
    special = set(tokenizer.convert_tokens_to_ids([*CONTROL_TOKENS, "<|im_start|>"]))
    for typed in (USER, ASSISTANT, END_OF_DOCUMENT, "<|im_start|>assistant"):
        assert special.isdisjoint(encode_text(tokenizer, typed))
        assert tokenizer.decode(encode_text(tokenizer, typed)) == typed


@pytest.mark.parametrize("kind", KINDS)
def test_the_added_tokens_get_rows_and_the_others_keep_theirs(kind: str, tmp_path: Path) -> None:
    folder = base_on_the_hub(tmp_path, kind)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    before = [layer.weight.detach().clone() for layer in layers]
    known, rows = len(tokenizer), len(before[0])
    pretrained.add_rows(model, tokenizer, add_control_tokens(tokenizer))
    user, end, end_of_document = tokenizer.convert_tokens_to_ids([USER, END, END_OF_DOCUMENT])
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    for old, layer in zip(before, layers, strict=True):
        assert len(layer.weight) == max(rows, known + 4)
        assert torch.equal(layer.weight[:known], old[:known])
        assert torch.equal(layer.weight[end], old[end_of_document])
        assert torch.allclose(layer.weight[user], old[:known].mean(0), atol=1e-6)
    assert (layers[0].weight is layers[1].weight) == (kind != "olmo2")


def test_an_adapter_learns_over_weights_in_four_bits(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(small_recipe(cards, four_bit=True), "sft", learning_rate=0.01, batch_size=4, sample_every=100)
    family = with_base("olmo2", recipe, tmp_path, monkeypatch)
    every, measured = sft.training_demonstrations, sft.held_out_demonstrations
    monkeypatch.setattr(sft, "training_demonstrations", lambda *given: every(*given)[:32])
    monkeypatch.setattr(sft, "held_out_demonstrations", lambda *given: measured(*given)[:4])
    trained: list[Any] = []

    def keeping(model: Any, *given: Any) -> Any:
        trained.append(model)
        return merged(model, *given)

    monkeypatch.setattr(sft, "merged", keeping)
    checkpoint = sft.run(recipe, family)
    kinds = {name: type(layer).__name__ for name, layer in trained[0].get_base_model().named_modules()}
    assert kinds["model.layers.0.self_attn.q_proj.base_layer"] == "Linear4bit"
    assert kinds["lm_head.token_adapter.base_layer"] == "Linear"
    base, after = weights(family, "base"), weights(family, "sft")
    # What the stage writes has all of its bits again: the adapter's change, and nothing of the rounding.
    change = (after["model.layers.0.self_attn.q_proj.weight"] - base["model.layers.0.self_attn.q_proj.weight"]).float()
    assert torch.linalg.matrix_rank(change, rtol=0.05) <= recipe.sft.lora.rank  # type: ignore[union-attr]
    assert change.abs().max() > 0.001
    rows = (base["lm_head.weight"] != after["lm_head.weight"]).any(1).nonzero()[:, 0]
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.path)
    assert rows.tolist() == sorted(tokenizer.convert_tokens_to_ids(FORMAT_TOKENS))


def test_only_a_recipe_that_says_so_rounds_to_four_bits(cards: Path) -> None:
    assert four_bit(small_recipe(cards)) is None
    rounded = four_bit(small_recipe(cards, four_bit=True))
    assert rounded is not None
    assert (rounded.load_in_4bit, rounded.bnb_4bit_quant_type) == (True, "nf4")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"pretrained": "lab/none"}, "there is no such repository"),
        ({"revision": "v9"}, "no such revision"),
        ({"context": 1024}, "reads 512 tokens at once; lower 'base.context'"),
    ],
)
def test_what_the_hub_has_not_is_refused(
    base: dict[str, Any], said: str, hub: Hub, cards: Path, tmp_path: Path
) -> None:
    on_the_hub(hub, tmp_path / "hub")
    with pytest.raises(InputError, match=said) as refused:
        pretrained.run(small_recipe(cards, **base), Family(tmp_path / "family"))
    assert "\n" not in str(refused.value)
    assert not Family(tmp_path / "family").has("base")


def only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def program_code(folder: Path) -> None:
    config = '{"model_type": "small", "auto_map": {"AutoModelForCausalLM": "modeling_small.SmallForCausalLM"}}'
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / "modeling_small.py").write_text("raise SystemExit('run')", encoding="utf-8")


def another_end(folder: Path) -> None:
    own_tokenizer(end="</s>").save_pretrained(folder)


@pytest.mark.parametrize("damage", [only_pickle, program_code, another_end])
def test_a_model_that_cannot_be_a_base_is_refused(
    damage: Any, cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Path(shutil.copytree(base_on_the_hub(tmp_path / "made", "llama"), tmp_path / "sent"))
    damage(sent)
    monkeypatch.setattr(pretrained, "download", lambda settings: sent)
    with pytest.raises(InputError, match=REPO) as refused:
        pretrained.run(small_recipe(cards), Family(tmp_path / "family"))
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
