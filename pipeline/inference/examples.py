"""What each stage of a family was trained on: real examples, composed again or read from its checkpoints."""

import random
from functools import cached_property
from itertools import islice
from typing import Any

from pipeline.checkpoint import Family
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.conversations import Demonstration, demonstrations
from pipeline.corpus.documents import AUTHORED_SHARES, Document, authored, mixed
from pipeline.errors import InputError
from pipeline.recipe import PretrainedSettings, Recipe, load_recipe
from pipeline.run import RECIPE

DOCUMENTS = 300  # the first ones of the stream: it has no end


class TrainingData:
    """A family's training data, each part made when it is first asked for and then kept.

    Every part raises InputError when the recipe, the corpus or the checkpoint it comes from is missing.
    """

    def __init__(self, family: Family) -> None:
        self.family = family

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.family.path / RECIPE))

    @cached_property
    def corpus(self) -> Corpus:
        return load_corpus(self.recipe.corpus)

    def is_of_today(self, stage: str) -> bool:
        """Whether the corpus is still the one that the stage was trained on."""
        return self.family.checkpoint(stage).record["corpus"]["sha256"] == self.corpus.sha256

    @cached_property
    def documents(self) -> list[Document]:
        """The first documents of the base stage, in the order of training, those of outside sources left out."""
        if isinstance(self.recipe.base, PretrainedSettings):
            raise InputError(f"others have trained this base, {self.recipe.base.pretrained}, on text that is not here")
        streams = {name: (AUTHORED_SHARES[name], stream) for name, stream in authored(self.recipe, self.corpus)}
        return list(islice(mixed(streams), DOCUMENTS))

    @cached_property
    def demonstrations(self) -> list[Demonstration]:
        """The demonstrations of the first epoch, shuffled: in the corpus, one subject follows itself."""
        written = demonstrations(self.corpus, self.recipe, 0)
        return random.Random(self.recipe.seed).sample(written, len(written))

    @cached_property
    def rankings(self) -> list[dict[str, Any]]:
        """The rankings to train on: `{"prompt", "answers": [{"text", "source", "rank", "grade"}]}`."""
        records = self.family.checkpoint("ranking").lines("rankings.jsonl")
        return [record for record in records if record["split"] == "train"]

    @cached_property
    def completions(self) -> list[dict[str, Any]]:
        """One prompt of each RLHF step: `{"step", "prompt", "completions": [{"text", "stopped", "reward"}]}`."""
        return self.family.checkpoint("rlhf").lines("completions.jsonl")
