"""Stages on a server: asked by the real client, through a server made here, with what can go wrong on the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.checkpoint import read_json_lines, write_json_lines
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from pipeline.inference.served import ServedStage, reach
from pipeline.published import Place
from tests.published import family_file
from tests.served import TOKEN, Server, running_server

DECODING = Decoding(max_new_tokens=12, temperature=0.5, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def stage(server: Server, model: str, name: str = "sft", seconds: float = 60) -> ServedStage:
    return reach(Place(endpoint=server.address, model=model, seconds=seconds), name)


def test_a_chat_streams_word_by_word_with_the_servers_own_count(server: Server) -> None:
    answers = list(stage(server, "good").stream("Why?", DECODING))
    assert [answer.text for answer in answers[:4]] == ["Chat: ", "Chat: Why?", "Chat: Why? €", "Chat: Why? € <b>"]
    assert [answer.tokens for answer in answers[:4]] == [1, 2, 3, 4]
    assert answers[-1] == Answer("Chat: Why? € <b>", 5, stopped=True)
    path, token, content = server.asked[-1]
    assert path == "/v1/chat/completions"
    # The Hub's own token stays at home.
    assert token == "Bearer none"
    wanted = {"model": "good", "max_tokens": 12, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stream": True}
    assert wanted.items() <= content.items()
    assert not list(stage(server, "long").stream("Why?", DECODING))[-1].stopped


def test_base_goes_on_with_raw_text_unless_it_is_asked_in_a_chat(server: Server) -> None:
    base = stage(server, "good", "base")
    assert list(base.stream("Once", DECODING))[-1] == Answer("Raw: Once € <b>", 5, stopped=True)
    assert server.asked[-1][0] == "/v1/completions"
    chatting = ServedStage("base", base.place, base.token, chat_format=True)
    assert list(chatting.stream("Once", DECODING))[-1].text.startswith("Chat: ")


@pytest.mark.parametrize("name", ["sft", "base"])
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("broken", "broke off: out of memory"),
        ("gone", "cannot be reached, or broke off"),
        ("stalled", "said nothing for 0.2 s"),
        ("odd", "does not answer as OpenAI's interface does"),
        ("locked", r"refuses \(401\): it wants a token"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(server: Server, name: str, model: str, said: str) -> None:
    seconds = 0.2 if model == "stalled" else 60
    with pytest.raises(InputError, match=said) as caught:
        list(stage(server, model, name, seconds).stream("Why?", DECODING))
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_route_that_is_not_served_is_named(server: Server) -> None:
    with pytest.raises(InputError, match="it serves no raw only, or not as a chat"):
        list(stage(server, "raw only").stream("Why?", DECODING))
    with pytest.raises(InputError, match="cannot be reached"):
        list(reach(Place(endpoint="http://127.0.0.1:9/v1", model="m"), "sft").stream("Why?", DECODING))


def test_the_token_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(endpoint=server.address, model="locked", token="SCHOOL_TOKEN")
    with pytest.raises(InputError, match="set the environment variable SCHOOL_TOKEN"):
        reach(place, "sft")
    monkeypatch.setenv("SCHOOL_TOKEN", TOKEN)
    reached = reach(place, "sft")
    assert list(reached.stream("Why?", DECODING))[-1].stopped
    assert TOKEN not in repr(reached)


@pytest.mark.parametrize("name", ["sft", "base"])
def test_closing_the_stream_closes_the_connection(server: Server, name: str) -> None:
    server.left.clear()
    answers = stage(server, "endless", name).stream("Why?", DECODING)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert server.left.wait(60)


def test_the_command_line_compares_served_stages(server: Server, tmp_path: Path) -> None:
    good = {"endpoint": server.address, "model": "good"}
    family = family_file(tmp_path / "served.yaml", {"base": good, "rlhf": good})
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    write_json_lines(prompts, [{"id": 1, "prompt": "Why?"}, {"id": 2, "prompt": "How?"}])
    assert main(["compare", "--family", str(family), "--prompts", str(prompts), "--out", str(out)]) == 0
    texts = [[answer["text"] for answer in record["answers"].values()] for record in read_json_lines(out)]
    assert texts == [["Raw: Why? € <b>", "Chat: Why? € <b>"], ["Raw: How? € <b>", "Chat: How? € <b>"]]
    before = out.read_bytes()
    broken = family_file(tmp_path / "broken.yaml", {"base": good, "rlhf": good | {"model": "broken"}})
    assert main(["compare", "--family", str(broken), "--prompts", str(prompts), "--out", str(out)]) == 2
    assert out.read_bytes() == before
