"""Requests from other pages are refused, and every response forbids the browser to fetch from elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

from pointrend.app.limits import SECURITY_HEADERS, RequestFilter

LOCAL = {"localhost", "127.0.0.1", "::1"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request; sets one of the filter's headers itself."""
    headers = [(b"x-content-type-options", b"any"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def ask(hosts: set[str] | None = None, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the response."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "localhost:7860", **headers}
    scope = {
        "type": "http",
        "method": "GET",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(RequestFilter(app, hosts)(scope, None, send))  # type: ignore[arg-type]  # nothing is received
    received = [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]]
    assert len(received) == len(dict(received)), "a header twice"
    return sent[0]["status"], dict(received)


def test_other_pages_cannot_call() -> None:
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://localhost"):
        assert ask(origin=origin)[0] == 403
    assert ask(origin="http://localhost:7860")[0] == 200
    assert ask()[0] == 200


def test_a_name_that_was_made_to_point_here_is_turned_away() -> None:
    assert ask(LOCAL)[0] == 200
    assert ask(LOCAL, host="[::1]:80")[0] == 200
    for host in (
        "evil.example",
        "evil.example:7860",
        "",
        "localhost.evil.example",
        "evil.example/@localhost",
    ):
        assert ask(LOCAL, host=host)[0] == 421
    assert ask(host="my.server")[0] == 200


def test_every_response_forbids_the_browser_to_fetch_from_elsewhere() -> None:
    for status, headers in (ask(), ask(LOCAL, host="evil.example")):
        assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "http" not in headers["content-security-policy"]
        assert ("x-own" in headers) == (status == 200)
