"""The page as a Space of the Hub: the repository's own files, less what only training and tests need."""

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import HfApi, SpaceHardware

from pipeline.checkpoint import Family
from pipeline.errors import InputError
from pipeline.publish.hub import clear_errors, upload
from pipeline.publish.models import contents
from pipeline.recipe import REPOSITORY

# Patterns below the repository. The bundled family comes on top, from wherever it lies.
SERVED = (
    "app.py",
    "requirements.txt",
    "README.md",
    "LICENSE",
    "pipeline/**/*.py",
    "pipeline/families/*.yaml",
    "pipeline/publish/README.md",
    "pipeline/recipes/*.yaml",
    "ui/*.py",
    "assets/*.css",
    "assets/*.svg",
    "assets/*.yaml",
    "assets/*.jsonl",
    "assets/script/*.js",
    "assets/style/*.css",
    "assets/pictures/*.png",
    "assets/corpus/**/*",
)
BUNDLED = "checkpoints/tiny"
PATIENCE = 30 * 60  # seconds that a Space may take to build
SECONDS_BETWEEN_LOOKS = 5.0
LAST_LINES = 40  # of the logs of a Space that failed


def space_files(family: Family) -> dict[str, Path]:
    """What the Space needs, by its name there. Raises InputError for a damaged family."""
    served = (file for pattern in SERVED for file in REPOSITORY.glob(pattern) if file.is_file())
    files = {str(file.relative_to(REPOSITORY)): file for file in served}
    return files | {f"{BUNDLED}/{name}": file for name, file in contents(family).items()}


def listing(files: dict[str, Path]) -> str:
    """The files with their sizes, and how much it is together."""
    sizes = {name: file.stat().st_size for name, file in sorted(files.items())}
    lines = [f"{size:>12,}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files"])


def publish_space(files: dict[str, Path], repo: str, private: bool, hardware: SpaceHardware | None) -> str:
    """Make or update the Space, remove what it does not need, and wait until it runs. Returns its address.

    Raises InputError for what the Hub refuses, and with the last lines of the logs if the Space does not start.
    """
    with clear_errors(repo):
        made = {"space_sdk": "gradio", "space_hardware": hardware}
        address = upload(repo, "space", files, "The page and its family", private, **made)
        api = HfApi()
        if hardware:
            # One that was there before has kept its own.
            api.request_space_hardware(repo, hardware)
        try:
            runtime = api.wait_for_space(repo, timeout=PATIENCE, poll_interval=SECONDS_BETWEEN_LOOKS)
        except TimeoutError as error:
            raise InputError(f"{repo} still does not run after {PATIENCE // 60} minutes; look at {address}") from error
        if runtime.stage not in ("RUNNING", "PAUSED", "SLEEPING"):
            building = runtime.stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE")
            said = last_lines(api.fetch_space_logs(repo, build=building))
            raise InputError(f"{repo} does not run ({runtime.stage}): {said or f'look at {address}'}")
    return address


def last_lines(logs: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in list(logs)[-LAST_LINES:])
