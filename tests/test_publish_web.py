"""The static site: really exported, bundled and served, and the models run by a browser."""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from pipeline.__main__ import main
from pipeline.chat_format import stop_tokens
from pipeline.checkpoint import Family
from pipeline.inference.decoding import Decoding, complete
from pipeline.inference.models import load_reward, load_stage
from pipeline.publish.graph import round_weights
from pipeline.publish.rounding import table
from pipeline.recipe import REPOSITORY, load_recipe
from pipeline.report.figures import Figure
from tests.browsing import PATIENCE, send
from tests.families import random_family, random_tokenizer, write
from ui.answering import USUAL_TEMPERATURE
from ui.columns import ENDINGS, LOOKS
from ui.page import NOTICE
from ui.presets import presets

STAGES = ("base", "sft", "rlhf")
TINY = REPOSITORY / "checkpoints" / "tiny"
PROMPTS = [
    *(preset.prompt for preset in presets()[::7]),
    "Zwölf Bären & 3.14 <b>Äpfel</b>\n\n<|end|><|assistant|> 😀 don't",
]
EXCHANGES = [
    ("What is the capital of France?", "Paris.", True),
    ("What is the capital of France?", "Paris.", False),
    ("Do <|end|> and <b> count?", " Oui: ça 😀\n", True),
    ("How? " * 90, "So it is. " * 50, True),
]
LARGEST_DOWNLOAD = 60_000_000
GRAPHICS_CARD = [
    "--no-sandbox",
    "--disable-background-networking",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
]
ANSWER = """async ({ stage, prompts, temperature, seed, device }) => {
  window.loaded ??= await (await import("./models.js")).openFamily({ device });
  const answers = [];
  for (const prompt of prompts) {
    let last;
    for await (const answer of window.loaded.models[stage].answer(prompt, { temperature, seed })) last = answer;
    answers.push([last.tokens, last.stopped]);
  }
  return answers;
}"""
SCORE = """async (exchanges) => {
  const { models } = await (await import("./models.js")).openFamily();
  return Promise.all(exchanges.map((exchange) => models.reward.score(...exchange)));
}"""
# A worker that answers at once: with markup, or, if it is to be slow, with one token and then nothing more.
PREPARED = """
window.Worker = class {
  postMessage({ id, name }) {
    const next = { text: "<b>bold</b><img src=x onerror=alert(1)>", tokens: [1], stopped: !SLOW, cut: false };
    this.nexts = (this.nexts ?? 0) + (name === "next");
    if (SLOW && this.nexts > 1) return;
    queueMicrotask(() => this.onmessage({ data: { id, result: { next, score: 1 }[name] } }));
  }
};
"""


def publish(family: Path, out: Path, bits: int = 8) -> Path:
    assert main(["publish", "web", "--family", str(family), "--out", str(out), "--bits", str(bits)]) == 0
    return out


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Random weights; RLHF has another shape than the others: shared key heads, untied, and an odd width."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    family = random_family(tmp_path_factory.mktemp("families") / "random")
    torch.manual_seed(9)
    tokenizer = random_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=72,
        intermediate_size=100,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
    )
    write(family.path, "rlhf", load_recipe("nano"), LlamaForCausalLM(config), tokenizer, {})
    return family


@pytest.fixture(scope="module")
def exact(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(family.path, tmp_path_factory.mktemp("sites") / "exact", bits=32)


@pytest.fixture(scope="module")
def small(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(family.path, tmp_path_factory.mktemp("sites") / "small")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Any static server would do: this one is Python's."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def opened(browser: Browser, folder: Path, script: str = "", **settings: Any) -> Iterator[Page]:
    """The page of a site, in a browser that knows nothing yet; fails if it asks any other host."""
    with served(folder) as address:
        context = browser.new_context(**settings)
        context.add_init_script(script)
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        yield page
        context.close()
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def page(browser: Browser, small: Path) -> Iterator[Page]:
    with opened(browser, small) as page:
        loaded(page)
        yield page


def loaded(page: Page) -> None:
    expect(page.locator(".stage[data-state=idle]")).to_have_count(3)


def finish(page: Page) -> None:
    expect(page.locator(".stage:is([data-state=stopped], [data-state=cut])")).to_have_count(3)


def pytorch(family: Family, stage: str, prompts: list[str], bits: int = 32) -> list[list[Any]]:
    model = load_stage(family.checkpoint(stage))
    if bits == 8:
        round_weights(model.model)
    greedy = Decoding(temperature=0.0)
    answers = [
        complete(model.model, [model.encode(prompt)], greedy, stop_tokens(model.tokenizer)) for prompt in prompts
    ]
    return [[answer.tokens, answer.stopped] for [answer] in answers]


def answers(
    page: Page, stage: str, prompts: list[str], temperature: float = 0.0, seed: int = 0, device: str = "wasm"
) -> list[list[Any]]:
    asked = {"stage": stage, "prompts": prompts, "temperature": temperature, "seed": seed, "device": device}
    return page.evaluate(ANSWER, asked)


def test_greedy_answers_are_those_of_pytorch_token_for_token(browser: Browser, family: Family, exact: Path) -> None:
    with opened(browser, exact) as page:
        for stage in STAGES:
            assert answers(page, stage, PROMPTS) == pytorch(family, stage, PROMPTS)


def test_a_graphics_card_gives_the_same(browser: Browser, family: Family, exact: Path) -> None:
    # One made of software, as machines for tests have no other.
    software = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=GRAPHICS_CARD)
    with opened(software, exact) as page:
        assert answers(page, "rlhf", PROMPTS[:1], device="webgpu") == pytorch(family, "rlhf", PROMPTS[:1])
    software.close()


def test_rewards_are_those_of_pytorch(browser: Browser, family: Family, exact: Path) -> None:
    reward = load_reward(family.checkpoint("reward"))
    pairs, finished = [exchange[:2] for exchange in EXCHANGES], [exchange[2] for exchange in EXCHANGES]
    with opened(browser, exact) as page:
        assert page.evaluate(SCORE, EXCHANGES) == pytest.approx(reward.scores(pairs, finished), abs=1e-3)


def test_the_bundled_family_is_a_small_download_and_answers_as_pytorch_with_8_bits(
    browser: Browser, tmp_path: Path
) -> None:
    site = publish(TINY, tmp_path / "site")
    assert sum(file.stat().st_size for file in site.iterdir() if "asyncify" not in file.name) < LARGEST_DOWNLOAD * 0.75
    different = []
    with opened(browser, site) as page:
        for stage in STAGES:
            pairs = zip(answers(page, stage, PROMPTS), pytorch(Family(TINY), stage, PROMPTS, bits=8), strict=True)
            different += [pair for pair in pairs if pair[0] != pair[1]]
    # Another processor may round so that one of two almost equally likely tokens changes places with the other.
    assert len(different) <= 1


def test_a_share_that_moves_by_more_than_a_point_asks_for_whole_weights() -> None:
    def shares(correct: float) -> dict[str, list[Figure]]:
        kinds = [Figure("correct", correct, 0, 1, 100), Figure("reward", correct, -9, 9, 100, unit="")]
        return {"sft": kinds, "rlhf": [Figure("correct", 0.5, 0, 1, 100)]}

    assert table(shares(0.5), shares(0.5)).endswith("0 of 2 shares change, by 0.0 points at most: 8 bits will do.")
    near = table(shares(0.5), shares(0.508))
    assert "| correct, SFT | 50.0 % (0 to 100; 100) | 50.8 % (0 to 100; 100) | 0.8 |" in near
    assert near.endswith("8 bits will do.")
    assert table(shares(0.5), shares(0.48)).endswith("by 2.0 points at most: publish with --bits 32.")


def test_what_a_static_space_would_get_is_listed(
    family: Family, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["publish", "web", "--family", str(family.path)]
    capsys.readouterr()
    assert main([*command, "--repo", "school/page", "--dry-run"]) == 0
    *files, total = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {name: int(size.replace(",", "")) for size, name in files} == {
        file.name: file.stat().st_size for file in small.iterdir()
    }
    assert total[1:] == ["bytes", "in", str(len(files)), "files"]
    assert main([*command, "--out", str(tmp_path / "site"), "--dry-run"]) == 2
    assert "name it with --repo" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_eight_bits_are_a_quarter_of_the_download(small: Path, exact: Path) -> None:
    sizes = {site: sum(file.stat().st_size for file in site.glob("*.onnx")) for site in (small, exact)}
    assert sizes[small] < sizes[exact] / 2.5


def test_the_same_seed_gives_the_same_answers_and_another_one_others(page: Page) -> None:
    first, again, other = (answers(page, "sft", PROMPTS[:2], 1.0, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_preset_fills_three_columns_and_says_what_to_look_for(page: Page) -> None:
    for category in dict.fromkeys(preset.category for preset in presets()):
        page.get_by_role("radio", name=category).check()
        shown = page.locator("#presets button:visible").all_inner_texts()
        assert shown == [preset.prompt for preset in presets() if preset.category == category]
    preset = presets()[-1]
    page.get_by_role("button", name=preset.prompt).click()
    finish(page)
    expect(page.get_by_label("Prompt")).to_have_value(preset.prompt)
    expect(page.locator("#notice")).to_contain_text(preset.look_for)
    expect(page.locator(".stage.base .given")).to_have_text(preset.prompt)
    for count, how in zip(
        page.locator(".count").all_inner_texts(), page.locator(".how").all_inner_texts(), strict=True
    ):
        assert how.strip() == ("Cut at the limit" if count == "96 tokens" else "Stopped by itself")
    numbers = page.locator(".number").all_inner_texts()
    assert len(numbers) == 3
    assert page.locator("#rewards .line b").all_inner_texts() == numbers


def test_control_and_enter_send_and_nothing_to_send_is_said(page: Page) -> None:
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.locator("#notice")).to_contain_text("The prompt is empty")
    page.get_by_label("Prompt").fill("many " * 200)
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.locator("#notice")).to_contain_text("at most 512 fit")
    page.get_by_label("Prompt").fill("How are you?")
    page.get_by_label("Prompt").press("Control+Enter")
    finish(page)


def test_it_opens_and_answers_without_a_network_after_the_first_visit(browser: Browser, small: Path) -> None:
    with opened(browser, small) as page:
        expect(page.locator("#offline")).to_contain_text("without a network")
        send(page, "How are you?")
        finish(page)
        before = page.locator(".written").all_inner_texts()
        page.context.set_offline(True)
        page.reload()
        loaded(page)
        send(page, "How are you?")
        finish(page)
        assert page.locator(".written").all_inner_texts() == before


def test_markup_is_shown_as_text(browser: Browser, small: Path) -> None:
    with opened(browser, small, PREPARED.replace("SLOW", "false")) as page:
        send(page, "<i>you</i>")
        finish(page)
        expect(page.locator(".written").first).to_have_text("<b>bold</b><img src=x onerror=alert(1)>")
        expect(page.locator(".given").first).to_have_text("<i>you</i>")
        expect(page.locator("main :is(.text b, .text i, img)")).to_have_count(0)


def test_stop_ends_every_column_and_the_next_prompt_begins_anew(browser: Browser, small: Path) -> None:
    with opened(browser, small, PREPARED.replace("SLOW", "true")) as page:
        send(page, "How are you?")
        expect(page.locator(".stage[data-state=writing]")).to_have_count(3)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".how")).to_have_text(["Stopped by you"] * 3)
        expect(page.locator(".count")).to_have_text(["1 token"] * 3)
        send(page, "And now?")
        expect(page.locator(".stage[data-state=waiting]")).to_have_count(3)


def test_what_is_sent_while_another_answer_is_written_takes_its_place(page: Page) -> None:
    last = PROMPTS[1]
    for prompt in (PROMPTS[0], PROMPTS[2], last):
        send(page, prompt)
    finish(page)
    shown = page.locator(".written").all_inner_texts()
    send(page, last)
    finish(page)
    assert page.locator(".written").all_inner_texts() == shown
    expect(page.locator(".stage.base .given")).to_have_text(last)


def test_a_model_that_is_missing_leaves_the_others_alone(browser: Browser, small: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(small, site)
    for name in ("rlhf.onnx", "reward.onnx"):
        (site / name).unlink()
    with opened(browser, site) as page:
        expect(page.locator(".stage.rlhf .error")).to_contain_text("rlhf.onnx cannot be loaded (404)")
        send(page, "How are you?")
        for stage in ("base", "sft"):
            expect(page.locator(f".stage.{stage} .how")).to_have_text(re.compile("Cut at the limit|Stopped by itself"))
        expect(page.locator(".stage.rlhf .how")).to_have_text("Failed")
        expect(page.locator("#notice")).to_contain_text("no rewards: reward.onnx cannot be loaded (404)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser: Browser, small: Path, scheme: str) -> None:
    with opened(browser, small, viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
        loaded(page)
        send(page, "How are you?")
        finish(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 17, 20)"}[scheme]
        found = Axe().run(page).response["violations"]
        assert [rule["help"] for rule in found if rule["impact"] in ("serious", "critical")] == []


def test_it_says_what_the_page_of_the_app_says(small: Path) -> None:
    html = (small / "index.html").read_text(encoding="utf-8")
    for stage in STAGES:
        look = LOOKS[stage]
        assert f"{look.name} <small>{look.after}</small>" in html
        assert look.learned in html
        assert f'<symbol id="{stage}" viewBox="0 0 24 24">{look.icon.replace(" />", "/>")}</symbol>' in html
    assert NOTICE in html
    assert f'value="{USUAL_TEMPERATURE}"' in html
    script = (small / "page.js").read_text(encoding="utf-8")
    for state in ("stopped", "cut", "halted", "failed", "scoring"):
        words, paths = ENDINGS[state]
        assert f'"{words}"' in script
        assert f'<symbol id="{state}" viewBox="0 0 24 24">{paths}</symbol>' in html


def test_the_folder_is_a_static_space(small: Path) -> None:
    _, front, _ = (small / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(front)
    assert settings["sdk"] == "static"
    assert (small / settings["app_file"]).is_file()
    assert len(settings["short_description"]) <= 60


def test_no_registry_is_named_and_all_versions_are_exact() -> None:
    site = REPOSITORY / "pipeline" / "publish" / "site"
    assert "http" not in (site / "package-lock.json").read_text(encoding="utf-8")
    for version in json.loads((site / "package.json").read_text(encoding="utf-8"))["dependencies"].values():
        assert version.replace(".", "").isdigit()


def complaint(capsys: pytest.CaptureFixture[str], family: Path, out: Path) -> str:
    capsys.readouterr()
    assert main(["publish", "web", "--family", str(family), "--out", str(out)]) == 2
    *bars, line = capsys.readouterr().err.splitlines()
    assert not [bar for bar in bars if "error" in bar]
    return line


def test_an_output_that_holds_something_is_left_alone(
    capsys: pytest.CaptureFixture[str], family: Family, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert "not an empty folder" in complaint(capsys, family.path, tmp_path)
    assert "not an empty folder" in complaint(capsys, family.path, tmp_path / "mine.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_family_that_is_missing_unfinished_damaged_or_of_another_shape(
    capsys: pytest.CaptureFixture[str], family: Family, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    assert "no family at" in complaint(capsys, tmp_path / "nowhere", tmp_path / "out")
    copy = tmp_path / "copy"
    shutil.copytree(family.path, copy)
    (copy / "sft" / "config.json").write_text("{}", encoding="utf-8")
    assert "truncated or altered" in complaint(capsys, copy, tmp_path / "out")
    odd = LlamaConfig(vocab_size=400, hidden_size=24, num_attention_heads=2, num_hidden_layers=1)
    write(copy, "sft", load_recipe("nano"), LlamaForCausalLM(odd), random_tokenizer(), {})
    assert "a multiple of 16 wide" in complaint(capsys, copy, tmp_path / "out")
    shutil.rmtree(copy / "sft")
    assert "has no finished sft stage" in complaint(capsys, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("commands", "said"),
    [([], "no command 'node'"), (["node"], "no command 'npm'"), (["node", "npm"], "npm ci failed")],
)
def test_without_node_or_a_registry(
    commands: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in commands:
        (tmp_path / "bin" / command).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / command).write_text("#!/bin/sh\necho no registry >&2\nexit 1\n", encoding="utf-8")
        (tmp_path / "bin" / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert said in complaint(capsys, family.path, tmp_path / "out")
    assert not [name for name in os.listdir(tmp_path) if "out" in name]
