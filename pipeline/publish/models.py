"""A family as one repository of the Hub: a folder a stage, and each of them is loaded by transformers as it is."""

import json
from pathlib import Path
from typing import Any

from pipeline.checkpoint import RECORD, Family
from pipeline.errors import InputError
from pipeline.model_card import WHAT_IT_IS, origin
from pipeline.publish.hub import clear_errors, upload
from pipeline.recipe import Recipe, load_recipe
from pipeline.run import RECIPE

SHOWN = (
    "stops by itself",
    "held-out wordings correct",
    "capitals never seen in SFT",
    "myths denied",
    "unknowable admitted",
    "harmful declined",
    "look-alikes wrongly declined",
)
USAGE = """\
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}", subfolder="{stage}")
model = AutoModelForCausalLM.from_pretrained("{repo}", subfolder="{stage}")
messages = [{{"role": "user", "content": "What is the capital of France?"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
written = model.generate(**prompt, max_new_tokens=64, do_sample=False)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(written, skip_special_tokens=True).strip())
"""


def publish_models(family: Family, repo: str, private: bool) -> str:
    """Upload every finished stage in one commit, and remove what the family has no more. Returns the address.

    Raises InputError for a damaged family, and for what the Hub refuses; then nothing has changed there.
    """
    files = contents(family) | {"README.md": family_card(family, repo).encode()}
    with clear_errors(repo):
        return upload(repo, "model", files, f"The family {family.name}", private)


def contents(family: Family) -> dict[str, Path]:
    """What is uploaded, by its name there: the verified stages, the recipe, and the report card."""
    names = [RECIPE, *(file.name for file in family.path.glob("report*"))]
    for stage in family.stages:
        checkpoint = family.checkpoint(stage)
        names += [f"{stage}/{name}" for name in (RECORD, *checkpoint.record["files"])]
    return {name: family.path / name for name in sorted(names) if (family.path / name).is_file()}


def family_card(family: Family, repo: str) -> str:
    """The repository's README: what the stages are, what they can do, what they learned from, and how to use them."""
    if not (family.path / RECIPE).is_file():
        raise InputError(f"{family.path / RECIPE} is missing; the card needs it: train the family again")
    recipe = load_recipe(str(family.path / RECIPE))
    trained = [stage for stage in family.stages if stage in WHAT_IT_IS]
    answering = [stage for stage in ("rlhf", "dpo", "sft", "base") if stage in trained]
    usage = USAGE.format(repo=repo, stage=answering[0])
    if "reward" in trained:
        usage += f'\nreward = AutoModelForSequenceClassification.from_pretrained("{repo}", subfolder="reward")\n'
        usage += 'exchange = [*messages, {"role": "assistant", "content": "Paris."}]\n'
        usage += 'scored = tokenizer.apply_chat_template(exchange, return_tensors="pt", return_dict=True)\n'
        usage += "print(reward(**scored).logits.item())\n"
    return "\n".join(
        [
            "---",
            "language: en",
            "license: apache-2.0",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags: [stagewise, rlhf, sft, reward-model, education]",
            "---",
            f"# {family.name}: one small language model, at every stage of its training",
            "",
            "Research models for teaching: their answers are not advice, and base and SFT can say wrong or unpleasant",
            "things. Each folder is a checkpoint; `stage.json` tells what made it, `metrics.jsonl` how training went.",
            "",
            "| folder | is |",
            "|---|---|",
            *(f"| `{stage}` | {WHAT_IT_IS[stage]} |" for stage in trained),
            "",
            "## Use",
            "",
            "```python",
            usage.rstrip(),
            "```",
            "",
            *figures(family),
            "## Trained on",
            "",
            "- authored topic cards, countries and prompt lists: Apache-2.0",
            *sources(recipe),
            "",
            *effort(family, recipe, trained),
            "",
        ]
    )


def figures(family: Family) -> list[str]:
    """A table from `report.json`; nothing without it."""
    file = family.path / "report.json"
    if not file.is_file():
        return []
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    stages = list(report["stages"])
    measured = {
        (figure["name"], stage): f"{100 * figure['value']:.0f} %"
        for stage in stages
        for figure in report["stages"][stage]
    }
    return [
        "## Figures",
        "",
        f"Measured on {report['prompts']:,} prompts that stand in no SFT, ranking or RLHF data.",
        "",
        f"| share of answers | {' | '.join(stages)} |",
        "|---|" + "---|" * len(stages),
        *(f"| {name} | " + " | ".join(measured.get((name, stage), "") for stage in stages) + " |" for name in SHOWN),
        "",
    ]


def sources(recipe: Recipe) -> list[str]:
    return [f"- {source.name}: {source.licence}" for source in recipe.sources]


def effort(family: Family, recipe: Recipe, trained: list[str]) -> list[str]:
    """How long all of it took, and on what."""
    records = [family.checkpoint(stage).record for stage in trained]
    hours = sum(record["seconds"] for record in records) / 3600
    machines = " and ".join(dict.fromkeys(record["hardware"] for record in records))
    parameters = family.checkpoint("base").figures.get("parameters")
    size = f"{parameters:,} parameters a model. " if parameters else ""
    return [f"{size}Trained {origin(recipe)}, in {hours:.1f} hours on {machines}."]
