"""What the gate lets through is a list; everything else, whatever gradio would do with it, is not there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pointrend.app.request_filter import CALL_BYTES, Gate, Message, is_plain

CALL = json.dumps({"fn_index": 1, "data": ["ticket", 3, 0.5, True, None], "session_hash": "abc"}).encode()


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that it was sent."""
    message = await receive() if scope["method"] == "POST" else {}
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"X-Content-Type-Options", b"any")]}
    )
    await send({"type": "http.response.body", "body": message.get("body", b"")})


def ask(
    method: str, path: str, body: bytes = b"", hosts: frozenset[str] | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the gate's answer."""
    sent: list[Message] = []
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]
    parts: list[Message] = [
        {"type": "http.request", "body": half, "more_body": i == 0} for i, half in enumerate(halves)
    ]

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    named = {"host": "localhost:7860", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items()],
    }
    asyncio.run(Gate(behind, hosts)(scope, receive, send))
    told = [(k.decode().lower(), v.decode()) for k, v in sent[0]["headers"]]
    assert len(told) == len(dict(told)), "a header twice"
    return sent[0]["status"], dict(told), sent[1]["body"]


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index-Dph_9.js", "/static/js/a.min.js", "/gradio_api/queue/data",
     "/gradio_api/heartbeat/c4zq", "/result/aB-_1/coco.json"],
)  # fmt: skip
def test_what_the_page_needs_passes(path: str) -> None:
    assert ask("GET", path)[0] == 200
    assert ask("POST", path, CALL)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/file/etc/passwd", "/gradio_api/file=http://localhost/x",
     "/gradio_api/proxy=http://localhost/", "/gradio_api/upload_progress", "/gradio_api/info", "/monitoring",
     "/gradio_api/runs", "/gradio_api/custom_component/1/client/x/..", "/assets/../../../etc/passwd",
     "/assets/..", "/static//etc/passwd", "/assets/%2e%2e/x", "/assets/a\\b", "/assets/a\0", "/svelte/x",
     "/gradio_api/stream/a/b/c/playlist-file", "/gradio_api/vibe-code/", "/docs", "/result/a/../b", "/assets/.env"],
)  # fmt: skip
def test_what_reads_files_or_addresses_is_not_there(path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(method, path, CALL)[0] == 404


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/run/predict", "/gradio_api/call/x", "/login",
                                  "/gradio_api/component_server", "/gradio_api/process_recording"])  # fmt: skip
def test_other_ways_in_are_shut(path: str) -> None:
    assert ask("POST", path, CALL)[0] == 404


def test_a_call_arrives_as_it_was_sent() -> None:
    assert ask("POST", "/gradio_api/queue/join", CALL)[2] == CALL


@pytest.mark.parametrize(
    "inputs",
    [[{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], [["a"]], {"a": 1}, [[{"path": "x"}]]],
)
def test_a_call_that_names_a_file_is_refused(inputs: Any) -> None:
    body = json.dumps({"data": inputs}).encode()
    assert not is_plain(body)
    assert ask("POST", "/gradio_api/queue/join", body)[0] == 422
    assert ask("POST", "/gradio_api/queue/join", body.replace(b"path", b"p\\u0061th"))[0] == 422


@pytest.mark.parametrize("body", [b"no json", b"[" * 60_000, b"[]", b'"x"', b"\xff\xfe"])
def test_a_call_that_is_none_is_refused(body: bytes) -> None:
    assert ask("POST", "/gradio_api/queue/join", body)[0] == 422


def test_a_large_call_is_refused() -> None:
    assert ask("POST", "/gradio_api/queue/join", b" " * (CALL_BYTES + 1))[0] == 413


def test_images_are_not_held_back_by_the_limit_for_calls() -> None:
    assert ask("POST", "/image", b"\0" * (2 * CALL_BYTES))[0] == 200


def test_other_pages_cannot_call() -> None:
    for path in ("/image", "/gradio_api/queue/join"):
        assert ask("POST", path, CALL, origin="http://evil.example")[0] == 403
        assert ask("POST", path, CALL, origin="null")[0] == 403
        assert ask("POST", path, CALL, origin="http://localhost:7860")[0] == 200


def test_a_name_that_was_made_to_point_here_is_turned_away() -> None:
    hosts = frozenset({"localhost", "127.0.0.1", "::1"})
    assert ask("GET", "/", hosts=hosts)[0] == 200
    assert ask("GET", "/", hosts=hosts, host="[::1]:80")[0] == 200
    for host in ("evil.example", "evil.example:7860", "", "localhost.evil.example", "localhost@evil.example"):
        assert ask("GET", "/", hosts=hosts, host=host)[0] == 421
    assert ask("GET", "/", host="my.server")[0] == 200


def test_every_answer_forbids_the_browser_to_ask_elsewhere() -> None:
    for answer in (ask("GET", "/"), ask("GET", "/nothing"), ask("POST", "/gradio_api/queue/join", b"x")):
        assert answer[1]["content-security-policy"].startswith("default-src 'self'; ")
        assert "http" not in answer[1]["content-security-policy"]
        assert answer[1]["x-content-type-options"] == "nosniff"


def test_web_sockets_are_not_answered() -> None:
    asyncio.run(Gate(behind)({"type": "websocket"}, None, None))  # type: ignore[arg-type]  # touches neither
