"""What a recipe may say, and how it says no."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.recipe import RECIPES, BaseSettings, Recipe, load_recipe


def nano() -> dict[str, Any]:
    return yaml.safe_load((RECIPES / "nano.yaml").read_text(encoding="utf-8"))


def written(folder: Path, content: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", [file.stem for file in RECIPES.glob("*.yaml")])
def test_every_bundled_recipe_loads_under_its_own_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_unknown_recipe_names_the_bundled_ones() -> None:
    names = "nano, olmo2-1b-qlora, qwen3-0.6b-lora, smollm2-135m, tiny"
    with pytest.raises(InputError, match=re.escape(f"no recipe 'huge'; use one of {names}")):
        load_recipe("huge")


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("base", "tokns", 5, "unknown key 'base.tokns'"),
        ("base", "tokens", "many", "key 'base.tokens': .* found 'many'"),
        ("base", "tokens", "5", "key 'base.tokens'"),
        ("base", "tokens", 1.5, "key 'base.tokens'"),
        ("base", "tokens", True, "key 'base.tokens'"),
        ("base", "tokens", 0, "key 'base.tokens'"),
        ("base", "tokens", [], "key 'base.tokens'"),
        ("base", "tokens", [5, "many"], "key 'base.tokens'"),
        ("model", "heads", 5, "key 'model': .*'hidden_size'"),
        ("rlhf", "algorithm", "ppo", "key 'rlhf.algorithm'"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, section: str, key: str, value: Any, complaint: str) -> None:
    content = nano()
    content[section][key] = value
    with pytest.raises(InputError, match=complaint) as caught:
        load_recipe(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = nano()
    del content["sft"]["epochs"]
    with pytest.raises(InputError, match=r"key 'sft\.epochs' is missing"):
        load_recipe(written(tmp_path, content))


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "a: \x00", "!!python/object/apply:os.getcwd []"])
def test_what_is_not_a_recipe_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, text))
    assert "recipe.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "place", [{}, {"path": "a", "dataset": "b", "revision": "c"}, {"dataset": "b"}], ids=["none", "two", "unpinned"]
)
def test_a_source_stands_in_one_place(tmp_path: Path, place: dict[str, str]) -> None:
    content = nano()
    source = {"name": "books", "kind": "prose", "licence": "CC0", "share": 0.5} | place
    content["corpus"]["sources"] = [source]
    with pytest.raises(InputError, match=r"corpus\.sources\.0"):
        load_recipe(written(tmp_path, content))


def test_sources_leave_room_for_authored_text(tmp_path: Path) -> None:
    content = nano()
    source = {"name": "books", "kind": "prose", "licence": "CC0", "share": 0.5, "path": "books"}
    content["corpus"]["sources"] = [source, source]
    with pytest.raises(InputError, match="room for authored text"):
        load_recipe(written(tmp_path, content))


PRETRAINED = {"pretrained": "lab/small", "revision": "v1"}


def test_a_pretrained_base_takes_the_place_of_three_sections(tmp_path: Path) -> None:
    content = nano()
    del content["tokenizer"], content["model"]
    content["base"] = PRETRAINED | {"context": 128}
    recipe = load_recipe(written(tmp_path, content))
    assert recipe.context == 128
    assert recipe.repositories == [("model", "lab/small", "v1")]
    assert load_recipe(written(tmp_path, recipe.model_dump())) == recipe
    assert recipe.digest("sft") != load_recipe("nano").digest("sft")
    content["base"] = PRETRAINED | {"revision": "v2", "context": 128}
    assert load_recipe(written(tmp_path, content)).digest("base") != recipe.digest("base")


@pytest.mark.parametrize(
    ("removed", "base", "complaint"),
    [
        (("model",), {}, "trained here wants the sections 'tokenizer' and 'model'"),
        ((), PRETRAINED, "leaves no use for 'tokenizer', 'model'"),
        (("tokenizer", "model"), {"pretrained": "lab/small"}, r"key 'base\.revision' is missing"),
        (("tokenizer", "model"), PRETRAINED | {"tokens": 5}, r"unknown key 'base\.tokens'"),
        (("tokenizer", "model"), PRETRAINED | {"pretrained": "../small"}, r"key 'base\.pretrained'"),
        (("tokenizer", "model"), PRETRAINED | {"four_bit": True}, "want a 'lora' each"),
    ],
)
def test_what_does_not_suit_the_base_is_named(
    tmp_path: Path, removed: tuple[str, ...], base: dict[str, Any], complaint: str
) -> None:
    content = {name: section for name, section in nano().items() if name not in removed}
    content["base"] = base or content["base"]
    with pytest.raises(InputError, match=complaint) as caught:
        load_recipe(written(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("setting", "value"), [("muon_learning_rate", 0.001), ("base_share", 0.3)])
def test_an_adapter_leaves_nothing_to_muon_and_is_not_averaged(tmp_path: Path, setting: str, value: float) -> None:
    content = nano()
    content["sft"] |= {"lora": {"rank": 4, "alpha": 8}, setting: value}
    with pytest.raises(InputError, match=f"'sft' wants either 'lora' or '{setting}'"):
        load_recipe(written(tmp_path, content))


def test_sections_that_came_later_do_not_count_where_they_are_missing() -> None:
    assert "lora" not in load_recipe("nano").model_dump()["reward"]


def test_the_digest_changes_with_the_content_alone(tmp_path: Path) -> None:
    content = nano()
    digest = load_recipe("nano").digest("rlhf")
    reordered = written(tmp_path, "# comment\n" + yaml.safe_dump(dict(reversed(content.items())), sort_keys=False))
    assert load_recipe(reordered).digest("rlhf") == digest
    content["seed"] += 1
    assert load_recipe(written(tmp_path, content)).digest("rlhf") != digest


def test_a_stage_keeps_its_digest_when_a_later_one_changes(tmp_path: Path) -> None:
    content = nano()
    content["rlhf"]["steps"] += 1
    changed, recipe = load_recipe(written(tmp_path, content)), load_recipe("nano")
    assert changed.digest("reward") == recipe.digest("reward")
    assert changed.digest("dpo") == recipe.digest("dpo")
    assert changed.digest("rlhf") != recipe.digest("rlhf")


def test_a_recipe_with_fewer_periods_is_the_recipe_before_they_were_added(tmp_path: Path) -> None:
    content = nano()
    before = content["base"]["tokens"]
    content["base"]["tokens"] = [before, 5_000]
    longer = load_recipe(written(tmp_path, content))
    assert isinstance(longer.base, BaseSettings)
    assert longer.base.periods == [before, 5_000]
    assert longer.digest("base") != load_recipe("nano").digest("base")
    assert longer.until_period(1) == load_recipe("nano")
    assert longer.until_period(2) == longer


def test_a_recipe_survives_being_written_and_read(tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    assert isinstance(recipe, Recipe)
    assert load_recipe(written(tmp_path, recipe.model_dump())) == recipe
