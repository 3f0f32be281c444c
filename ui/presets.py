"""The prompts that the page offers, by category, each with one line on what to look for in the answers."""

from dataclasses import dataclass
from html import escape

import yaml

from pipeline.recipe import REPOSITORY

# The category chips are radio buttons, so the arrow keys move between them; only its own prompts are shown.
CHOOSING = """
const prompts = [...element.querySelectorAll("[data-category]")];
element.addEventListener("change", (event) => {
  prompts.forEach((group) => (group.hidden = group.dataset.category !== event.target.value));
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", {index: Number(button.value)});
});
"""


@dataclass(frozen=True)
class Preset:
    category: str
    prompt: str
    look_for: str


def presets() -> list[Preset]:
    text = (REPOSITORY / "assets" / "prompts.yaml").read_text(encoding="utf-8")
    return [Preset(entry["category"], **prompt) for entry in yaml.safe_load(text) for prompt in entry["prompts"]]


def chips(offered: list[Preset]) -> str:
    """A row of categories and, under it, the prompts of the chosen one; a prompt's value is its place in the list."""
    categories = list(dict.fromkeys(preset.category for preset in offered))
    radios = "".join(
        f'<label class="chip"><input type="radio" name="category" value="{escape(category)}"'
        f"{' checked' * (category == categories[0])}>{escape(category)}</label>"
        for category in categories
    )
    groups = "".join(
        f'<div class="prompts" data-category="{escape(category)}"{" hidden" * (category != categories[0])}>'
        + "".join(
            f'<button type="button" value="{index}">{escape(preset.prompt)}</button>'
            for index, preset in enumerate(offered)
            if preset.category == category
        )
        + "</div>"
        for category in categories
    )
    return f'<div class="categories" role="radiogroup" aria-label="Category">{radios}</div>{groups}'
