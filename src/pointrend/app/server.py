"""What the network may reach: the page, a way in for pictures, a way out for results, and nothing else.

gradio brings routes of its own, some of which read files or fetch addresses that a visitor names. The gate lets only
those through that the page needs, none of which takes a path on this computer; pictures come in by a route of ours that
keeps them in memory, so that neither side needs files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pointrend.app.desk import BusyError, Desk
from pointrend.app.page import build_page, look

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
READABLE = re.compile(
    rf"/|/config/?|/theme\.css|/gradio_api/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    rf"|/(assets|static)(/{NAME})+|/gradio_api/(startup-events|queue/data|heartbeat/{NAME})"
    rf"|/result/{NAME}/{NAME}"
)
WRITABLE = re.compile(r"/picture|/gradio_api/(queue/join|cancel|reset)/?")
CALL_BYTES = 2**16
"""A slider's call is a few hundred bytes."""
HEADERS = {
    # Whatever gradio or a later version of it asks for elsewhere, the browser does not fetch it.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def build_app(desk: Desk, *, waiting: int = 24, hosts: frozenset[str] | None = None) -> App:
    """The whole web application.

    Args:
        waiting: calls in the queue.
        hosts: names under which the page may be asked for; any, if not given. A page of somebody else's that makes
            its own name point to this computer is turned away by this.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.post("/picture")
    async def picture(request: Request) -> Response:
        content = bytearray()
        try:
            desk.limits.check_size(int(request.headers.get("content-length") or 1))
            async for part in request.stream():
                content += part
                desk.limits.check_size(len(content) or 1)
            name = unquote(request.headers.get("x-file-name", ""))[:200]
            ticket = await run_in_threadpool(desk.accept, bytes(content), name)
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "3"})
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"ticket": ticket})

    @app.get("/result/{ticket}/{name}")
    def result(ticket: str, name: str) -> Response:
        found = desk.download(ticket, name)
        if found is None:
            return Response("This result is no longer kept here. Move a slider and download again.", 404)
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(found[0], media_type=found[1], headers=headers)

    page = build_page(desk, waiting=waiting)
    closed: dict[str, Any] = {
        "allowed_paths": [],
        "blocked_paths": ["/"],
        "max_file_size": 1,
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
    }
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], show_error=True, ssr_mode=False, pwa=False, **closed, **look()
    )
    return Gate(app, hosts)


@dataclass(frozen=True)
class Gate:
    """Lets known requests through, small and from the page itself, and adds headers to every answer."""

    app: App
    hosts: frozenset[str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection (ASGI)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self.refuse(scope)
        if refusal is None and scope["method"] == "POST" and scope["path"] != "/picture":
            body = await small_body(receive)
            refusal = (
                (413, "too large") if body is None else None if is_plain(body) else (422, "not understood")
            )
            receive = replay(body or b"")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = [
                    (k, v)
                    for k, v in message.get("headers", [])
                    if k.decode("latin-1").lower() not in HEADERS
                ]
                message["headers"] = known + [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        if refusal is not None:
            await Response(refusal[1], refusal[0])(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    def refuse(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, or None for a request that may pass."""
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return 421, "this server is not known by that name"
        pattern = {"GET": READABLE, "HEAD": READABLE, "POST": WRITABLE}.get(scope["method"])
        path = scope["path"]
        if pattern is None or ".." in path or not pattern.fullmatch(path):
            return 404, "there is nothing here"
        origin = headers.get("origin")
        if scope["method"] == "POST" and origin is not None and urlsplit(origin).netloc != host:
            return 403, "only the page itself may call this"
        return None


async def small_body(receive: Receive) -> bytes | None:
    """The body of a request, or None if it has more than `CALL_BYTES`."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > CALL_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)


def replay(body: bytes) -> Receive:
    """A body that was read, to be read again; afterwards the connection seems silent."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def is_plain(body: bytes) -> bool:
    """Whether a call is JSON whose inputs are texts, numbers and truth values: gradio would fetch or read what a
    dictionary among them names as a file.
    """
    try:
        call = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return False
    if not isinstance(call, dict):
        return False
    inputs = call.get("data") or []
    return isinstance(inputs, list) and all(isinstance(v, str | int | float | None) for v in inputs)


def serve(app: App, host: str, port: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        OSError: the port is taken.
    """
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", limit_concurrency=400, server_header=False)
