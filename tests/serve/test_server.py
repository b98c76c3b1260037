"""The service on a socket: clients that send slowly, or go away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="not installed: pip install 'pointrend[serve]'")
pytest.importorskip("uvicorn")
import uvicorn

from pointrend.app.limits import Limits
from pointrend.predict import Predictor
from pointrend.serve.api import ServiceLimits, build_service
from pointrend.serve.backends import TorchBackend
from tests.predict.models import make_image
from tests.serve.test_api import Slow, wait


@contextmanager
def served(model: Any, **limits: Any) -> Iterator[tuple[str, int]]:
    app = build_service(TorchBackend(Predictor(model, device="cpu")), ServiceLimits(Limits(1, 1), **limits))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def send(address: tuple[str, int], body: bytes, length: int) -> socket.socket:
    """A request that says it has so many bytes."""
    connection = socket.create_connection(address, timeout=10)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def metrics(address: tuple[str, int]) -> str:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        content = b""
        while part := connection.recv(2**16):
            content += part
    return content.decode()


def test_a_slow_sender_is_left() -> None:
    with served(Slow(), seconds=0.5) as address, send(address, b"\x89PNG", 1000) as connection:
        begun = time.monotonic()
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begun < 5


def test_who_goes_away_is_not_predicted(tmp_path: Path) -> None:
    image, model = make_image(tmp_path / "a.png").read_bytes(), Slow()
    with served(model) as address:
        first = send(address, image, len(image))
        wait(lambda: "at_work 1.0" in metrics(address))
        for _ in range(3):
            send(address, image, len(image)).close()
        send(address, image[:10], len(image)).close()
        wait(lambda: 'status="499"} 3.0' in metrics(address))
        model.go.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        first.close()
        assert model.batches == [1]
