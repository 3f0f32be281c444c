"""One visitor of the page, without a browser: the requests that gradio's front end makes, and nothing more."""

import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from gradio_client.utils import apply_diff

from ui.answering import OWN

API = "/gradio_api"
PATIENCE = 600.0  # seconds


@dataclass
class Comparison:
    """What came of one press of Send: by stage, when its first token was seen (seconds), and how it ended."""

    seconds: float = 0.0
    views: int = 0
    first: dict[str, float] = field(default_factory=dict)
    html: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(int(found[1]) for html in self.html.values() if (found := re.search(r">(\d+) tokens?<", html)))

    @property
    def complete(self) -> bool:
        """Whether every column has its whole answer."""
        return set(self.states.values()) <= {"stopped", "cut"}

    def see(self, html: str, seconds: float) -> None:
        """Take note of a column as it stands now."""
        found = re.search(r'class="stage (\w+)" data-state="(\w+)"', html)
        assert found, f"no column: {html[:200]}"
        stage, state = found.groups()
        self.views += 1
        self.html[stage] = html
        self.states[stage] = state
        if state == "waiting":
            self.places += re.findall(r"place (\d+) in the queue", html)
        else:
            self.first.setdefault(stage, seconds)


class Person:
    """A session: opens the page, then compares as often as wanted."""

    def __init__(self, address: str) -> None:
        self.session = uuid.uuid4().hex
        self.http = httpx.AsyncClient(base_url=address, timeout=PATIENCE)
        self.columns: dict[str, dict[str, Any]] = {}

    async def opened(self) -> Self:
        await self.http.get("/")
        config = (await self.http.get("/config")).json()
        self.parts = {part["id"]: part["props"] for part in config["components"]}
        self.calls = [call for call in config["dependencies"] if call["backend_fn"]]
        button = next(part for part, props in self.parts.items() if props.get("elem_id") == "send")
        self.ask = self.called_by(button, "click")[0]
        for state in self.ask["outputs"]:
            for call in self.called_by(state, "change"):
                html = str(self.parts[call["outputs"][0]].get("value"))
                found = re.search(r'class="stage (\w+)"', html)
                if found and found[1] != OWN:  # nobody has moved a policy here
                    self.columns[found[1]] = call
        return self

    async def close(self) -> None:
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return await self.opened()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def called_by(self, part: int, event: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if (part, event) in map(tuple, call["targets"])]

    async def compare(self, prompt: str, only: str | None = None, run: Comparison | None = None) -> Comparison:
        """Press Send and watch until every column, or the `only` one that is asked for, has ended.

        Who wants to look on while it streams gives a `run` to fill.
        """
        run = run or Comparison()
        start = time.monotonic()
        values = [
            prompt if self.parts[part].get("elem_id") == "prompt" else self.parts[part].get("value")
            for part in self.ask["inputs"]
        ]
        await self.join(self.ask, values)
        async for _ in self.messages():
            pass
        for stage, call in self.columns.items():
            if only in (None, stage):
                await self.join(call, [self.parts[part].get("value") for part in call["inputs"]])
        shown: dict[str, Any] = {}
        async for message in self.messages():
            if message["msg"] == "process_generating":
                event, data = message["event_id"], message["output"]["data"]
                # The first view is sent whole, later ones as what has changed.
                shown[event] = (
                    [apply_diff(old, new) for old, new in zip(shown[event], data, strict=True)]
                    if event in shown
                    else data
                )
                run.see(shown[event][0], time.monotonic() - start)
        run.seconds = time.monotonic() - start
        return run

    async def join(self, call: dict[str, Any], values: list[Any]) -> None:
        body = {"fn_index": call["id"], "data": values, "session_hash": self.session, "trigger_id": None}
        (await self.http.post(f"{API}/queue/join", json=body)).raise_for_status()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What the server says until nothing of this session is open any more."""
        url = f"{API}/queue/data?session_hash={self.session}"
        async with self.http.stream("GET", url) as response:
            rest = b""
            async for part in response.aiter_bytes():
                # Not `aiter_lines`, which also breaks lines at separators inside an answer.
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.startswith(b"data:"):
                        message = json.loads(line[5:])
                        if message["msg"] == "close_stream":
                            return
                        if message["msg"] == "unexpected_error" or message.get("success") is False:
                            raise RuntimeError(f"the page failed: {message}")
                        yield message
