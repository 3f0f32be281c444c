"""What stands before gradio: large requests, and what gradio can do that this page has no use for, end here."""

import logging
import re
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_FILE = "5mb"  # of votes
LARGEST_BODY = 6 * 2**20  # bytes: such a file, and what is sent around it
# Files from the disk, pages of others, recordings, other people's sessions, components' own files.
CLOSED = re.compile(
    r"/(file[=/]|proxy=|stream/|custom_component/|process_recording|deep_link|(undo-)?vibe-"
    r"|monitoring|dev/|runs|run-history|pwa_icon/)"
)
MCP = "/gradio_api/mcp"
# The functions behind the report card. What is asked of them is not checked by gradio before it looks it up.
FUNCTIONS = "/gradio_api/component_server"
UNREADABLE = JSONResponse({"detail": "this request is not what is read here; see /?view=api"}, 422)

logger = logging.getLogger(__name__)


class Gate:
    """Answers 404 to what is closed, one line where gradio fails, and tells the MCP server who calls it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if CLOSED.search(scope["path"]):
                await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
                return
            if MCP in scope["path"] and scope.get("client"):
                others = [header for header in scope["headers"] if header[0].lower() != b"x-forwarded-for"]
                scope = {**scope, "headers": [*others, (b"x-forwarded-for", scope["client"][0].encode())]}
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            if begun or scope["type"] != "http":
                raise
            logger.exception("a request to %r failed", scope["path"])
            failed = JSONResponse({"detail": "this request cannot be answered"}, 500)
            await (UNREADABLE if FUNCTIONS in scope["path"] else failed)(scope, receive, send)


async def unreadable(_: Request, error: Exception) -> JSONResponse:
    """In place of an answer that repeats the request, which may be large, or hold what no answer can."""
    return UNREADABLE


# What gradio makes its server with.
SERVER: dict[str, Any] = {
    "middleware": [Middleware(Gate), Middleware(RequestBodyLimitMiddleware, max_body_size=LARGEST_BODY)],
    "exception_handlers": {RequestValidationError: unreadable},
}
