"""All benchmarks in one run: `make bench`. Writes what came out into BENCHMARKS.md, the newest run first.

Each speed stands beside another way to do the same, measured in the same run: on another machine, or beside other
work, seconds say little and ratios much.
"""

import argparse
import importlib
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from pipeline.checkpoint import Family, write_whole
from pipeline.recipe import REPOSITORY
from tests.bench.figures import Measured, table

FILE = REPOSITORY / "BENCHMARKS.md"
BENCHMARKS = {
    "page": "The page",
    "training": "Training base",
    "sampling": "Sampling for rankings and RLHF",
    "scoring": "Scoring",
    "disk": "On disk",
}
TITLE = "# Benchmarks\n\nWritten by `make bench`. What each figure means stands in `tests/bench/`.\n"
PACKAGES = ("torch", "transformers", "trl", "gradio")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a family, and write BENCHMARKS.md.")
    parser.add_argument(
        "--family", type=Path, default=REPOSITORY / "checkpoints" / "tiny", help="folder of checkpoints"
    )
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, help="print these alone, and write nothing")
    options = parser.parse_args()
    sections = []
    for name in options.only or BENCHMARKS:
        figures = on_disk(options.family) if name == "disk" else measured(name, options.family)
        sections.append(table(BENCHMARKS[name], figures))
        print(sections[-1], end="\n\n", flush=True)
    if not options.only:
        earlier = FILE.read_text(encoding="utf-8").removeprefix(TITLE) if FILE.exists() else ""
        write_whole(FILE, "\n\n".join([TITLE + f"\n## {date.today()}, {machine()}", *sections]) + "\n" + earlier)


def measured(name: str, family: Path) -> list[Measured]:
    return importlib.import_module(f"tests.bench.{name}").measure(family)


def on_disk(family: Path) -> list[Measured]:
    """Megabytes of a family, snapshots and logs included."""
    sizes = {stage: size(family / stage) for stage in Family(family).stages}
    whole = Measured("the whole family", size(family), "MB", at_most=150)
    return [*(Measured(stage, megabytes, "MB") for stage, megabytes in sizes.items()), whole]


def size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def machine() -> str:
    """The processor, its cores, and the packages that were measured."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in told if line.startswith("model name")), platform.processor())
    flags = next((line.split() for line in told if line.startswith("flags")), [])
    quick = [flag for flag in ("amx_bf16", "avx512_bf16", "avx2") if flag in flags][:1]
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{os.cpu_count()} cores of {name} ({', '.join(quick) or platform.machine()})\n\n{packages}"


if __name__ == "__main__":
    main()
