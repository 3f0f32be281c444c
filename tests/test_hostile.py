"""Strangers at the page: whatever they send, nothing crashes, hangs, or says more than one clear line."""

import pytest

from pipeline.errors import InputError
from tests.hostile import NASTY
from ui.answering import LoadedFamily
from ui.rank import Offers, Votes
from ui.room_panels import panels
from ui.rooms import OWN, Rooms, annotator, open_room, open_rooms, somebody


@pytest.fixture(scope="module")
def rooms(family: LoadedFamily, tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    return open_rooms(family, tmp_path_factory.mktemp("rooms"))


def test_who_a_browser_says_it_is_becomes_no_path(rooms: Rooms) -> None:
    for person in (*NASTY, "x/../../../checkpoints/tiny", "a" * 300, "0123456789abcdeF"):
        with pytest.raises(InputError, match="load the page again"):
            open_room("", person)
        with pytest.raises(InputError, match="enter a room first"):
            rooms.place(OWN + person + "/..")
        annotator(person, person).encode()
    for stored in (*NASTY, None, 7, [], {"a": 1}, True, 1e999):
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
