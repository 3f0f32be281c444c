"""The report card as others read it: its figures, and the answers behind each of them."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.annotator import TIE
from pipeline.checkpoint import Family, read_json_lines
from pipeline.errors import InputError
from pipeline.report.behaviour import ngrams
from pipeline.report.figures import Figure

Line = dict[str, Any]  # of report-answers.jsonl


@dataclass(frozen=True)
class Exhibit:
    """An answer behind a figure, and whether it counts as a hit; `rival` is the answer that it was compared with."""

    line: Line
    hit: bool
    rival: Line | None = None


@dataclass(frozen=True)
class Report:
    """What `report.json` and the files beside it say."""

    path: Path
    content: dict[str, Any]

    @cached_property
    def measured(self) -> dict[str, dict[str, Figure]]:
        """Figures by stage (the reward model is one, too) and name."""
        everything = self.content["stages"] | {"reward": self.content["reward"]}
        return {
            stage: {figure["name"]: Figure(**figure) for figure in figures} for stage, figures in everything.items()
        }

    @property
    def bars(self) -> list[dict[str, Any]]:
        """As `pipeline.report.bars.outcomes` made them."""
        return self.content["bars"]

    @property
    def curve(self) -> list[dict[str, float]]:
        """As `pipeline.report.against.curve` made it; empty for a family without RLHF."""
        return self.content["curve"]

    @property
    def plots(self) -> list[Path]:
        return sorted(self.path.glob("report-*.svg"))

    @cached_property
    def answers(self) -> list[Line]:
        """The answers that were written out, a megabyte of them: read when first asked for. Not those from outside
        the corpus, on which no bar rests."""
        return [line for line in read_json_lines(self.path / "report-answers.jsonl") if line["split"] != "outside"]

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """As `pipeline.report.preference.pair_lines` made them; empty for a report that has none yet."""
        file = self.path / "report-pairs.jsonl"
        return read_json_lines(file) if file.is_file() else []

    def ordered(self, name: str) -> list[Exhibit]:
        """The better answers behind an accuracy of the reward model, each with the worse one; a hit has more reward."""
        source, _, shorter = name.partition(" ordered right")
        return [
            Exhibit(pair["better"] | {"prompt": pair["prompt"]}, better["reward"] > worse["reward"], worse)
            for pair in self.pairs
            for better, worse in [(pair["better"], pair["worse"])]
            if pair["source"] == source and (not shorter or better["tokens"] < worse["tokens"])
        ]

    def behind(self, name: str, stage: str) -> list[Exhibit]:
        """The answers of a stage that count for a share."""
        return [
            Exhibit(line, line["verdicts"][name])
            for line in self.answers
            if line["stage"] == stage and name in line["verdicts"]
        ]

    def repeating(self, stage: str) -> list[Exhibit]:
        """The answers of a stage long enough to repeat four words in a row; a hit does."""
        runs = [(line, ngrams(line["text"], 4)) for line in self.answers if line["stage"] == stage]
        return [Exhibit(line, len(set(found)) < len(found)) for line, found in runs if found]

    def against_sft(self, stage: str) -> list[Exhibit]:
        """The answers of a stage with SFT's to the same prompts, the greatest loss first; a hit is no loss.

        Capitals are left out, as in the win rate.
        """
        rivals = {line["id"]: line for line in self.answers if line["stage"] == "sft"}
        pairs = [
            (line, rivals[line["id"]])
            for line in self.answers
            if line["stage"] == stage and line["split"] != "country" and line["id"] in rivals
        ]
        leads = sorted(pairs, key=lambda pair: pair[0]["grade"] - pair[1]["grade"])
        return [Exhibit(line, line["grade"] - rival["grade"] >= -TIE, rival) for line, rival in leads]


def read_report(family: Family) -> Report | None:
    """The report of a family, None if none was written. Raises InputError if it cannot be read."""
    file = family.path / "report.json"
    if not file.is_file():
        return None
    try:
        return Report(family.path, json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{file} is not JSON; write it anew: python -m pipeline report --family DIR") from error
