"""People in the loop, in a real browser: votes, rooms, and the training that follows them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.checkpoint import Family, read_json_lines
from pipeline.errors import InputError
from pipeline.rooms.answers import Candidate
from pipeline.rooms.labels import VOTES, Labels
from pipeline.rooms.policy import move
from pipeline.rooms.push import Push
from tests.browsing import PATIENCE
from ui.answering import LoadedFamily, load
from ui.page import launch
from ui.rank import Ballot, Task, label_of

PROMPT = "What is tea?"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(scope="module")
def family(nano_family: Path) -> LoadedFamily:
    return load(nano_family)


@pytest.fixture(scope="module")
def address(family: LoadedFamily, rooms: Path) -> Iterator[str]:
    blocks = launch(family, "127.0.0.1", None, rooms, prevent_thread_lock=True, quiet=True)
    assert blocks.local_url
    yield blocks.local_url
    blocks.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = entered(browser, address)
    yield page
    page.context.close()


def entered(browser: Browser, address: str, room: str = "", width: int = 1280) -> Page:
    """A person of their own, with the tab open."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}?room={room}" if room else address)
    page.get_by_role("tab", name="Rank", exact=True).click()
    expect(page.locator("#tally b").first).to_be_visible()
    return page


def asked(page: Page, prompt: str = PROMPT) -> Locator:
    page.get_by_label("Prompt to rank answers to").fill(prompt)
    page.get_by_role("button", name="Ask", exact=True).click()
    # Those of the last vote stay until the new ones are there.
    expect(page.locator("#ballot .verdict")).to_have_count(0)
    expect(page.locator("#ballot .card")).to_have_count(3)
    return page.locator("#ballot .card")


def voted(page: Page, prompt: str = PROMPT) -> None:
    asked(page, prompt)
    page.get_by_role("button", name="Vote", exact=True).click()
    expect(page.locator("#ballot .verdict")).to_have_count(3)


def texts(page: Page) -> list[str]:
    return page.locator("#ballot .text").all_inner_texts()


def test_answers_are_ranked_with_keys_and_the_reward_model_shows_its_order_after(page: Page, rooms: Path) -> None:
    cards = asked(page)
    before = texts(page)
    assert len(set(before)) == 3
    expect(page.locator("#ballot .verdict")).to_have_count(0)
    cards.nth(2).press("1")
    assert texts(page) == [before[2], before[0], before[1]]
    cards.nth(1).press("ArrowDown")
    assert texts(page) == [before[2], before[1], before[0]]
    expect(cards.nth(2)).to_be_focused()
    cards.nth(2).press("=")
    assert page.locator("#ballot .rank").all_inner_texts() == ["1", "2", "2"]
    page.locator("#ballot .between").first.get_by_role("button", name="honest").click()
    page.get_by_role("button", name="Vote", exact=True).click()
    expect(page.locator("#ballot .verdict")).to_have_count(3)
    expect(page.locator("#rank-verdict")).to_contain_text("pairs as you do")
    expect(page.locator("#tally")).to_contain_text("1 vote of 1 person")
    with Labels(rooms / VOTES).connected() as connection:
        [label] = [json.loads(text) for (text,) in connection.execute("SELECT label FROM votes")]
    ranks = {answer["text"]: answer["rank"] for answer in label["answers"]}
    assert [ranks[text] for text in (before[2], before[1], before[0])] == [1, 2, 2]
    assert [decision["criterion"] for decision in label["criteria"]] == ["honest"]
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator("#tally")).to_contain_text("0 votes")
    expect(page.locator("#ballot .verdict")).to_have_count(0)


def test_answers_are_ranked_by_dragging(page: Page) -> None:
    cards = asked(page)
    before = texts(page)
    cards.nth(2).drag_to(cards.nth(0))
    assert texts(page) == [before[2], before[0], before[1]]


def test_all_may_be_bad(page: Page) -> None:
    asked(page)
    page.get_by_role("button", name="All are bad").click()
    assert page.locator("#ballot .rank").all_inner_texts() == ["1", "1", "1"]
    page.get_by_role("button", name="Vote", exact=True).click()
    expect(page.locator("#rank-verdict")).to_contain_text("You see no difference")


def test_a_class_shares_a_room_and_others_do_not_see_it(browser: Browser, address: str) -> None:
    ada, ben = entered(browser, address, "class-7b"), entered(browser, address, "class-7b")
    zoe = entered(browser, address, "other")
    voted(ada)
    expect(ben.locator("#tally")).to_contain_text("1 vote of 1 person")
    asked(ben)
    assert sorted(texts(ben)) == sorted(texts(ada))
    ben.get_by_role("button", name="Vote", exact=True).click()
    expect(ada.locator("#tally")).to_contain_text("2 votes of 2 people")
    expect(ada.locator("#tally")).to_contain_text("class-7b")
    expect(zoe.locator("#tally")).to_contain_text("0 votes")
    for page in (ada, ben, zoe):
        page.context.close()


def test_what_people_type_is_only_text(browser: Browser, address: str) -> None:
    page = entered(browser, address, "markup")
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.get_by_label("Your name").fill("<b>'); DROP TABLE--")
    nasty = "<img src=x onerror=alert(1)> <|user|> ${1+1}"
    voted(page, nasty)
    expect(page.locator("#tally")).to_contain_text("1 vote")
    assert page.locator("#rank-tab img").count() == 0
    page.context.close()


@pytest.mark.parametrize("room", ["..", "a/b", "own-1234"])
def test_a_room_that_is_none_is_said_and_ones_own_is_shown(browser: Browser, address: str, room: str) -> None:
    page = entered(browser, address, room)
    expect(page.locator("#rank-notice .problem")).to_be_visible()
    expect(page.locator("#tally")).to_contain_text("Nobody else sees this room")
    page.context.close()


def bring(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import votes").click()
    chooser.value.set_files(file)


def test_votes_go_out_and_come_in_as_files(browser: Browser, address: str, tmp_path: Path) -> None:
    page = entered(browser, address, "files")
    voted(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export the votes").click()
    file = tmp_path / "votes.jsonl"
    download.value.save_as(file)
    [vote] = read_json_lines(file)
    assert (vote["room"], vote["prompt"]) == ("files", PROMPT)
    other = entered(browser, address, "elsewhere")
    bring(other, file)
    expect(other.locator("#rank-notice")).to_contain_text("1 votes imported")
    expect(other.locator("#tally")).to_contain_text("1 vote")
    file.write_text("{}\n", encoding="utf-8")
    bring(other, file)
    expect(other.locator("#rank-notice .problem")).to_contain_text("line 1")
    for each in (page, other):
        each.context.close()


def test_a_room_retrains_and_moves_its_policy(browser: Browser, address: str, rooms: Path, nano_family: Path) -> None:
    page = entered(browser, address, "training")
    page.get_by_role("button", name="Retrain", exact=True).click()
    expect(page.locator(".job-notice .problem")).to_contain_text("no votes yet")
    for prompt in ("What is tea?", "What is a cat?", "Who are you?", "How do I sleep?", "Is the sky blue?"):
        voted(page, prompt)
    page.get_by_role("button", name="Retrain", exact=True).click()
    expect(page.locator("#retrained table").first).to_contain_text("Your held-out votes")
    expect(page.locator("#retrained .curves figure")).to_have_count(2)
    page.locator("#move-start").get_by_label("SFT").check()
    page.get_by_role("button", name="Move the policy").click()
    expect(page.locator("#moved .moved li")).to_have_count(5)
    page.locator("#cancel-move").click()
    expect(page.locator("#moved")).to_contain_text("Cancelled")
    assert not (rooms / "training" / "rlhf").exists()
    page.get_by_role("button", name="Show it in Compare").click()
    expect(page.locator(".job-notice .problem")).to_contain_text("has not moved a policy yet")
    Family(nano_family).checkpoint("reward")
    page.context.close()


def test_a_moved_policy_is_the_fourth_column(browser: Browser, address: str, rooms: Path, nano_family: Path) -> None:
    told: list[object] = []
    move(Family(nano_family), None, [PROMPT], Push(steps=1), Family(rooms / "moved"), told.append)
    page = entered(browser, address, "moved")
    expect(page.locator("#moved .moved li")).to_have_count(5)
    page.get_by_role("button", name="Show it in Compare").click()
    expect(page.locator("#columns .stage")).to_have_count(4)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#columns .stage:is([data-state=stopped], [data-state=cut])")).to_have_count(4)
    expect(page.locator("#columns .stage.own h2")).to_contain_text("Yours")
    expect(page.locator("#columns .stage.own .number")).to_be_visible()
    for width, rows in ((1440, 1), (1024, 2), (390, 4)):
        page.set_viewport_size({"width": width, "height": 900})
        places = [place.bounding_box() for place in page.locator("#columns > .place").all()]
        assert len({place["y"] for place in places if place}) == rows
        for ending in page.locator("#columns .ending").all():
            assert ending.evaluate("(ending) => ending.scrollWidth <= ending.clientWidth"), width
    page.context.close()


@pytest.mark.parametrize("width", [390, 1024])
def test_nothing_scrolls_sideways(browser: Browser, address: str, width: int) -> None:
    page = entered(browser, address, width=width)
    asked(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


TASK = Task(3, PROMPT, "own", tuple(Candidate(f"Answer {number}", True, number) for number in range(3)))


@pytest.mark.parametrize(
    "change",
    [
        {"order": [0, 1]},
        {"order": [0, 0, 1]},
        {"order": "abc"},
        {"tied": [True]},
        {"reasons": {"1": "fun"}},
        {"bad": "yes"},
        {"task": 2},
        {"cast": True},
    ],
)
def test_a_ballot_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        label_of(TASK, TASK.ballot() | change, "room", "Ada", "nano")
    with pytest.raises(InputError, match="ask for answers first"):
        label_of(None, TASK.ballot(), "room", "Ada", "nano")


def test_ranks_skip_after_a_tie() -> None:
    ballot = Ballot(order=[2, 0, 1], tied=[False, True, False], reasons={"1": "honest", "2": "helpful"}, bad=False)
    assert ballot.ranks() == [1, 3, 1]
    assert [(each.better, each.worse, each.criterion) for each in ballot.criteria()] == [(0, 1, "helpful")]
