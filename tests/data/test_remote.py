"""Objects by their address: what fails for a moment is asked for again, what is cut short never passes for whole."""

from __future__ import annotations

import http.server
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pointrend.data import remote
from pointrend.data.remote import (
    file_system,
    is_store,
    is_url,
    list_objects,
    object_version,
    read_object,
    retried,
)
from tests.helpers import serving


class Handler(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        first = self.asked.count(self.path) == 1
        status = 503 if self.path == "/busy" and first else 404 if self.path == "/none" else 200
        self.send_response(status)
        self.send_header("content-length", "10" if self.path == "/short" and first else "5")
        if self.path != "/bare":
            self.send_header("etag", '"abc"')
        self.end_headers()
        self.wfile.write(b"image")

    def do_HEAD(self) -> None:
        self.send_response(405 if self.path == "/get-only" else 200)
        if self.path != "/bare":
            self.send_header("etag", '"abc"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    Handler.asked = []
    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_addresses_are_no_paths_and_paths_no_addresses() -> None:
    for address in ("http://a/b", "HTTPS://a", "s3://b/c", "gs://b", "az://b", "hf://b", "memory://b"):
        assert is_url(address)
    for path in ("a/b.png", r"C:\a.png", "C://a.png", "file:///a.png", "s3:/a", Path("s3://a"), "ftp://a"):
        assert not is_url(path)
    assert is_store("s3://a")
    assert not is_store("http://a")


@pytest.mark.parametrize("path", ["/busy", "/short"])
def test_what_passes_is_asked_for_again(web: str, path: str) -> None:
    with pytest.raises(ConnectionError, match="could not be fetched"):
        read_object(web + path)
    Handler.asked = []
    assert retried(lambda: read_object(web + path)) == b"image"
    assert len(Handler.asked) == 2


def test_what_does_not_pass_is_asked_for_once(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError, match="404"):
        retried(lambda: read_object(f"{web}/none"))
    assert len(Handler.asked) == 1
    monkeypatch.setattr(remote, "LARGEST_OBJECT", 4)
    with pytest.raises(ConnectionError, match="more than 4 bytes"):
        retried(lambda: read_object(f"{web}/large"))
    assert len(Handler.asked) == 2
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: pytest.fail("asks again"))
    with pytest.raises(ConnectionError, match="control characters"):
        retried(lambda: read_object(f"{web}/my data"))
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="POINTREND_OFFLINE"):
        retried(lambda: read_object(f"{web}/any"))


def test_at_last_the_error_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        retried(lambda: read_object("http://127.0.0.1:9/a"), attempts=4)
    assert len(pauses) == 3
    assert 0.25 <= pauses[0] <= 0.5 < pauses[2] <= 2


def test_versions_of_web_addresses(web: str) -> None:
    assert object_version(f"{web}/a") == "abc"
    assert object_version(f"{web}/bare") == ""
    assert object_version(f"{web}/get-only") == ""


def test_a_store_is_listed_by_folder_and_by_pattern() -> None:
    store, _ = file_system("memory://bucket")
    store.store.clear()
    for name in ("a/1.png", "a/b/2.png", "c.txt"):
        store.pipe_file(f"/bucket/{name}", name.encode())
    listed = dict(list_objects("memory://bucket/a/"))
    assert [*listed] == ["memory://bucket/a/1.png", "memory://bucket/a/b/2.png"]
    assert [name for name, _ in list_objects("memory://bucket/*.txt")] == ["memory://bucket/c.txt"]
    assert listed["memory://bucket/a/1.png"] == object_version("memory://bucket/a/1.png")
    assert read_object("memory://bucket/a/1.png") == b"a/1.png"
    with pytest.raises(ConnectionError, match="no such object"):
        retried(lambda: read_object("memory://bucket/none"))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(ImportError, match=r"gs://b/a: .*pip install gcsfs .*'pointrend\[remote\]'"):
        read_object("gs://b/a")


def test_a_store_without_an_account_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def without(*_: object, **__: object) -> None:
        raise ValueError("Must provide an account_name")

    monkeypatch.setattr(fsspec, "url_to_fs", without)
    with pytest.raises(ConnectionError, match=r"az://b/a: could not be fetched .*account_name"):
        read_object("az://b/a")
