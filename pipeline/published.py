"""Families that others trained: one YAML file names for each stage a model of the Hub, or a server that answers."""

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.checkpoint import Family, open_family
from pipeline.errors import InputError
from pipeline.recipe import Section, describe

BUNDLED = Path(__file__).parent / "families"
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


class NoSafetensors(InputError):
    """A repository has its weights only in formats that could run code."""


class Place(Section):
    """Where a stage's model is: a repository of the Hub, or a server that speaks OpenAI's interface."""

    about: str = Field("", description="a sentence on what the stage has learned, in place of the usual one")
    repo: str | None = Field(None, description="OWNER/NAME on the Hub")
    revision: str | None = Field(None, description="a commit, or main for what is there when it is first fetched")
    template: dict[str, bool | str] = Field({}, description="arguments of the model's own chat template")
    scale: list[float] | None = Field(None, min_length=2, max_length=2, description="of rewards: from and to")
    endpoint: str | None = Field(None, pattern="^https?://", description="up to and with /v1")
    model: str | None = Field(None, description="what the server calls the model")
    token: str | None = Field(None, description="the environment variable that holds the server's token")
    seconds: float = Field(30.0, gt=0, description="how long the server may be silent")

    @field_validator("token")
    @classmethod
    def is_variable(cls, name: str | None) -> str | None:
        # Not a ValueError: those repeat what was found, and that may be a token.
        if name is not None and not VARIABLE.fullmatch(name):
            raise InputError("key 'token' wants the name of an environment variable, in capitals, never the token")
        return name

    @model_validator(mode="after")
    def one_place(self) -> "Place":
        if (self.repo is None) == (self.endpoint is None):
            raise ValueError("wants exactly one of 'repo' and 'endpoint'")
        if self.repo is not None and self.revision is None:
            raise ValueError("a 'repo' wants a 'revision': a commit, or main")
        if self.endpoint is not None and self.model is None:
            raise ValueError("an 'endpoint' wants a 'model'")
        return self

    @property
    def source(self) -> str:
        """Where its answers come from, in a few words."""
        return f"{self.repo}" if self.repo else f"{self.model} at {self.host}"

    @property
    def host(self) -> str:
        """The server's address without its path."""
        return (self.endpoint or "").split("/")[2]

    @property
    def record(self) -> dict[str, str | None]:
        """What a saved comparison says of the model."""
        if self.repo:
            return {"repo": self.repo, "revision": self.revision}
        return {"endpoint": self.endpoint, "model": self.model}


class PublishedFamily(Section):
    """A family file. Its stages stand in the order of their training; any of them may be missing."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    bits: Literal[4, 8] | None = Field(None, description="to which weights are rounded when they are loaded")
    stages: dict[Literal["base", "sft", "dpo", "rlhf", "reward"], Place]

    @model_validator(mode="after")
    def somebody_answers(self) -> "PublishedFamily":
        if not self.answering:
            raise ValueError("no stage that answers is named; name base, sft, dpo or rlhf")
        if "reward" in self.stages and self.stages["reward"].repo is None:
            raise ValueError("a reward model is wanted from the Hub: servers give no rewards")
        return self

    @property
    def answering(self) -> list[str]:
        return [stage for stage in self.stages if stage != "reward"]

    def has(self, stage: str) -> bool:
        return stage in self.stages

    def place(self, stage: str) -> Place:
        """Where a stage's model is. Raises InputError if the file names none."""
        for name, place in self.stages.items():
            if name == stage:
                return place
        raise InputError(f"the family {self.name} has no {stage} model; it has {', '.join(self.stages)}")


def find_family(name: str | Path) -> Family | PublishedFamily:
    """A family by its folder, by `hub:OWNER/NAME`, by the path of a family file, or by the name of a bundled one.

    Raises InputError if there is none, or if its file cannot be used.
    """
    if str(name).startswith("hub:"):
        from pipeline.publish.fetch import local

        return open_family(local(name))
    if str(name).endswith((".yaml", ".yml")):
        return read_family(Path(name))
    if name in bundled() and not Path(name).is_dir():
        return read_family(BUNDLED / f"{name}.yaml")
    return open_family(name)


def trained(family: Family | PublishedFamily) -> Family:
    """A family that has checkpoints of this pipeline. Raises InputError if it has not."""
    if isinstance(family, PublishedFamily):
        raise InputError(f"the family {family.name} was trained elsewhere; this needs one that was trained here")
    return family


def read_family(path: Path) -> PublishedFamily:
    """Read a family file. Raises InputError when it is missing, no YAML, or says what none may say."""
    if not path.is_file():
        raise InputError(f"no family file {path}; bundled are {', '.join(bundled())}")
    try:
        return PublishedFamily.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from error


def bundled() -> list[str]:
    """The names of the families that come along."""
    return sorted(file.stem for file in BUNDLED.glob("*.yaml"))
