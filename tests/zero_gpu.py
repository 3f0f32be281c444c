"""ZeroGPU without a GPU: the real `spaces` package, a scheduler on loopback, and memory that stands in for a card's.

`spaces` changes torch for good, so this runs in a process of its own: `python -m tests.zero_gpu FAMILY` opens the page
as a ZeroGPU Space does, uses it, and prints what came of it as JSON in the last line.
"""

import json
import mmap
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

PROMPT = "What is the capital of France?"
LENGTH = 12


@dataclass
class Scheduler:
    """What was asked of it. `spent` says that nobody has any of their time on a GPU left."""

    address: str = ""
    requests: list[str] = field(default_factory=list)
    spent: bool = False

    def since(self, before: int) -> list[str]:
        return [urlsplit(request).path for request in self.requests[before:]]


@contextmanager
def running_scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    gpu = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "allowed"}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            scheduler.requests.append(self.path)
            scheduling = self.path.startswith("/schedule")
            status, content = (429, {"left": 0, "wait": 3600}) if scheduling and scheduler.spent else (200, gpu)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheduler.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield scheduler
    server.shutdown()
    server.server_close()


def in_bad_fork() -> bool:
    return False


def stand_in_for_a_card(patch: pytest.MonkeyPatch) -> None:
    """Let `spaces` find what a torch with CUDA has, and move models into memory instead of onto a GPU."""
    import torch

    patch.setattr(torch.version, "cuda", "13.0")
    patch.setattr(torch._C, "_cuda_init", lambda: None, raising=False)
    patch.setattr(torch.cuda, "_is_in_bad_fork", in_bad_fork)
    import spaces.zero.torch

    patch.setattr(spaces.zero.torch, "init", lambda uuid: None)
    patch.setattr(spaces.zero.torch, "move", move)


def move(callback: Callable[[int], Any] | None = None) -> None:
    """In the process that has the GPU: bring the models there."""
    import torch
    from spaces.zero.torch import patching

    tensor = torch.tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cuda", lambda self, non_blocking=False: self.clone())
        patch.setattr(
            torch.Tensor, "pin_memory", lambda self: torch.frombuffer(mmap.mmap(-1, len(self)), dtype=self.dtype)
        )
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(torch, "tensor", lambda *values, device=None, **more: tensor(*values, **more))
        patching.move(callback)


def used(scheduler: Scheduler, family: Any, address: str) -> dict[str, Any]:
    """Ask as a program does, twice; then stop an answer as a person does; then ask with no time left."""
    from gradio_client import Client

    from pipeline.inference.decoding import Decoding
    from ui.answering import Request

    happened: dict[str, Any] = {"started": scheduler.since(0)}
    client, decoding = Client(address, verbose=False), Decoding(LENGTH, 1.0, seed=3)
    for turn in ("first", "second"):
        before = len(scheduler.requests)
        asked = {"seed": decoding.seed, "temperature": decoding.temperature, "max_new_tokens": LENGTH}
        answers = client.predict(PROMPT, **asked, api_name="/compare")
        happened[turn] = scheduler.since(before), {stage: answer["text"] for stage, answer in answers.items()}
    alone = {stage: list(model.stream(PROMPT, decoding))[-1] for stage, model in family.models.items()}
    happened["on the processor"] = {stage: answer.text for stage, answer in alone.items()}
    happened["devices"] = [str(model.model.device) for model in (*family.models.values(), family.reward)]

    before = len(scheduler.requests)
    long = Decoding(family.context)
    request = Request(1, PROMPT, long, allocation=family.allocation(PROMPT, long, False))
    filling = [family.views(stage, request) for stage in family.models]
    for views in filling:
        next(view for view in views if view.tokens > 1)
    request.halted.set()
    last = [list(views)[-1] for views in filling]
    happened["stopped"] = scheduler.since(before), [view.state for view in last]

    scheduler.spent = True
    request = Request(2, PROMPT, decoding, allocation=family.allocation(PROMPT, decoding, False))
    last = [list(family.views(stage, request))[-1] for stage in family.models]
    happened["spent"] = [(view.state, view.error) for view in last]
    return happened


def main(path: str) -> int:
    with running_scheduler() as scheduler, pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as disk:
        patch.setenv("SPACES_ZERO_GPU", "true")
        patch.setenv("SPACES_ZERO_DEVICE_API_URL", scheduler.address)
        patch.setenv("ZEROGPU_OFFLOAD_DIR", str(Path(disk) / "models"))
        stand_in_for_a_card(patch)
        import app
        from ui import page

        launch = page.launch

        def briefly(family: Any, *arguments: Any, **more: Any) -> None:
            blocks = launch(family, *arguments, **more, prevent_thread_lock=True)
            assert blocks.local_url
            happened = used(scheduler, family, blocks.local_url)
            blocks.close()
            print(json.dumps(happened))

        patch.setattr(page, "launch", briefly)
        return app.main(["--family", path, "--host", "127.0.0.1", "--rooms", disk])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
