"""Strangers at the page: whatever they send, nothing crashes, hangs, or says more than one clear line.

`make fuzz` sends 10,000 cases instead of a few hundred; HOSTILE_CASES is their number.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.errors import InputError
from tests.browsing import served
from tests.hostile import NASTY, ask, cases, client, is_clear, post, texts, values
from ui.answering import LoadedFamily
from ui.rank import Offers, Votes
from ui.room_panels import panels
from ui.rooms import OWN, Rooms, annotator, open_room, open_rooms, somebody

GOOD: dict[str, dict[str, Any]] = {
    "compare": {
        "prompt": "Hi",
        "seed": 0,
        "temperature": 0.3,
        "top_p": 1.0,
        "max_new_tokens": 2,
        "chat_format": False,
    },
    "score": {"prompt": "Hi", "response": "Hello", "finished": True},
    "tokens": {"prompt": "Hi", "stage": "sft", "temperature": 0.0, "seed": 0, "max_new_tokens": 2},
}
ROUTES = (
    "queue/join",
    "call/compare",
    "call/v2/compare",
    "run/score",
    "api/tokens",
    "cancel",
    "reset",
    "upload",
    "mcp/",
)


@pytest.fixture(scope="module")
def address(family: LoadedFamily) -> Iterator[str]:
    """Where the page is served, to whom asks without end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family.limits, "admit", lambda answers=1: None)
        yield from served(family)


@pytest.fixture(scope="module")
def events(address: str) -> dict[str, dict[str, Any]]:
    """The events of the page that end on the server, the named calls of programs among them."""
    found = client(address).get("config").json()["dependencies"]
    return {event["api_name"]: event for event in found if event["backend_fn"]}


@pytest.fixture(scope="module")
def rooms(family: LoadedFamily, tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    return open_rooms(family, tmp_path_factory.mktemp("rooms"))


def is_alive(address: str, events: dict[str, dict[str, Any]]) -> bool:
    return ask(address, events["score"]["id"], list(GOOD["score"].values()), session="friend") is None


def test_a_call_of_a_program_is_answered_or_refused_in_one_line(address: str, events: dict[str, Any]) -> None:
    @cases(0.5)
    @given(st.sampled_from(list(GOOD)), st.data())
    def send(name: str, data: st.DataObject) -> None:
        wrong = data.draw(st.lists(st.sampled_from(list(GOOD[name])), max_size=2, unique=True))
        given = GOOD[name] | {part: data.draw(texts() if part == "prompt" else values()) for part in wrong}
        error = ask(address, events[name]["id"], list(given.values()))
        assert error is None or (error and is_clear(error)), (given, error)

    send()
    assert is_alive(address, events)


def test_an_event_of_the_page_never_breaks_it(address: str, events: dict[str, Any]) -> None:
    # What no browser would send may end in a line that says nothing, or, where gradio refuses it, repeats it.
    @cases(0.4)
    @given(st.sampled_from(sorted(events)), st.data())
    def send(name: str, data: st.DataObject) -> None:
        sent = [data.draw(values()) for _ in events[name]["inputs"]]
        error = ask(address, events[name]["id"], sent, data.draw(st.none() | values()))
        assert error is None or is_clear(error, 10**8), (name, sent, error)

    send()
    assert is_alive(address, events)


def test_a_body_that_is_none_is_refused(address: str, events: dict[str, Any]) -> None:
    deep = ("[" * 100_000 + "]" * 100_000, '{"data": ' * 5_000 + "1" + "}" * 5_000, '{"data": [' + "9" * 5_000 + "]}")

    @cases(0.1)
    @given(st.sampled_from(ROUTES), st.sampled_from(deep) | texts() | st.binary() | values().map(json.dumps))
    def send(route: str, body: str | bytes) -> None:
        content = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
        answer = post(address, f"gradio_api/{route}", content)
        assert is_clear(answer.text), (route, body, answer.text)

    send()
    assert is_alive(address, events)


def test_the_command_line_answers_or_refuses_in_one_line(
    family: LoadedFamily, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"

    def run(*command: str) -> None:
        out.unlink(missing_ok=True)
        code = main([command[0], "--family", str(family.files.path), *command[1:]])
        said = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line and "unit" not in line]
        assert code in (0, 2), command
        assert "Traceback" not in "".join(said)
        assert code == 0 or (said[-1].startswith("stagewise: error: ") and not out.exists())

    @cases(0.05)
    @given(texts(), values(), st.sampled_from([json.dumps, str]))
    def send(text: str, value: Any, written: Callable[[Any], str]) -> None:
        line = written({"id": "1", "prompt": text, "response": value if isinstance(value, str) else text})
        prompts.write_text(line + "\n", encoding="utf-8", errors="replace")
        run("compare", "--prompts", str(prompts), "--out", str(out), "--max-new-tokens", "2")
        run("score", "--in", str(prompts), "--out", str(out))
        typed = iter([text, written(value)])
        monkeypatch.setattr("builtins.input", lambda _: next(typed, None) or stop())
        run("chat", "--stage", "base", "--max-new-tokens", "2")

    def stop() -> str:
        raise EOFError

    send()


def test_who_a_browser_says_it_is_becomes_no_path(rooms: Rooms) -> None:
    for person in (*NASTY, "x/../../../checkpoints/tiny", "a" * 300, "0123456789abcdeF"):
        with pytest.raises(InputError, match="load the page again"):
            open_room("", person)
        with pytest.raises(InputError, match="enter a room first"):
            rooms.place(OWN + person + "/..")
        annotator(person, person).encode()
    strange: list[Any] = [*NASTY, None, 7, [], {"a": 1}, True, 1e999]
    for stored in strange:
        assert rooms.place(open_room("", somebody(stored))).path.parent == rooms.folder


def test_a_room_is_a_folder_among_the_others_or_none(rooms: Rooms) -> None:
    for name in NASTY:
        try:
            room = open_room(name, "0" * 16)
        except InputError:
            continue
        assert rooms.place(room).path.resolve().parent == rooms.folder.resolve()
        assert rooms.labels.of(room) == []


@pytest.mark.parametrize("prompt", ["a\ud800", "\x00", "</p><script>", "'; DROP TABLE votes; --", "<|assistant|>"])
def test_any_prompt_can_be_voted_on_and_read_again(family: LoadedFamily, rooms: Rooms, prompt: str) -> None:
    task, shown, ballot, *_ = Offers(family, rooms).to(prompt, 2, "room", "\ud800", "\udfff")
    votes = Votes(family, rooms, len(panels(rooms, "room")))
    assert votes.cast(task, ballot | {"order": [1, 0]}, "room", "\ud800", "\udfff")[0]["cast"]
    assert shown in [vote.prompt for vote in rooms.labels.of("room")]
