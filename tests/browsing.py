"""The page, served and looked at as people do: what its tests share."""

from collections.abc import Iterator

from playwright.sync_api import Browser, Page, expect

from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from tests.families import Stream
from ui.answering import LoadedFamily
from ui.page import launch
from ui.pictures import FINISHED

# Milliseconds: a loaded machine is slow, not wrong.
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)


def served(family: LoadedFamily) -> Iterator[str]:
    blocks = launch(family, "127.0.0.1", None, prevent_thread_lock=True, quiet=True)
    assert blocks.local_url
    yield blocks.local_url
    blocks.close()


def opened(browser: Browser, address: str) -> Iterator[Page]:
    """The page at the address; fails if the browser was sent to any other host."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".stage").nth(2).wait_for()
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def send(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()


def finish(page: Page) -> None:
    page.wait_for_function(FINISHED, polling=100)


def say(*texts: str) -> Stream:
    """A stream of prepared texts, to see what the page makes of them."""

    def stream(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        for number, text in enumerate(texts, 1):
            yield Answer(text, number, number == len(texts))

    return stream
