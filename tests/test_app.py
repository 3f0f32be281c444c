"""The page without a browser: loading a family, filling a column, drawing it."""

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import app
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from tests.families import random_family, speaking
from ui.answering import LoadedFamily, Request, View, load
from ui.columns import column, lane, place
from ui.guessing import majority
from ui.presets import presets

REQUEST = Request(1, "What is the capital of France?", Decoding(max_new_tokens=12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_family(tmp_path_factory.mktemp("families") / "random").path


@pytest.fixture(scope="module")
def family(folder: Path) -> LoadedFamily:
    return load(folder)


def complaint(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `python app.py` says of a family that it cannot use."""
    capsys.readouterr()
    assert app.main(["--family", str(folder)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    return said[0]


def test_a_missing_family_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no family at" in complaint(tmp_path / "nowhere", capsys)


def test_truncated_weights_and_a_pickle_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_family(tmp_path / "bad", ("base",)).path / "base" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert "truncated or altered" in complaint(tmp_path / "bad", capsys)
    weights.write_bytes(whole)
    (weights.parent / "pytorch_model.bin").write_bytes(b"anything")
    assert "could run code" in complaint(tmp_path / "bad", capsys)


@pytest.mark.parametrize("stage", ["base", "sft", "rlhf"])
def test_a_column_fills_and_ends_with_its_reward(family: LoadedFamily, stage: str) -> None:
    views = list(family.views(stage, REQUEST))
    states = [view.state for view in views]
    assert states[0] == "waiting"
    assert states[-2] == "scoring"
    assert set(states[1:-2]) <= {"writing"}
    last = views[-1]
    assert last.state in ("stopped", "cut")
    assert last.text
    assert 0 < last.tokens <= 12
    assert last.reward is not None
    assert math.isfinite(last.reward)


def test_the_reward_scale_is_the_familys_own(family: LoadedFamily) -> None:
    assert family.scale == (-2.0, 2.0)


def test_a_failing_column_shows_its_error(family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        yield Answer("half an", 2, False)
        raise RuntimeError("sizes <3> differ")

    monkeypatch.setitem(family.models, "sft", speaking(family.models["sft"], fail))
    last = list(family.views("sft", REQUEST))[-1]
    assert last.state == "failed"
    assert "RuntimeError: sizes &lt;3&gt; differ" in column(last, family.scale)
    assert next(view for view in family.views("base", REQUEST) if view.state == "scoring").text


def test_who_waits_sees_the_place_and_can_stop(family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        yield Answer("", 0, False, place=2)
        yield Answer("At last", 1, False)
        request.halted.set()
        yield Answer("At last,", 2, False)

    request = Request(2, "Hello", Decoding(max_new_tokens=12))
    monkeypatch.setattr("ui.answering.SECONDS_BETWEEN_VIEWS", 0)
    monkeypatch.setitem(family.models, "sft", speaking(family.models["sft"], wait))
    views = list(family.views("sft", request))
    assert [(view.state, view.place) for view in views] == [
        ("waiting", 0),
        ("waiting", 2),
        ("writing", 0),
        ("halted", 0),
    ]
    assert "Waiting, place 2 in the queue" in column(views[1], family.scale)
    assert family.filling_now == 0


def test_many_people_get_what_each_gets_alone(family: LoadedFamily) -> None:
    requests = [Request(number, f"Question {number}", Decoding(8, 0.9, seed=number)) for number in range(30)]
    with ThreadPoolExecutor(30) as threads:
        together = list(threads.map(lambda request: list(family.views("rlhf", request))[-1], requests))
    assert family.people_at_once >= 30
    for request, view in zip(requests, together, strict=True):
        alone = list(family.views("rlhf", request))[-1]
        assert (view.prompt, view.text, view.tokens) == (request.prompt, alone.text, alone.tokens)
        assert view.reward == pytest.approx(alone.reward, abs=1e-4)


def test_closing_a_column_ends_its_decoding(family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def endless(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        try:
            while True:
                yield Answer("on and on", 1, False)
        finally:
            closed.append(prompt)

    monkeypatch.setitem(family.models, "base", speaking(family.models["base"], endless))
    views = family.views("base", REQUEST)
    assert [next(views).state, next(views).state] == ["waiting", "writing"]
    views.close()
    assert closed == [REQUEST.prompt]


def test_a_family_in_the_making_says_what_is_missing(tmp_path: Path) -> None:
    family = load(random_family(tmp_path / "young", ("base", "sft")).path)
    assert [family.first_view(stage).state for stage in ("base", "sft", "rlhf")] == ["idle", "idle", "untrained"]
    assert "not trained yet" in column(family.first_view("rlhf"), family.scale)
    last = list(family.views("sft", REQUEST))[-1]
    assert last.state in ("stopped", "cut")
    assert last.reward is None


@pytest.mark.parametrize("prompt", ["", " \n ", "a" * 100_000])
def test_an_empty_or_too_long_prompt_is_refused(family: LoadedFamily, prompt: str) -> None:
    with pytest.raises(InputError):
        family.check(prompt)


def test_what_anybody_wrote_is_escaped() -> None:
    view = View("base", "cut", prompt="<i>", text='<b>x</b><|assistant|>&"', tokens=3, seconds=1.0, reward=0.5)
    html = column(view, (-4, 4))
    assert "&lt;i&gt;" in html
    assert "&lt;b&gt;x&lt;/b&gt;&lt;|assistant|&gt;&amp;&quot;" in html
    assert "<b>" not in html


def test_a_reward_off_the_scale_stands_at_its_end() -> None:
    assert [place(value, (-4, 4)) for value in (-9, -4, 0, 2, 4, 9)] == [0, 0, 50, 75, 100, 100]
    assert "\N{MINUS SIGN}9.00" in column(View("rlhf", "cut", text="x", reward=-9), (-4, 4))


def test_the_presets_hold_the_missions_prompts_each_first_in_its_category() -> None:
    from pipeline.training import FIXED_PROMPTS

    categories: dict[str, list[str]] = {}
    for preset in presets():
        assert preset.look_for
        categories.setdefault(preset.category, []).append(preset.prompt)
    assert set(FIXED_PROMPTS) <= {prompts[0] for prompts in categories.values()}
    assert all(3 <= len(prompts) <= 5 for prompts in categories.values())


def test_base_is_asked_in_the_chat_format_on_request(family: LoadedFamily) -> None:
    views = {chat: list(family.views("base", replace(REQUEST, chat_format=chat)))[-1] for chat in (False, True)}
    assert views[False].text != views[True].text
    assert ">What is the capital of France?<" in column(views[False], family.scale)
    assert "&lt;|user|&gt; What is the capital of France?&lt;|end|&gt;" in column(views[True], family.scale)


def test_a_hidden_column_says_nothing_of_its_stage(family: LoadedFamily) -> None:
    drawn = set()
    for stage in family.models:
        view = View(stage, "cut", "the prompt", text="\n the text", tokens=3, seconds=1.0, reward=1.5)
        drawn.add(column(view, family.scale, "A", hidden=True) + lane(view, family.scale, "A", hidden=True))
    assert len(drawn) == 1
    assert not re.search("base|sft|rlhf|1.5|the prompt", drawn.pop(), re.IGNORECASE)


@pytest.mark.parametrize(
    ("counts", "stage"), [((2, 1, 0), "base"), ((0, 0, 1), "rlhf"), ((1, 1, 0), None), ((0, 0, 0), None)]
)
def test_a_tie_is_no_majority(counts: tuple[int, int, int], stage: str | None) -> None:
    assert majority(dict(zip(("base", "sft", "rlhf"), counts, strict=True)) | {"truth": ""}) == stage
