"""Links, history and files of a comparison: the functions, and the real page in a real browser."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from tests.browsing import PATIENCE, say, send
from tests.families import speaking
from ui.answering import LoadedFamily, Request, View
from ui.sharing import READABLE, as_markdown, as_record, fenced, link, offered, read_link, slug, span, trained

SETTINGS: dict[str, gr.Slider | gr.Number] = {
    "temperature": gr.Slider(0, 2, 0.3, step=0.05),
    "length": gr.Slider(8, 128, 96, step=8),
    "seed": gr.Number(0, precision=0, minimum=0, maximum=2**31),
}
REQUEST = Request(1, "¿Qué? 1+1 & 100 %", Decoding(max_new_tokens=24, temperature=0.35, top_p=0.9, seed=7))
HARD = "# no heading\n```\n| $x_1$ \\n \\\\frac{1}{2} <b>bold</b> ````` 你好 \N{PARTY POPPER} {{value}} ${1+1}"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that remembers nothing yet and lets a page use the clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    return arrive(context.new_page(), address)


def arrive(page: Page, address: str, columns: int = 3) -> Page:
    page.goto(address)
    expect(page.locator(".stage")).to_have_count(columns)
    return page


def full(page: Page) -> None:
    """Wait until the files are on offer."""
    expect(button(page, "JSON")).to_be_enabled()


def button(page: Page, name: str) -> Any:
    return page.locator("#sharing").get_by_role("button", name=name)


def answers(page: Page) -> list[str | None]:
    return [answer.text_content() for answer in page.locator(".written").all()]


def download(page: Page, name: str) -> tuple[str, bytes]:
    with page.expect_download() as event:
        button(page, name).click()
    return event.value.suggested_filename, Path(event.value.path()).read_bytes()


def query(**parameters: Any) -> str:
    return "?" + urlencode(parameters)


def views(request: Request, **texts: str) -> Request:
    for stage, text in texts.items():
        request.latest[stage] = View(stage, "stopped", request.prompt, text=text, tokens=3, reward=0.5)
    return request


def test_a_link_says_what_it_was_made_of(family: LoadedFamily) -> None:
    read = read_link(flat(link(REQUEST, ["base", "sft"])), SETTINGS, family)
    assert read == {
        "prompt": REQUEST.prompt,
        "seed": 7,
        "temperature": 0.35,
        "length": 24,
        "stages": ["base", "sft"],
    }
    assert "stages" not in link(REQUEST, ["base", "sft", "rlhf"])
    # No encoding holds half of a surrogate pair, but a browser can send one.
    assert link(Request(1, "\ud800", Decoding()), ["base"]).startswith("?prompt=%3F&")


def flat(link: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(link.removeprefix("?")).items()}


def test_a_link_may_leave_things_out_and_name_stages_in_any_order(family: LoadedFamily) -> None:
    assert read_link({}, SETTINGS, family) == {}
    assert read_link({"stages": "rlhf,base", "__theme": "dark"}, SETTINGS, family) == {"stages": ["base", "rlhf"]}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"stages": "base,dpo"}, "there is no stage 'dpo'"),
        ({"stages": ""}, "there is no stage ''"),
        ({"temperature": "2.5"}, "from 0 to 2"),
        ({"temperature": "nan"}, "a number from"),
        ({"temperature": "warm"}, "'warm'"),
        ({"length": "1e2"}, "a whole number from 8 to 128"),
        ({"length": "1000"}, "from 8 to 128"),
        ({"seed": "-1"}, "seed is '-1'"),
        ({"seed": "9" * 5000}, "seed is"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a" * 513}, "the prompt has 513 characters"),
    ],
)
def test_a_bad_link_is_refused(family: LoadedFamily, bad: Mapping[str, str], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read_link(bad, SETTINGS, family)


def test_files_are_offered_once_every_shown_column_is_full(family: LoadedFamily) -> None:
    request = views(Request(1, "Hello", Decoding()), base="one", sft="two")
    assert set(offered(request, ["base", "sft", "rlhf"], family, {})) == {"link"}
    offer = offered(request, ["base", "sft"], family, {})
    assert set(offer) == {"link", "name", "markdown", "json", "picture"}
    assert list(json.loads(offer["json"])["answers"]) == ["base", "sft"]


def test_no_text_breaks_the_markdown(family: LoadedFamily) -> None:
    request = views(Request(1, HARD, Decoding()), base=HARD, sft="")
    shown = list(request.latest.values())
    text = as_markdown(as_record(request, shown, "a`b", trained(family.files)), shown)
    outside = []
    inside = ""
    for line in text.splitlines():
        if not inside and line.startswith("```"):
            inside = line.removesuffix("text")
        elif line == inside:
            inside = ""
        elif not inside:
            outside.append(line)
    assert not inside
    assert [line for line in outside if line.startswith("#")] == [
        "# One prompt, every stage of training",
        "## Base, after pre-training",
        "## SFT, after demonstrations",
        "## The models",
    ]
    assert "<b>" not in "".join(outside)
    assert "Family `` a`b ``" in text
    assert text.count(HARD) == 2
    assert fenced("a```b").startswith("````text\n")
    assert span("plain") == "`plain`"


def test_a_file_is_named_after_the_prompt() -> None:
    assert slug("What is the capital of France?") == "what-is-the-capital-of-france"
    assert slug("../../etc/passwd\0") == "etc-passwd"
    assert slug("你好") == "你好"
    assert slug("?!") == "prompt"
    assert len(slug("word " * 100)) <= 40


def test_a_record_names_the_weights(family: LoadedFamily) -> None:
    record = as_record(views(REQUEST, base="one"), list(REQUEST.latest.values()), family.name, trained(family.files))
    assert list(record["models"]) == ["base", "sft", "rlhf", "reward"]
    for stage, model in record["models"].items():
        files = family.files.checkpoint(stage).record["files"]
        assert model["weights_sha256"] == files["model.safetensors"]
        assert model["recipe"] == "nano"


def test_a_permalink_fills_sends_and_answers_like_typing(page: Page, context: BrowserContext, address: str) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("number input for Temperature").fill("0.9")
    page.get_by_label("number input for Length").fill("16")
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Seed").press("Tab")
    send(page, "Tell me a story & more")
    full(page)
    other = arrive(
        context.new_page(), address + query(prompt="Tell me a story & more", seed=5, temperature=0.9, length=16)
    )
    full(other)
    expect(other.get_by_label("Prompt")).to_have_value("Tell me a story & more")
    assert answers(other) == answers(page)
    assert all(answers(page))
    other.get_by_role("button", name="Settings").click()
    expect(other.get_by_label("Seed")).to_have_value("5")
    expect(other.get_by_label("number input for Temperature")).to_have_value("0.9")
    expect(other.get_by_label("number input for Length")).to_have_value("16")
    expect(other.get_by_role("alert")).to_have_count(0)


def test_only_shown_columns_are_asked_and_settings_bring_the_others_back(
    context: BrowserContext, address: str, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def views(stage: str, request: Request) -> Iterator[View]:
        asked.append(stage)
        return LoadedFamily.views(family, stage, request)

    monkeypatch.setattr(family, "views", views)
    page = arrive(context.new_page(), address + query(prompt="Hello", stages="rlhf,base"), columns=2)
    full(page)
    expect(page.locator("#notice")).to_contain_text("Base and RLHF only")
    assert [stage.get_attribute("class") for stage in page.locator(".stage").all()] == ["stage base", "stage rlhf"]
    boxes = [stage.bounding_box() for stage in page.locator(".stage").all()]
    assert boxes[0]["y"] == boxes[1]["y"]  # type: ignore[index]
    _, text = download(page, "JSON")
    two = json.loads(text)["answers"]
    assert list(two) == ["base", "rlhf"]
    assert sorted(asked) == ["base", "rlhf"]
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("SFT", exact=True).check()
    expect(page.locator(".stage")).to_have_count(3)
    page.wait_for_url(lambda url: "prompt=Hello" in url and "stages" not in url)
    full(page)
    _, text = download(page, "JSON")
    three = json.loads(text)["answers"]
    assert list(three) == ["base", "sft", "rlhf"]
    assert three == two | {"sft": three["sft"]}
    assert sorted(asked) == ["base", "rlhf", "sft"]


@pytest.mark.parametrize("bad", [{"prompt": "Hello", "stages": "<b>x"}, {"prompt": "a" * 600}, {"seed": "many"}])
def test_a_bad_link_is_a_message_and_nothing_is_sent(context: BrowserContext, address: str, bad: Any) -> None:
    page = arrive(context.new_page(), address + query(**bad))
    expect(page.get_by_role("alert")).to_contain_text("The link cannot be opened")
    expect(page.get_by_label("Prompt")).to_have_value("")
    expect(button(page, "Share")).to_be_disabled()
    assert {stage.get_attribute("data-state") for stage in page.locator(".stage").all()} == {"idle"}


def test_share_copies_a_link_that_opens_the_same(page: Page, context: BrowserContext) -> None:
    expect(button(page, "Share")).to_be_disabled()
    send(page, "¿Cómo estás? 1+1 & 100 %")
    full(page)
    # What is shown is shared, not what is being typed.
    page.get_by_label("Prompt").fill("something else")
    button(page, "Share").click()
    expect(page.get_by_text("Link copied")).to_be_visible()
    shared = page.evaluate("navigator.clipboard.readText()")
    assert shared == page.url
    expect(page.get_by_label("Link to this comparison")).to_have_value(shared)
    assert page.evaluate("getSelection().toString()") == shared
    page.keyboard.press("Escape")
    expect(page.get_by_text("Link copied")).to_be_hidden()
    other = arrive(context.new_page(), shared)
    full(other)
    expect(other.get_by_label("Prompt")).to_have_value("¿Cómo estás? 1+1 & 100 %")
    assert answers(other) == answers(page)
    # The address goes on standing for what the page shows.
    send(other, "Something new")
    other.wait_for_url(re.compile("prompt=Something"))


def test_without_a_clipboard_the_link_can_be_copied_by_hand(browser: Browser, address: str) -> None:
    page = arrive(browser.new_page(), address)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    send(page, "Hello")
    full(page)
    button(page, "Share").click()
    expect(page.get_by_text("Copy this link")).to_be_visible()
    expect(page.get_by_label("Link to this comparison")).to_have_value(page.url)
    page.close()


def test_history_outlives_the_page_and_asks_again(page: Page) -> None:
    page.get_by_role("button", name="History").click()
    entries = page.locator("#history li")
    for prompt in ("First", "<b>Second</b>", "First"):
        page.get_by_label("Prompt").fill(prompt)
        page.get_by_label("Prompt").press("Enter")
        expect(entries.first).to_contain_text(prompt)
    page.reload()
    page.get_by_role("button", name="History").click()
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("First")
    expect(entries.last).to_contain_text("<b>Second</b>")
    entries.last.get_by_role("button").click()
    expect(page.get_by_label("Prompt")).to_have_value("<b>Second</b>")
    expect(page.locator(".stage.base .given")).to_have_text("<b>Second</b>")
    expect(entries.first).to_contain_text("Second")
    page.get_by_role("button", name="Clear history").click()
    expect(entries).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="History").click()
    expect(page.get_by_role("button", name="Clear history")).to_be_hidden()
    expect(entries).to_have_count(0)


def test_a_spoilt_history_is_begun_anew(page: Page) -> None:
    page.evaluate("localStorage.setItem('stagewise-history', 'spoilt:spoilt')")
    page.reload()
    page.get_by_role("button", name="History").click()
    send(page, "After")
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history li")).to_contain_text("After")
    # What can be read, but is no history, is left out.
    for stored, kept in (({"a": 1}, []), ([None, "x", {"link": 1}, {"link": "?prompt=a"}], [{"link": "?prompt=a"}])):
        assert page.evaluate(f"(stored) => ({READABLE})(stored)", stored) == [kept]


def test_every_file_holds_what_the_page_shows(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"base": HARD, "sft": "word " * 300 + "\N{PARTY POPPER}" * 200, "rlhf": ""}
    for stage, text in texts.items():
        monkeypatch.setitem(family.models, stage, speaking(family.models[stage], say(text)))
    for name in ("Markdown", "JSON", "Picture"):
        expect(button(page, name)).to_be_disabled()
    send(page, "Tell me: $1 or ```2```?")
    full(page)
    name, data = download(page, "JSON")
    assert name == "stagewise-tell-me-1-or-2-seed-0.json"
    record = json.loads(data)
    assert record["prompt"] == "Tell me: $1 or ```2```?"
    assert record["family"] == "random"
    assert [answer["text"] for answer in record["answers"].values()] == answers(page) == list(texts.values())
    shown = page.locator(".number").all_inner_texts()
    assert [f"{answer['reward']:+.2f}".replace("-", "\N{MINUS SIGN}") for answer in record["answers"].values()] == shown
    name, data = download(page, "Markdown")
    assert name.endswith("-seed-0.md")
    assert all(text in data.decode() for text in texts.values())
    name, data = download(page, "Picture")
    assert name.endswith("-seed-0.png")
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.width == 2 * (2 * 48 + 3 * 368 + 2 * 48)
    # 24 lines and one that says how many more there are: a long answer makes no endless picture.
    assert picture.height == 2 * (48 + 44 + 32 + 30 + 62 + 25 * 27 + 18 + 130 + 54)
    drawn = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}
    assert {(0x86, 0x8C, 0x96), (0x2F, 0x6F, 0xDB), (0xDD, 0x8F, 0x00)} <= drawn


def test_a_picture_of_one_column_in_the_dark(browser: Browser, address: str) -> None:
    page = arrive(
        browser.new_page(color_scheme="dark"), address + query(prompt="Hello", length=8, stages="sft"), columns=1
    )
    full(page)
    _, data = download(page, "Picture")
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.width == 2 * (2 * 48 + 2 * 368 + 48)
    assert picture.getpixel((0, 0)) == (0x10, 0x11, 0x14)
    page.close()
