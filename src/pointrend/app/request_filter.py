"""Requests from other sites are refused, and the browser is told to fetch nothing from them (ASGI middleware)."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class RequestFilter:
    """Checks the names in a request's Host and Origin, and adds `SECURITY_HEADERS` to every response.

    Args:
        hosts: names that the page may be asked for by, without ports; any if not given. This turns away a foreign
            page whose own name was made to point to this computer (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await (self.refusal(Headers(scope=scope)) or self.app)(scope, receive, send_with_headers)

    def refusal(self, headers: Headers) -> PlainTextResponse | None:
        """The response to a request with these headers that is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            return PlainTextResponse("this server is not known by that name", 421)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("only the page itself may call this", 403)
        return None
