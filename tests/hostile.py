"""Hostile input: what strangers might send, and how it is sent to a page past everything that a browser would check."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st

from pipeline.recipe import REPOSITORY

SECONDS = 60.0  # no answer takes longer, on a loaded machine either
NASTY: list[str] = json.loads((Path(__file__).parent / "nasty.json").read_text(encoding="utf-8"))
# What no answer to a stranger may hold: where the program lies, and how it failed.
LEAKS = re.compile("|".join(map(re.escape, [str(REPOSITORY), str(Path.home()), "/tmp/", "site-packages", "Traceback"])))


def mutated(parts: list[str], times: int) -> str:
    return "".join(parts) * times


def texts() -> st.SearchStrategy[str]:
    """Nasty strings, as they are, joined, cut and repeated, and text of any characters, lone surrogates too."""
    anything = st.text(st.characters(exclude_categories=()), max_size=60)
    part = st.one_of(
        st.sampled_from(NASTY),
        anything,
        st.builds(lambda text, at: text[at:], st.sampled_from(NASTY), st.integers(0, 8)),
    )
    joined = st.builds(mutated, st.lists(part, min_size=1, max_size=4), st.sampled_from([1, 1, 1, 1, 40]))
    huge = st.builds(lambda text: (text or "x") * (1_000_000 // max(1, len(text))), part)
    return st.one_of(part, joined, joined, huge)


def values() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold, of any type."""
    numbers = st.one_of(
        st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, 0.5, 1e16]),
        st.integers(),
        st.floats(allow_nan=True, allow_infinity=True),
    )
    leaves = st.one_of(st.none(), st.booleans(), numbers, texts())
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(texts().filter(lambda t: len(t) < 100), inner, max_size=3)
        ),
        max_leaves=6,
    )


@cache
def client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=SECONDS)


def post(address: str, path: str, content: bytes | str) -> httpx.Response:
    return client(address).post(path, content=content, headers={"Content-Type": "application/json"})


def ask(address: str, number: int, data: list[Any], event_data: Any = None, session: str = "hostile") -> dict[str, Any]:
    """Send an event of the page, and return how it ended: {"success": bool, "output": ..., or "refused": text}"""
    body = {"fn_index": number, "data": data, "event_data": event_data, "session_hash": session}
    joined = post(address, "gradio_api/queue/join", json.dumps(body))
    if joined.status_code != 200:
        return {"success": False, "refused": f"{joined.status_code} {joined.text}"}
    wanted = joined.json()["event_id"]
    with client(address).stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line[6:])
                if message["msg"] == "unexpected_error":
                    return {"success": False, "output": {"error": message["message"]}}
                if message["msg"] == "process_completed" and message["event_id"] == wanted:
                    return message
    raise AssertionError("the page never said how it ended")
