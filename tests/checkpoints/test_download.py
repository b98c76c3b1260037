"""Downloads continue where they stopped, are checked, and leave nothing half there under the real name."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import sys
import threading
from contextlib import closing
from typing import ClassVar

import pytest

from pointrend.checkpoints.download import cache_folder, fetch, offline

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA, with ranges unless told otherwise; `drop_after` bytes the connection ends."""

    drop_after = None
    ranges = True
    breaks_off = False
    requests: ClassVar[list] = []
    asked: threading.Event
    """Set when the first request has come."""
    hold: threading.Event
    """What is beyond the first 100 000 bytes waits for it."""

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.ranges else None
        start = int(asked[1]) if asked else 0
        type(self).requests.append(start)
        self.asked.set()
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
        if self.breaks_off:
            return
        self.wfile.write(DATA[start : self.drop_after][:100_000])
        self.hold.wait(60)
        self.wfile.write(DATA[start : self.drop_after][100_000:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    events = {"asked": threading.Event(), "hold": threading.Event()}
    events["hold"].set()
    handler = type("Handler", (Handler,), {"requests": [], **events})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.handle_error = lambda *_: None  # a client that was killed is no error here
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}/file.bin"
        running.shutdown()


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_is_fetched_checked_and_kept(server, tmp_path):
    handler, url = server
    seen = []
    target = tmp_path / "cache" / "file.bin"
    assert fetch(url, target, checksum=f"sha256:{SHA256[:8]}", progress=lambda *p: seen.append(p)) == target
    assert target.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert fetch(url, target, checksum=f"sha256:{SHA256}") == target
    assert handler.requests == [0]
    assert names(target.parent) == {"file.bin", "file.bin.sha256", "file.bin.lock"}
    assert (tmp_path / "cache" / "file.bin.sha256").read_text() == f"{SHA256}  file.bin\n"


def test_an_interrupted_download_is_continued(server, tmp_path):
    handler, url = server
    handler.drop_after = 100_000
    with pytest.raises(ConnectionError, match="100000 bytes are kept"):
        fetch(url, tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    handler.drop_after = None
    fetch(url, tmp_path / "file.bin", checksum=f"sha256:{SHA256}")
    assert handler.requests == [0, 100_000]
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_damaged_remainder_is_fetched_once_more_from_the_beginning(server, tmp_path):
    handler, url = server
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    fetch(url, tmp_path / "file.bin", checksum=f"sha256:{SHA256}")
    assert handler.requests == [1000, 0]
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    handler, url = server
    handler.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 50)
    fetch(url, tmp_path / "file.bin", checksum=f"sha256:{SHA256}")


@pytest.mark.parametrize("left", [DATA, DATA + b"more"])
def test_a_complete_or_overlong_remainder_is_settled(server, tmp_path, left):
    (tmp_path / "file.bin.part").write_bytes(left)
    fetch(server[1], tmp_path / "file.bin", checksum=f"sha256:{SHA256}")
    assert (tmp_path / "file.bin").read_bytes() == DATA


@pytest.mark.parametrize("left", [b"", DATA[:500]])
@pytest.mark.parametrize("checksum", ["sha256:00000000", "md5:000000"])
def test_another_hash_is_an_error_and_leaves_nothing(server, tmp_path, checksum, left):
    if left:
        (tmp_path / "file.bin.part").write_bytes(left)
    algorithm, _, expected = checksum.partition(":")
    with pytest.raises(ValueError, match=f"expected {expected}") as error:
        fetch(server[1], tmp_path / "file.bin", checksum=checksum)
    assert server[1] in str(error.value)
    assert hashlib.new(algorithm, DATA).hexdigest() in str(error.value)
    assert names(tmp_path) == {"file.bin.lock"}


def test_md5_is_the_other_hash_that_publishers_name(server, tmp_path):
    digits = hashlib.md5(DATA).hexdigest()[:6]
    assert fetch(server[1], tmp_path / "file.bin", checksum=f"md5:{digits}").is_file()


def test_a_file_that_changed_since_it_was_fetched_is_noticed(server, tmp_path):
    target = fetch(server[1], tmp_path / "file.bin")
    fetch(server[1], target)
    target.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(ValueError, match=r"is not what was fetched: remove it and file\.bin\.sha256"):
        fetch(server[1], target)


def test_a_file_put_there_by_hand_is_checked_but_never_removed(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"another")
    with pytest.raises(ValueError, match="is not the file of http://unused"):
        fetch("http://unused.invalid/file.bin", tmp_path / "file.bin", checksum=f"sha256:{SHA256}")
    assert (tmp_path / "file.bin").exists()


def test_failures_name_the_url_and_where_to_put_the_file(server, tmp_path):
    url = server[1].replace("file.bin", "gone.bin")
    with pytest.raises(ConnectionError, match="404") as error:
        fetch(url, tmp_path / "gone.bin")
    assert f"download {url} by other means and put it at {tmp_path / 'gone.bin'}" in str(error.value)


def test_a_connection_that_breaks_off_is_a_connection_error(server, tmp_path):
    server[0].breaks_off = True
    with pytest.raises(ConnectionError, match=f"ended after 0 of {len(DATA)} bytes"):
        fetch(server[1], tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


FETCH = "import sys; from pointrend.checkpoints.download import fetch; fetch(*sys.argv[1:3], checksum=sys.argv[3])"


def fetching(url, target, checksum=f"sha256:{SHA256}"):
    return subprocess.Popen([sys.executable, "-c", FETCH, url, target, checksum], stderr=subprocess.PIPE)


def test_processes_that_want_one_file_at_once_fetch_it_once(server, tmp_path):
    handler, url = server
    handler.hold.clear()
    first = fetching(url, tmp_path / "file.bin")
    assert handler.asked.wait(60)
    others = [fetching(url, tmp_path / "file.bin") for _ in range(3)]
    # None of them gets through while the first is at it, however long they are given.
    with pytest.raises(subprocess.TimeoutExpired):
        others[0].wait(1.0)
    handler.hold.set()
    for process in (first, *others):
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
    assert handler.requests == [0]
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_process_that_is_killed_lets_the_next_go_on_where_it_stopped(server, tmp_path):
    handler, url = server
    handler.hold.clear()
    first = fetching(url, tmp_path / "file.bin")
    assert handler.asked.wait(60)
    second = fetching(url, tmp_path / "file.bin")
    first.kill()
    with closing(first.stderr):
        first.wait(60)
    handler.hold.set()
    assert second.communicate(timeout=60)[1] == b""
    assert second.returncode == 0
    assert len(handler.requests) == 2
    assert (tmp_path / "file.bin").read_bytes() == DATA


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
