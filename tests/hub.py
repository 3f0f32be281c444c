"""A server on loopback that speaks the part of the Hub's interface that is used here, faults included."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_good"
API = re.compile(
    r"/api/(?:models|datasets|spaces)/([^/]+/[^/]+)/(preupload|commit|tree|revision|runtime|hardware|logs)(?:/([^/]+)(?:/(.+))?)?"
)
FILE = re.compile(r"/(?:datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """What was asked when it was made, and what was committed since; of a Space its stages to come, and its log."""

    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    tags: list[str] = field(default_factory=lambda: ["main"])
    runtime: list[str] = field(default_factory=lambda: ["BUILDING", "RUNNING"])
    log: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return f"{self.commits:040d}"


@dataclass
class Hub:
    """The server's repositories by name. The next requests get the `faults` first, as HTTP codes, one each."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use this hub and no other."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a hub while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            if self.refused(needs_token=True):
                return
            if path == "/api/repos/create":
                self.create(json.loads(body))
                return
            asked = API.fullmatch(path)
            repository = hub.repositories.get(asked[1]) if asked else None
            if path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif repository is None or asked is None:
                self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif asked[2] == "preupload":
                kept = {"uploadMode": "regular", "shouldIgnore": False}
                self.answer(200, {"files": [{"path": each["path"]} | kept for each in json.loads(body)["files"]]})
            elif asked[2] == "hardware":
                repository.settings["hardware"] = json.loads(body)["flavor"]
                self.answer(200, {"stage": "BUILDING", "hardware": {}, "storage": None, "gcTimeout": None})
            else:
                self.commit(asked[1], repository, [json.loads(line) for line in body.splitlines()])

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if self.refused():
                return
            asked, wanted = API.fullmatch(path), FILE.fullmatch(path)
            name = (asked or wanted or [None, ""])[1]
            repository = hub.repositories.get(name or "")
            of_files = asked and asked[2] in ("tree", "revision")
            revision = unquote((wanted and wanted[2]) or (of_files and asked and asked[3]) or "main")
            private = repository is not None and repository.settings.get("visibility") == "private"
            if repository is None or (private and not self.known()):
                self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif repository.settings.get("gated") and not self.known():
                self.answer(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
            elif revision not in (*repository.tags, repository.sha):
                self.answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            elif wanted:
                self.send_file(repository, unquote(wanted[3]))
            elif asked and asked[2] == "runtime":
                stage = repository.runtime.pop(0) if len(repository.runtime) > 1 else repository.runtime[0]
                self.answer(200, {"stage": stage, "hardware": {}, "storage": None, "gcTimeout": None})
            elif asked and asked[2] == "logs":
                events = [f"data: {json.dumps({'data': line, 'timestamp': ''})}\n\n" for line in repository.log]
                self.respond(200, "".join(events).encode(), {"Content-Type": "text/event-stream"})
            elif asked and asked[2] == "tree":
                self.list_files(repository, asked[4])
            else:
                siblings = [{"rfilename": path} for path in sorted(repository.files)]
                self.answer(200, {"id": name, "sha": repository.sha, "siblings": siblings, "private": private})

        do_HEAD = do_GET

        def refused(self, needs_token: bool = False) -> bool:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.faults:
                self.answer(hub.faults.pop(0), {"error": "a fault"})
                return True
            if needs_token and not self.known():
                self.answer(401, {"error": "Invalid credentials in Authorization header"})
                return True
            return False

        def known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            known = name in hub.repositories
            hub.repositories.setdefault(name, Repository(asked))
            kinds = {"dataset": "datasets/", "space": "spaces/"}
            self.answer(409 if known else 200, {"url": f"{hub.address}/{kinds.get(asked.get('type', ''), '')}{name}"})

        def commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                if line["key"] == "file":
                    repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del repository.files[line["value"]["path"]]
            repository.commits += 1
            url = f"{hub.address}/{name}/commit/{repository.sha}"
            self.answer(200, {"success": True, "commitOid": repository.sha, "commitUrl": url})

        def list_files(self, repository: Repository, folder: str | None) -> None:
            files = {path: data for path, data in repository.files.items() if path.startswith(f"{folder or ''}")}
            if folder and not files:
                self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            listed = [{"type": "file", "path": path, "size": len(data), "oid": ""} for path, data in files.items()]
            self.answer(200, listed)

        def send_file(self, repository: Repository, path: str) -> None:
            if path not in repository.files:
                self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            content = repository.files[path]
            self.respond(200, content, {"X-Repo-Commit": repository.sha, "ETag": f'"{sha1(content).hexdigest()}"'})

        def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            self.respond(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

        def respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
