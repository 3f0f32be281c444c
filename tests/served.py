"""A server on loopback that speaks OpenAI's interface, faults included: which, the model's name says."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

TOKEN = "sk-school"


@dataclass
class Server:
    """Its address up to /v1, and what it was asked: path, token and content. `stalled` ends when `go_on` is set."""

    address: str = ""
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    go_on: Event = field(default_factory=Event)
    left: Event = field(default_factory=Event)


@contextmanager
def running_server() -> Iterator[Server]:
    """Serve while the block runs.

    `good` answers, `endless` until nobody listens, `long` is cut, `broken` sends an error after two words, `gone`
    closes the connection there, `stalled` falls silent there, `locked` wants the token, `odd` sends something else.
    """
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = self.headers.get("Authorization", "")
            server.asked.append((self.path, token, content))
            chat, model = self.path == "/v1/chat/completions", content["model"]
            if model == "locked" and token != f"Bearer {TOKEN}":
                self.refuse(401)
            elif model == "raw only" and chat:
                self.refuse(404)
            else:
                self.start()
                self.write_answer(chat, model, content)

        def write_answer(self, chat: bool, model: str, content: dict[str, Any]) -> None:
            said = content["messages"][0]["content"] if chat else content["prompt"]
            words = [f"{'Chat' if chat else 'Raw'}: ", said, " \N{EURO SIGN}", " <b>"]
            try:
                for number, word in enumerate(words * (10_000 if model == "endless" else 1)):
                    if number == 2 and model == "gone":
                        self.close_connection = True
                        return
                    if number == 2 and model == "stalled":
                        server.go_on.wait()
                    if number == 2 and model == "broken":
                        self.event({"error": {"message": "out of memory", "type": "server_error"}})
                        break
                    if model == "odd":
                        self.chunk(b"data: <html>\n\n")
                    self.event(self.piece(chat, word))
                else:
                    self.event(self.piece(chat, "", "length" if model == "long" else "stop"))
                    self.event({**self.piece(chat, ""), "choices": [], "usage": usage(len(words) + 1)})
                    self.chunk(b"data: [DONE]\n\n")
                self.chunk(b"")
            except OSError:
                server.left.set()

        def piece(self, chat: bool, text: str, reason: str | None = None) -> dict[str, Any]:
            part = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
            about = {"id": "1", "created": 0, "model": "m", "system_fingerprint": "", "object": "chunk"}
            return about | {"choices": [{"index": 0, "finish_reason": reason, **part}]}

        def event(self, content: dict[str, Any]) -> None:
            self.chunk(f"data: {json.dumps(content)}\n\n".encode())

        def chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def start(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def refuse(self, status: int) -> None:
            body = json.dumps({"error": {"message": f"no, {TOKEN} would be right"}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{http.server_port}/v1"
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    http.shutdown()
    http.server_close()
    thread.join()


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
