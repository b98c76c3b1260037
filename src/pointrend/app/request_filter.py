"""What the network may reach: a list of requests, which no path of this computer is part of, and nothing else.

gradio brings routes of its own, some of which read files or fetch addresses that a visitor names. The gate stands
before it (ASGI) and lets only those through that the page needs, with nothing in them that gradio would take for a
file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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
WRITABLE = re.compile(r"/image|/gradio_api/(queue/join|cancel|reset)/?")
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
        if refusal is None and scope["method"] == "POST" and scope["path"] != "/image":
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

        if refusal is None:
            await self.app(scope, receive, answer)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await answer({"type": "http.response.start", "status": refusal[0], "headers": headers})
        await answer({"type": "http.response.body", "body": refusal[1].encode()})

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
