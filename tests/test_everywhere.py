"""What holds on every tab of the page: accessibility, the keyboard, light and dark, large type, nothing that jumps."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from tests.browsing import PATIENCE, finish, opened, say, send
from tests.families import speaking
from ui.answering import LoadedFamily

# Milliseconds. On a free core it is a few hundred; this leaves room for a machine that does other work.
FIRST_PAINT = 20_000
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
WATCH = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter((shift) => !shift.hadRecentInput)))
  .observe({ type: "layout-shift", buffered: true });
"""
# What is written on the page, in the size that is seen.
SMALL = """() => [...document.querySelectorAll("body *")].filter((part) =>
  part.checkVisibility({ visibilityProperty: true }) && !part.closest(".unseen, .skip, [aria-hidden=true], .icon") &&
  [...part.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()) &&
  parseFloat(getComputedStyle(part).fontSize) * part.currentCSSZoom < 18
).map((part) => part.outerHTML.slice(0, 120))"""

# What a tab shows once it has been opened and filled; parts that come or go later would move the Tab key's aim.
FILLED = {
    "Tokens": "#token-answer .detail",
    "Reward": "#score .number",
    "Training": "#curves :is(.curves, .problem)",
}
# Colours that are changing are neither the old nor the new ones.
STILL = """() => document.getAnimations().every((moving) =>
  moving.playState !== "running" || moving.effect.getTiming().iterations === Infinity)"""
# What the Tab key should come to, in this order, and where it is.
STOPS = """() => {
  window.start = (part) => part.outerHTML.slice(0, 120);
  window.stops = [...document.querySelectorAll(
    "a[href], button, textarea, input:not([type=radio]), select, summary, [tabindex='0']")]
    .filter((part) => part.checkVisibility({ visibilityProperty: true }) && !part.disabled && part.tabIndex >= 0);
  // A group of radio buttons is one more stop: the chosen one, or any.
  window.radios = new Set([...document.querySelectorAll("input[type=radio]")]
    .filter((part) => part.checkVisibility({ visibilityProperty: true })).map((part) => part.name)).size;
}"""
STOP = """() => {
  const style = getComputedStyle(document.activeElement);
  const seen = style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2;
  return [stops.indexOf(document.activeElement), seen, start(document.activeElement)];
}"""


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    return visited(context, address)


def visited(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    expect(page.locator("#columns .stage").nth(2)).to_be_visible()
    return page


def tabs(page: Page) -> Iterator[Locator]:
    """Every tab, each opened, drawn and filled."""
    assert FILLED.keys() <= set(page.locator("#tabs [role=tab]").all_inner_texts())
    for tab in page.locator("#tabs [role=tab]").all():
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.locator("[role=tabpanel]:visible").first).not_to_be_empty()
        page.wait_for_function("!document.querySelector('[aria-busy=true]')")
        if tab.inner_text() in FILLED:
            page.locator(FILLED[tab.inner_text()]).wait_for()
        yield tab


def complaints(tab: str, page: Page) -> list[str]:
    """What axe finds serious or worse, a line each."""
    page.wait_for_function(STILL)
    found = Axe().run(page).response["violations"]
    return [
        f"{tab}: {rule['id']} at {node['target']}: {rule['help']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    page: Page, family: LoadedFamily, size: Any, scheme: Literal["light", "dark"]
) -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    found = complaints("before", page)
    send(page, "What is the capital of France?")
    finish(page)
    for tab in tabs(page):
        found += complaints(tab.inner_text(), page)
    assert found == []


def test_the_document_says_what_it_is(page: Page) -> None:
    assert page.title() == "Stagewise"
    assert page.locator("html").get_attribute("lang") == "en"
    assert "every stage of its training" in (page.locator("meta[name=description]").get_attribute("content") or "")
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    for tab in tabs(page):
        levels = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]"
            ".filter((head) => head.checkVisibility()).map((head) => +head.tagName[1])"
        )
        assert levels[0] == 1, tab
        assert all(level <= before + 1 for before, level in itertools.pairwise(levels)), (tab, levels)


def test_it_is_said_at_once_that_these_are_research_models(page: Page) -> None:
    notice = page.get_by_text("their answers are not advice")
    expect(notice).to_contain_text("base and SFT can say wrong or unpleasant things")
    expect(notice).to_be_in_viewport(ratio=1)


def test_it_is_dark_when_the_system_is_and_when_the_address_says_so(context: BrowserContext, address: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = visited(context, address)
    for scheme, colour in (
        ("light", "rgb(255, 255, 255)"),
        ("dark", "rgb(16, 17, 20)"),
        ("light", "rgb(255, 255, 255)"),
    ):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_function(f"{ground} === '{colour}'")
    page = visited(context, f"{address}?__theme=dark")
    page.wait_for_function(f"{ground} === 'rgb(16, 17, 20)'")


def test_presentation_mode_is_large_and_is_remembered(context: BrowserContext, address: str) -> None:
    page = visited(context, address)
    switch = page.get_by_role("button", name="Presentation")
    expect(switch).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(SMALL)
    send(page, "How are you?")
    finish(page)
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    size = "(part) => parseFloat(getComputedStyle(part).fontSize) * part.currentCSSZoom"
    assert page.locator(".written").first.evaluate(size) == pytest.approx(26, abs=0.5)
    expect(page.locator("footer")).to_be_hidden()
    small = [f"{tab.inner_text()}: {part}" for tab in tabs(page) for part in page.evaluate(SMALL)]
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDE["width"]

    again = visited(context, address)
    expect(again.get_by_role("button", name="Presentation")).to_have_attribute("aria-pressed", "true")
    again.get_by_role("button", name="Presentation").click()
    expect(visited(context, address).get_by_role("button", name="Presentation")).to_have_attribute(
        "aria-pressed", "false"
    )


def test_presentation_mode_by_the_address_in_a_browser_that_keeps_nothing(
    context: BrowserContext, address: str
) -> None:
    context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError') } })"
    )
    page = visited(context, f"{address}?present=1")
    switch = page.get_by_role("button", name="Presentation")
    expect(switch).to_have_attribute("aria-pressed", "true")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("width", [390, 768, 1024, 1440])
def test_no_tab_stands_out_of_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for tab in tabs(page):
        box = tab.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab.inner_text()


def test_the_arrow_keys_move_between_tabs(page: Page) -> None:
    # A second tab of its own, so that this holds however many the page has.
    page.evaluate(
        "() => { const [tab] = document.querySelectorAll('#tabs [role=tab]'); const other = tab.cloneNode(true);"
        " other.textContent = 'Other'; tab.parentElement.append(other); }"
    )
    names = page.locator("#tabs [role=tab]").all_inner_texts()
    focused = "document.activeElement.textContent.trim()"
    page.locator("#tabs [role=tab]").first.focus()
    for key, name in (
        ("ArrowRight", names[1]),
        ("ArrowLeft", names[0]),
        ("ArrowLeft", names[-1]),
        ("ArrowRight", names[0]),
        ("End", names[-1]),
        ("Home", names[0]),
    ):
        page.keyboard.press(key)
        assert page.evaluate(focused) == name


def test_the_first_link_skips_to_the_answers(page: Page) -> None:
    page.get_by_role("heading", level=1).click()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("link", name="Skip to the answers")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the answers")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#columns")).to_be_focused()


def test_the_keyboard_reaches_everything_and_is_seen_where_it_is(page: Page) -> None:
    for tab in tabs(page):
        page.evaluate(STOPS)
        reached = []
        page.locator(".skip").focus()
        # To the next stop and back: from here on it is the keyboard that moves.
        for key in ["Tab", "Shift+Tab"] + ["Tab"] * page.evaluate("stops.length - 1 + radios"):
            page.keyboard.press(key)
            number, seen, html = page.evaluate(STOP)
            assert seen, (tab.inner_text(), html)
            if number >= 0:
                reached.append(number)
        missed = page.evaluate(
            "(reached) => stops.filter((_, number) => !reached.includes(number)).map(start)", reached
        )
        assert missed == [], tab.inner_text()
        assert reached[1:] == sorted(reached[1:]), tab.inner_text()


def test_escape_stops_what_is_being_written(page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        for tokens in itertools.count(1):
            time.sleep(0.01)  # what a token takes
            yield Answer("on and on", tokens, False)

    for stage, model in family.models.items():
        monkeypatch.setitem(family.models, stage, speaking(model, endless))
    send(page, "How are you?")
    expect(page.locator(".stage[data-state=writing]")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator(".stage[data-state=halted]")).to_have_count(3)


def test_a_screen_reader_hears_each_answer_once_and_whole(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.answering.SECONDS_BETWEEN_VIEWS", 0)
    for stage, model in family.models.items():
        text = f"I am {stage} and I am well."
        stream = say(*(text[:end] for end in range(1, len(text) + 1)))
        monkeypatch.setitem(family.models, stage, speaking(model, stream))
    for _ in range(2):
        page.locator(".stage").evaluate_all("(stages) => stages.forEach((stage) => (stage.dataset.state = 'before'))")
        send(page, "How are you?")
        finish(page)
        heard = page.get_by_role("log", name="Answers").locator("p")
        expect(heard).to_have_count(3)
        lines = sorted(heard.all_text_contents())
        for line, stage, name in zip(lines, ("base", "rlhf", "sft"), ("Base", "RLHF", "SFT"), strict=True):
            assert line.startswith(name)
            assert f"I am {stage} and I am well." in line
            assert "Stopped by itself" in line
            assert "Reward" in line
    # A column that begins later than another ended leaves that one's answer to be heard.
    page.locator(".stage").last.evaluate(
        "(stage) => { stage.dataset.state = 'waiting'; stage.append(document.createElement('i')); }"
    )
    expect(heard).to_have_count(2)


def test_it_is_painted_soon_and_nothing_jumps(context: BrowserContext, address: str) -> None:
    context.add_init_script(WATCH)
    page = visited(context, address)
    send(page, "Tell me something")
    finish(page)
    [paint] = page.evaluate("performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)")
    shifts = page.evaluate(
        "shifts.map(({ value, startTime, sources }) =>"
        " [value, Math.round(startTime), ...sources.map(({ node }) => node?.outerHTML?.slice(0, 80))])"
    )
    total = sum(shift[0] for shift in shifts)
    print(f"first contentful paint after {paint:.0f} ms, cumulative layout shift {total:.4f}")
    assert paint < FIRST_PAINT
    assert total < 0.02, [shift for shift in shifts if shift[0] > 0.001]


def test_the_page_of_calls_opens_and_asks_no_other_host(browser: Browser, address: str) -> None:
    for page in opened(browser, address):
        page.get_by_role("button", name="API").click()
        expect(page.get_by_text("Available MCP Tools")).to_be_visible()
