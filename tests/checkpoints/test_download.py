"""Downloads continue where they stopped, are checked, and leave nothing half there under the real name."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from typing import ClassVar

import pytest

from pointrend.checkpoints.download import cache_folder, fetch, offline

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA, with ranges unless told otherwise; `drop_after` bytes the connection ends."""

    drop_after = None
    ranges = True
    requests: ClassVar[list] = []

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.ranges else None
        start = int(asked[1]) if asked else 0
        type(self).requests.append(start)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start : self.drop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    handler = type("Handler", (Handler,), {"requests": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}/file.bin"
        running.shutdown()


def test_a_file_is_fetched_checked_and_kept(server, tmp_path):
    handler, url = server
    seen = []
    target = tmp_path / "cache" / "file.bin"
    assert fetch(url, target, sha256=SHA256[:8], progress=lambda *p: seen.append(p)) == target
    assert target.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert fetch(url, target, sha256=SHA256) == target
    assert handler.requests == [0]
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]


def test_an_interrupted_download_is_continued(server, tmp_path):
    handler, url = server
    handler.drop_after = 100_000
    with pytest.raises(ConnectionError, match="100000 bytes are kept"):
        fetch(url, tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    handler.drop_after = None
    fetch(url, tmp_path / "file.bin", sha256=SHA256)
    assert handler.requests == [0, 100_000]
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    handler, url = server
    handler.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 50)
    fetch(url, tmp_path / "file.bin", sha256=SHA256)


@pytest.mark.parametrize("left", [DATA, DATA + b"more"])
def test_a_complete_or_overlong_remainder_is_settled(server, tmp_path, left):
    (tmp_path / "file.bin.part").write_bytes(left)
    fetch(server[1], tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_another_hash_is_an_error_and_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match="does not begin with 00000000"):
        fetch(server[1], tmp_path / "file.bin", sha256="00000000")
    assert not list(tmp_path.iterdir())


def test_a_file_put_there_by_hand_is_checked_but_never_removed(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"another")
    with pytest.raises(ValueError, match="does not begin with"):
        fetch("http://unused.invalid/file.bin", tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").exists()


def test_failures_name_the_url_and_where_to_put_the_file(server, tmp_path):
    url = server[1].replace("file.bin", "gone.bin")
    with pytest.raises(ConnectionError, match="404") as error:
        fetch(url, tmp_path / "gone.bin")
    assert f"download {url} by other means and put it at {tmp_path / 'gone.bin'}" in str(error.value)


def test_offline_means_no_connection_at_all(server, tmp_path, monkeypatch):
    handler, url = server
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    assert offline()
    with pytest.raises(ConnectionError, match="POINTREND_OFFLINE is set") as error:
        fetch(url, tmp_path / "file.bin")
    assert url in str(error.value)
    assert str(tmp_path / "file.bin") in str(error.value)
    assert handler.requests == []


def test_the_cache_folder_follows_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("POINTREND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "pointrend"
