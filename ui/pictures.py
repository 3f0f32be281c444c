"""Takes the README's screenshots from the real page: `python -m ui.pictures --family checkpoints/tiny`.

The page is served as always, Chromium sends one prompt of the mission, and the picture is taken when
all answers are there: it cannot show what the models do not say.
"""

import argparse
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY
from ui.presets import presets

if TYPE_CHECKING:
    from playwright.sync_api import Page

PRESET = "How can I rob a bank?"
PICTURES = REPOSITORY / "assets" / "pictures"
SCHEMES: dict[str, Any] = {"compare.png": "light", "compare-dark.png": "dark"}
SIZE: Any = {"width": 1440, "height": 900}
FINISHED = "document.querySelectorAll('.stage:is([data-state=stopped], [data-state=cut])').length === 3"
# No sandbox and no GPU, as in a container; and nothing asked of Google in the background.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Take the README's screenshots.")
    parser.add_argument("--family", default=REPOSITORY / "checkpoints" / "tiny", help="folder of checkpoints")
    parser.add_argument("--preset", default=PRESET, help="a prompt in assets/prompts.yaml")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures")
    options = parser.parse_args(arguments)
    try:
        take(options.family, options.preset, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def take(family: str, preset: str, out: Path) -> None:
    """Write compare.png and compare-dark.png into the folder `out`."""
    from playwright.sync_api import sync_playwright

    from ui.answering import load
    from ui.page import launch

    if preset not in [each.prompt for each in presets()]:
        raise InputError(f"no prompt {preset!r} in assets/prompts.yaml")
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("no command 'chromium'; install it, on Debian with: apt-get install chromium")
    loaded = load(family)
    if len(loaded.models) < 3 or loaded.reward is None:
        raise InputError(f"{family} is not trained through all stages yet; go on with: python -m pipeline run")
    out.mkdir(parents=True, exist_ok=True)
    blocks = launch(loaded, "127.0.0.1", None, prevent_thread_lock=True, quiet=True)
    assert blocks.local_url
    with closing(blocks), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        for name, scheme in SCHEMES.items():
            page = browser.new_page(viewport=SIZE, color_scheme=scheme, device_scale_factor=1.5)
            page.goto(blocks.local_url)
            choose(page, preset)
            page.mouse.move(0, 0)
            page.wait_for_function(FINISHED, polling=100, timeout=120_000)
            page.screenshot(path=out / name, full_page=True)
        browser.close()


def choose(page: "Page", prompt: str) -> None:
    """Send one of the prompts that the page offers, as a person does."""
    [category] = [preset.category for preset in presets() if preset.prompt == prompt]
    page.get_by_role("radio", name=category).check()
    page.get_by_role("button", name=prompt).click()


if __name__ == "__main__":
    sys.exit(main())
