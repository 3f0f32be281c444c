"""What strangers cannot do to the page: read or write its files, ask without end, or send what fills it."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY
from tests.hostile import LEAKS, ask, client, ended, join, post
from ui.answering import COLUMNS, LoadedFamily, told
from ui.columns import problem
from ui.gate import LARGEST_BODY
from ui.limits import RATES, Limits, in_time
from ui.page import launch
from ui.rooms import open_rooms

SECRET = "hf_a_token_that_nobody_may_see"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "rooms"


@pytest.fixture(scope="module")
def address(family: LoadedFamily, rooms: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_TOKEN", SECRET)
        blocks = launch(family, "127.0.0.1", None, rooms, prevent_thread_lock=True, quiet=True)
        assert blocks.local_url
        yield blocks.local_url
        blocks.close()


@pytest.fixture
def counted(family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Counts that begin anew, with rates that the test may set before it asks."""
    for name in RATES:
        monkeypatch.setenv(name, "1000/minute")
    return monkeypatch


def numbers(address: str) -> dict[str, int]:
    return {event["api_name"]: event["id"] for event in client(address).get("config").json()["dependencies"]}


def raw(address: str, path: str) -> httpx.Response:
    """A path as it stands: clients would resolve its dots."""
    url = httpx.URL(address).copy_with(raw_path=f"/{path}".encode())
    return client(address).get(url)


def wanted(family: LoadedFamily, rooms: Path) -> list[str]:
    weights = family.files.path / "base" / "model.safetensors"
    return [str(path) for path in (weights, rooms / "votes.sqlite", REPOSITORY / "app.py")] + [
        "/proc/self/environ",
        "/etc/passwd",
        "app.py",
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "....//....//....//etc/passwd",
        "file:///etc/passwd",
        "/etc/passwd%00.svg",
    ]


PLACES = (
    "file=",
    "file/",
    "gradio_api/file=",
    "gradio_api/file/",
    "gradio_api/proxy=",
    "gradio_api/stream/x/y/",
    "static/",
    "assets/",
    "svelte/",
    "gradio_api/custom_component/html/client/component/",
    "",
)


def test_no_file_of_the_server_can_be_fetched(address: str, family: LoadedFamily, rooms: Path) -> None:
    for place in PLACES:
        for path in wanted(family, rooms):
            for asked in (path, path.lstrip("/")):
                answer = raw(address, place + asked)
                assert answer.status_code != 200, (place, asked)
                assert "root:" not in answer.text
                assert SECRET not in answer.text
                assert len(answer.content) < 1000


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=https://127.0.0.1/",
        "gradio_api/proxy=http://127.0.0.1/",
        "gradio_api/deep_link?session_hash=hostile",
        "gradio_api/process_recording",
        "gradio_api/vibe-code",
        "gradio_api/dev/reload",
        "monitoring",
        "monitoring/summary",
        "pwa_icon/100000",
    ],
)
def test_what_the_page_has_no_use_for_is_closed(address: str, path: str) -> None:
    for method in ("GET", "POST"):
        answer = client(address).request(method, path)
        assert (answer.status_code, answer.text) == (404, '{"detail":"Not Found"}')


def test_what_is_uploaded_is_kept_for_nobody_else(address: str, rooms: Path) -> None:
    before = {path for path in rooms.parent.rglob("*") if path.suffix != ".sqlite-wal"}
    for name in ("votes.jsonl", "../../votes.sqlite", "/etc/cron.d/x", "a\x00b", "x.html", "n" * 5000):
        answer = client(address).post("gradio_api/upload", files={"files": (name, b"<script>1</script>")})
        assert answer.status_code in (200, 400, 413, 500), answer.text
        assert answer.status_code != 500 or "cannot be answered" in answer.text
        for path in answer.json() if answer.status_code == 200 else []:
            assert Path(path).name not in ("votes.sqlite", "x") or "gradio" in path
            assert client(address).get(f"gradio_api/file={path}").status_code == 404
    assert {path for path in rooms.parent.rglob("*") if path.suffix != ".sqlite-wal"} == before


def test_votes_are_brought_from_uploads_alone(address: str, family: LoadedFamily, rooms: Path) -> None:
    bring = numbers(address)["import_votes"]
    for path in (
        "/etc/passwd",
        str(rooms / "votes.sqlite"),
        "../../etc/passwd",
        str(family.files.path / "recipe.yaml"),
    ):
        file = {"path": path, "orig_name": "votes.jsonl", "meta": {"_type": "gradio.FileData"}}
        error = ask(address, bring, [file, None])
        assert error is not None
        assert not LEAKS.search(error)


def test_a_body_that_is_too_large_is_not_read(address: str) -> None:
    large = json.dumps({"data": ["x" * LARGEST_BODY]})
    assert post(address, "gradio_api/call/compare", large).status_code == 413
    file = client(address).post("gradio_api/upload", files={"files": ("votes.jsonl", b"x" * (LARGEST_BODY - 10_000))})
    assert file.status_code == 413


def test_the_page_says_nothing_of_where_it_lies(address: str, family: LoadedFamily) -> None:
    for path in ("", "config", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/queue/status", "theme.css"):
        text = client(address).get(path).text
        assert SECRET not in text
        assert not re.search("|".join(map(re.escape, [str(family.files.path.parent), str(REPOSITORY)])), text), path
    damaged = InputError(f"{family.files.path}/rlhf/model.safetensors is truncated or altered; restore it")
    assert told(damaged) == "model.safetensors is truncated or altered; restore it"
    assert problem(str(damaged)).endswith(">model.safetensors is truncated or altered; restore it</p>")
    assert told("and/or 1/2 a / b http://x.org/y") == "and/or 1/2 a / b http://x.org/y"


def test_what_nobody_foresaw_is_not_told(
    address: str, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"/home/somebody/{SECRET}")

    monkeypatch.setattr("ui.calls.Request", fail)
    assert ask(address, numbers(address)["compare"], ["Hi", 0, 0.3, 1.0, 4, False]) == ""
    assert SECRET in capfd.readouterr().err, "the log of who runs the page has it"


@pytest.mark.parametrize(
    ("name", "whose"),
    [("STAGEWISE_PER_PERSON", "you"), ("STAGEWISE_PER_ADDRESS", "all at your address"), ("STAGEWISE_IN_ALL", "all")],
)
def test_who_asks_too_much_hears_it_in_one_line(
    address: str, family: LoadedFamily, counted: pytest.MonkeyPatch, name: str, whose: str
) -> None:
    counted.setenv(name, "2/hour")
    counted.setattr(family, "limits", Limits())
    score = numbers(address)["score"]
    errors = [ask(address, score, ["Hi", "Hello", True]) for _ in range(3)]
    assert errors[:2] == [None, None]
    assert re.fullmatch(
        rf"too much at once: {whose}.* may ask for 2 answers in 3600 seconds; try again in \d+ seconds", errors[2] or ""
    )
    other = ask(address, score, ["Hi", "Hello", True], session="another")
    assert (other is None) == (name == "STAGEWISE_PER_PERSON")


def test_page_and_programs_share_one_count(address: str, family: LoadedFamily, counted: pytest.MonkeyPatch) -> None:
    counted.setenv("STAGEWISE_PER_ADDRESS", "4/hour")
    counted.setattr(family, "limits", Limits())
    events = numbers(address)
    assert ask(address, events["ask"], [None, "Hi", 0.3, 1, 8, 0, "the raw text", False]) is None
    called = post(address, "gradio_api/call/v2/compare", json.dumps({"prompt": "Hi", "max_new_tokens": 4})).json()
    said = client(address).get(f"gradio_api/call/compare/{called['event_id']}").text
    assert "event: error" in said
    assert "all at your address may ask for 4 answers" in said
    assert ask(address, events["score"], ["Hi", "Hello", True]) is None
    assert ask(address, events["score"], ["Hi", "Hello", True]) is not None


def test_a_proxy_says_whose_address_it_is(address: str, family: LoadedFamily, counted: pytest.MonkeyPatch) -> None:
    counted.setenv("STAGEWISE_PER_ADDRESS", "1/hour")
    counted.setattr(family, "limits", Limits())
    body = json.dumps({"data": ["Hi", "Hello", True]})
    for person, answered in (("192.0.2.1", True), ("192.0.2.2", True), ("192.0.2.1", False)):
        headers = {"Content-Type": "application/json", "X-Forwarded-For": person}
        assert (
            client(address).post("gradio_api/run/score", content=body, headers=headers).status_code == 200
        ) == answered


def test_a_class_of_thirty_is_not_disturbed(
    address: str, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "limits", Limits())
    events = numbers(address)

    def press_send(pupil: int) -> bool:
        session = f"pupil-{pupil}"
        assert ask(address, events["ask"], [None, "Hi", 0.3, 1, 8, 0, "the raw text", False], session=session) is None
        fills = [events[name] for name in ("fill", "fill_1", "fill_2")]
        columns = [join(address, fill, [None, list(COLUMNS)], session=session) for fill in fills]
        shared = [join(address, events["offer_1"], [None, ["base"]], session=session) for _ in range(2)]
        wanted = {answer.json()["event_id"] for answer in (*columns, *shared)}
        return all(message["success"] for message in ended(address, wanted, session).values())

    with ThreadPoolExecutor(30) as pupils:
        assert all(pupils.map(press_send, range(30)))


@pytest.mark.parametrize("rate", ["many", "", "300", "-1/minute", "3/fortnight"])
def test_a_rate_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, rate: str) -> None:
    monkeypatch.setenv("STAGEWISE_IN_ALL", rate)
    with pytest.raises(InputError, match=r"STAGEWISE_IN_ALL is .*; write a rate such as 6000/minute"):
        Limits()


def test_an_answer_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.limits.LONGEST_SECONDS", 0.0)
    closed = []

    def slow() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.001)
                yield 1
        finally:
            closed.append(True)

    with pytest.raises(InputError, match="longer than 0 seconds"):
        list(in_time(slow()))
    assert closed


def test_rooms_that_have_filled_their_part_of_the_disk_train_no_more(
    family: LoadedFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = open_rooms(family, tmp_path)
    monkeypatch.setattr("ui.rooms.LARGEST", 0)
    with pytest.raises(InputError, match="filled their part of the disk"):
        rooms.move("class", ["Hello"], "sft", 20, 0.05)
