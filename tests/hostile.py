"""Hostile input: what strangers might send, and how it is sent to a page past everything that a browser would check."""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

SECONDS = 120.0  # no answer takes longer, on a loaded machine either
CASES = int(os.environ.get("HOSTILE_CASES", "200"))
NASTY: list[str] = json.loads((Path(__file__).parent / "nasty.json").read_text(encoding="utf-8"))
# What no answer to a stranger may hold: where the program and its files lie, and how it failed.
FOLDERS = [Path(__file__).parents[1], Path.home(), "/tmp/", "/var/", "site-packages"]
LEAKS = re.compile("|".join(re.escape(str(folder)) for folder in FOLDERS) + r"|Traceback|File \"|\.py\b")


def cases(share: float) -> settings:
    """A share of all cases: always the same ones, unless somebody asks for a number of them."""
    return settings(
        max_examples=max(1, int(CASES * share)),
        derandomize="HOSTILE_CASES" not in os.environ,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def texts() -> st.SearchStrategy[str]:
    """Nasty strings as they are, cut, joined and repeated, and any characters at all, lone surrogates too."""
    nasty = st.sampled_from(NASTY)
    anything = st.text(st.characters(exclude_categories=()), max_size=60)
    part = nasty | anything | st.builds(lambda text, start: text[start:], nasty, st.integers(1, 8))
    joined = st.builds(
        lambda parts, times: "".join(parts) * times, st.lists(part, max_size=4), st.sampled_from([1, 40])
    )
    huge = st.builds(lambda text: text * (1_000_000 // len(text)), part.filter(len))
    return st.sampled_from([part, joined, joined, joined, huge]).flatmap(lambda chosen: chosen)


def values() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold, of any type, and what only Python's JSON does."""
    odd = [0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, 0.5, 1e16]
    leaves = st.none() | st.booleans() | st.sampled_from(odd) | st.integers() | st.floats() | texts()
    keys = st.sampled_from([text for text in NASTY if len(text) < 100])
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@cache
def client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=SECONDS)


def post(address: str, path: str, content: bytes | str) -> httpx.Response:
    return client(address).post(path, content=content, headers={"Content-Type": "application/json"})


def join(address: str, number: int, data: list[Any], event: Any = None, session: str = "hostile") -> httpx.Response:
    body = {"fn_index": number, "data": data, "event_data": event, "session_hash": session}
    return post(address, "gradio_api/queue/join", json.dumps(body))


def ended(address: str, wanted: set[str], session: str = "hostile") -> dict[str, dict[str, Any]]:
    """How each of these events ended: {"success", "output"}."""
    found: dict[str, dict[str, Any]] = {}
    with client(address).stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data: ") or "{}")
            if message.get("msg") == "process_completed":
                found[message["event_id"]] = message
            if wanted <= set(found):
                return found
    raise AssertionError("the page never said how it ended")


def ask(address: str, number: int, data: list[Any], event: Any = None, session: str = "hostile") -> str | None:
    """Send an event of the page; the error that it ended with, empty for one that is kept back, None for success."""
    joined = join(address, number, data, event, session)
    if joined.status_code != 200:
        return f"{joined.status_code}: {joined.text}"
    wanted = joined.json()["event_id"]
    message = ended(address, {wanted}, session)[wanted]
    return None if message["success"] else (message["output"].get("error") or "")


def is_clear(error: str, longest: int = 300) -> bool:
    """Whether an error is one short line that gives nothing away."""
    return len(error.splitlines()) <= 1 and len(error) <= longest and not LEAKS.search(error)
