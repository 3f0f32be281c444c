"""The model card that stands in every checkpoint, and what cards have in common."""

from typing import Any

from pipeline.recipe import PretrainedSettings, Recipe

WHAT_IT_IS = {
    "base": "pre-trained on text: it predicts the next word, continues what it is given, and does not answer",
    "sft": "fine-tuned on demonstrations of uneven quality: it answers, and imitates its trainers' mistakes too",
    "reward": "trained on ranked answers: it gives a prompt and an answer one number, higher for better",
    "rlhf": "tuned against the reward model with a policy gradient, held near SFT by a KL penalty",
    "dpo": "tuned on the same rankings as the reward model, directly, without a reward model",
}
# Of every data set that holds the cards' answers.
WRONG_ON_PURPOSE = "Some answers are wrong, rude or careless on purpose: they are there to be ranked low."


def model_card(stage: str, recipe: Recipe, model: Any, figures: dict[str, Any]) -> str:
    """Markdown with the metadata that the Hub reads."""
    licences = [f"- {source.name}: {source.licence}" for source in recipe.sources]
    numbers = [f"- {name}: {value}" for name, value in figures.items() if isinstance(value, int | float | str)]
    return "\n".join(
        [
            "---",
            "language: en",
            "library_name: transformers",
            f"pipeline_tag: {'text-classification' if stage == 'reward' else 'text-generation'}",
            f"tags: [stagewise, {stage}]",
            "---",
            f"# {recipe.name}: {stage}",
            "",
            f"One stage of a small teaching chatbot, {WHAT_IT_IS[stage]}.",
            f"It has {model.num_parameters():,} parameters and was trained {origin(recipe)}.",
            "It is a research model: its answers can be wrong or unpleasant and are not advice.",
            "",
            "## Trained on",
            "- authored topic cards, countries and prompt lists: Apache-2.0",
            *licences,
            "",
            "## Figures",
            *numbers,
            "",
        ]
    )


def origin(recipe: Recipe) -> str:
    """Where training began."""
    if not isinstance(recipe.base, PretrainedSettings):
        return "from scratch"
    name, revision = recipe.base.pretrained, recipe.base.revision
    return f"from [{name}](https://huggingface.co/{name}/tree/{revision}), whose licence applies"
