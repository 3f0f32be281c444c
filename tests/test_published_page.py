"""The page with families that others trained: fewer columns, other names, and a plain line for what is not there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import app
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from tests.browsing import PATIENCE, send, served
from tests.families import random_tokenizer
from tests.hub import Hub
from tests.published import REVISION, chat_tokenizer, family_file, hub_here, save_answering, save_reward, upload
from tests.served import Server, running_server
from ui.answering import LoadedFamily, Request, View, load
from ui.columns import column
from ui.sharing import as_markdown, as_record, described

REQUEST = Request(1, "Why <i>?", Decoding(max_new_tokens=12))
ABOUT = "Learned from <one> teacher."


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("models")
    with hub_here(tmp_path_factory.mktemp("cache")) as hub:
        for seed, name in enumerate(("base", "chat")):
            save_answering(folder / name, "qwen3", seed)
            upload(hub, f"lab/{name}", folder / name)
        save_reward(folder / "judge", "llama")
        upload(hub, "lab/judge", folder / "judge")
        yield hub


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def pair(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> LoadedFamily:
    """Two stages, and no reward model."""
    file = tmp_path_factory.mktemp("families") / "pair.yaml"
    return load(family_file(file, {"base": at("base"), "dpo": at("chat", about=ABOUT)}))


def at(name: str, **more: Any) -> dict[str, Any]:
    return {"repo": f"lab/{name}", "revision": REVISION, **more}


def last_views(family: LoadedFamily, request: Request) -> dict[str, View]:
    """How each column ends, all of them filling at the same time."""
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda stage: list(family.views(stage, request))[-1], family.models)
        return dict(zip(family.models, found, strict=True))


@pytest.fixture
def page(browser: Browser, pair: LoadedFamily) -> Iterator[Page]:
    for address in served(pair):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.locator(".stage").nth(1).wait_for()
        yield page
        page.close()


def test_two_stages_without_a_reward_answer_in_their_columns(page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    expect(page.locator(".stage h2")).to_have_text(["Base after pre-training", "DPO after pairs of answers"])
    expect(page.locator(".stage .source")).to_have_text(["lab/base", "lab/chat"])
    expect(page.locator("#notes")).to_have_text(
        "the family leaves out SFT and RLHF, and so does the page; "
        "the family has no reward model, so answers get no rewards."
    )
    expect(page.locator("#guess-mode, .stage .reward:visible, #rewards:visible")).to_have_count(0)
    send(page, "Who are you?")
    expect(page.locator(".stage:is([data-state=stopped], [data-state=cut])")).to_have_count(2)
    assert all(text.strip() for text in page.locator(".written").all_inner_texts())
    expect(page.locator(".stage.base .given")).to_have_text("Who are you?")
    widths = page.locator(".stage").evaluate_all("(parts) => parts.map((part) => part.offsetWidth)")
    assert sum(widths) > 0.8 * page.locator("#columns").evaluate("(part) => part.offsetWidth")
    lines = {
        "Reward": "no reward model",
        "Rank": "was trained elsewhere",
        "Training": "was trained elsewhere",
        "Report card": "was trained elsewhere",
        "Lesson": "a family that was trained here",
    }
    for tab, line in lines.items():
        page.get_by_role("tab", name=tab).click()
        expect(page.locator("[role=tabpanel]:visible")).to_contain_text(line)
    page.get_by_role("tab", name="Tokens").click()
    page.locator("#token-send").click()
    expect(page.locator("#token-answer [role=option]").first).to_be_visible()
    expect(page.locator("#token-lists .side h3")).to_have_count(2)
    assert errors == []


def test_a_saved_comparison_says_who_published_its_models(pair: LoadedFamily) -> None:
    views = list(last_views(pair, REQUEST).values())
    record = as_record(REQUEST, views, pair.name, described(pair))
    assert record["models"]["dpo"] == {"repo": "lab/chat", "revision": "main"}
    assert "- dpo: repo `lab/chat`, revision `main`" in as_markdown(record, views)


def test_what_a_family_file_says_of_a_stage_is_escaped(pair: LoadedFamily) -> None:
    drawn = column(pair.first_view("dpo"), pair.scale)
    assert "Learned from &lt;one&gt; teacher." in drawn
    assert "lab/chat" not in column(pair.first_view("dpo"), pair.scale, "A", hidden=True)


def test_base_gets_the_chat_format_of_its_own_model(pair: LoadedFamily) -> None:
    asked = Request(2, "Why?", Decoding(max_new_tokens=4), chat_format=True)
    *_, last = pair.views("base", asked)
    assert last.state != "failed"
    assert "&lt;|im_start|&gt;user\nWhy?&lt;|im_end|&gt;" in column(last, pair.scale)


def test_servers_fail_in_their_own_column_and_the_reward_model_scores_the_rest(
    hub: Hub, server: Server, tmp_path: Path
) -> None:
    def on_server(model: str) -> dict[str, Any]:
        return {"endpoint": server.address, "model": model, "seconds": 0.3 if model == "stalled" else 60}

    stages = {"base": at("base"), "sft": on_server("good"), "dpo": on_server("stalled"), "rlhf": on_server("broken")}
    family = load(family_file(tmp_path / "mixed.yaml", {**stages, "reward": at("judge", scale=[-20, 20])}))
    assert (family.columns, family.scale) == (("base", "sft", "dpo", "rlhf"), (-20, 20))
    views = last_views(family, REQUEST)
    assert [view.state for view in views.values()][1:] == ["stopped", "failed", "failed"]
    assert views["base"].state in ("stopped", "cut")
    assert views["base"].reward is not None
    assert views["sft"].reward is not None
    assert views["sft"].text == "Chat: Why <i>? € <b>"
    assert views["sft"].source == f"good at {server.address.split('/')[2]}"
    assert "said nothing for 0.3 s" in views["dpo"].error
    assert "Chat: Why <i>?".startswith(views["dpo"].text)
    assert "out of memory" in views["rlhf"].error
    # What is read token by token, and drawn many times, is what runs here.
    assert list(family.readers) == list(family.local) == ["base"]


def test_a_stop_reaches_the_server(server: Server, tmp_path: Path) -> None:
    endless = {"endpoint": server.address, "model": "endless"}
    family = load(family_file(tmp_path / "endless.yaml", {"sft": endless}))
    assert (family.parameters, family.readers) == (0, {})
    server.left.clear()
    request = Request(3, "Go on", Decoding())
    views = family.views("sft", request)
    assert next(view for view in views if view.state == "writing").text
    request.halted.set()
    assert list(views)[-1].state == "halted"
    assert server.left.wait(60)


def test_stages_that_cut_text_differently_are_not_read(hub: Hub, tmp_path: Path) -> None:
    save_answering(tmp_path / "other", "llama", 3)
    random_tokenizer().save_pretrained(tmp_path / "other")
    upload(hub, "lab/other", tmp_path / "other")
    assert load(family_file(tmp_path / "two.yaml", {"base": at("base"), "sft": at("other")})).readers == {}
    chat_tokenizer(vocabulary=350).save_pretrained(tmp_path / "other")
    upload(hub, "lab/fewer", tmp_path / "other")
    assert load(family_file(tmp_path / "few.yaml", {"base": at("base"), "sft": at("fewer")})).readers


def test_a_family_out_of_reach_is_one_line_and_exit_code_2(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--family", str(family_file(tmp_path / "none.yaml", {"sft": at("none")}))]) == 2
    assert capsys.readouterr().err.startswith("error: the Hub refuses 'lab/none' (404)")
    upload(hub, "lab/pickled", tmp_path).files = {"pytorch_model.bin": b"x"}
    with pytest.raises(InputError, match="cannot answer: sft is left out: lab/pickled has no safetensors"):
        load(family_file(tmp_path / "pickled.yaml", {"sft": at("pickled")}))
