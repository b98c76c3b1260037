"""Addresses that strangers name lead nowhere inside."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pointrend.serve.fetch import fetch_public, is_public
from tests.helpers import serving

LIMITS: dict[str, Any] = {"max_bytes": 1000, "seconds": 2.0}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "http://169.254.169.254/latest/meta-data/")
            self.end_headers()
            return
        size = 5000 if self.path == "/large" else 5
        self.send_response(200)
        self.send_header("content-length", str(size * 2 if self.path == "/short" else size))
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(Handler) as port:
        yield port


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
     "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::",
     "ff02::1", "::"],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_outside_are_public() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700:4700::1111")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/", "http://127.1/",
     "http://169.254.169.254/latest/", "http://[::ffff:127.0.0.1]/", "http://0/"],
)  # fmt: skip
def test_every_public_host_does_not_mean_hosts_inside(url: str) -> None:
    with pytest.raises((ValueError, ConnectionError)) as error:
        fetch_public(url, hosts={"*"}, **LIMITS)
    assert "not allowed" in str(error.value) or "could not be fetched" in str(error.value)


def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    inside = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inside)
    with pytest.raises(ValueError, match="not allowed"):
        fetch_public("http://public.example/", hosts={"*"}, **LIMITS)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/a", "http://", "http://user:word@host/", "//host/a", "gopher://host/", "http://[",
     "http://host:99999/", "http://public.example:22/", "a"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url: "):
        fetch_public(url, hosts={"*"}, **LIMITS)


def test_a_host_that_is_named_may_be_inside(port: int) -> None:
    assert fetch_public(f"http://127.0.0.1:{port}/a", hosts={"127.0.0.1"}, **LIMITS) == b"xxxxx"
    with pytest.raises(ValueError, match="status 302"):
        fetch_public(f"http://127.0.0.1:{port}/redirect", hosts={"127.0.0.1"}, **LIMITS)
    with pytest.raises(ValueError, match="limit of 1,000 bytes"):
        fetch_public(f"http://127.0.0.1:{port}/large", hosts={"127.0.0.1"}, **LIMITS)
    with pytest.raises(ConnectionError, match="IncompleteRead"):
        fetch_public(f"http://127.0.0.1:{port}/short", hosts={"127.0.0.1"}, **LIMITS)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        fetch_public(f"http://127.0.0.1:{port}/a\r\nHost: evil", hosts={"127.0.0.1"}, **LIMITS)


def test_a_host_that_does_not_answer_is_left_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ConnectionError, match="could not be fetched"):
            fetch_public(
                f"http://127.0.0.1:{silent.getsockname()[1]}/", hosts={"127.0.0.1"}, max_bytes=10, seconds=0.3
            )


def test_a_host_that_answers_byte_by_byte_is_left_in_time() -> None:
    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    connection.sendall(b"a")
                    time.sleep(0.05)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match="could not be fetched"):
            fetch_public(
                f"http://127.0.0.1:{server.getsockname()[1]}/", hosts={"127.0.0.1"}, max_bytes=10, seconds=0.5
            )
        assert time.monotonic() - begun < 3
        thread.join(5)
        assert not thread.is_alive()
