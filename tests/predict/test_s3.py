"""A store that is overloaded now and then, and that cuts an object short: every image has its row all the same."""

from __future__ import annotations

import http.client
import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto.server", reason="not installed: pip install 'moto[server]'")
pytest.importorskip("s3fs")
from moto.server import ThreadedMotoServer

from pointrend.predict import Predictor
from pointrend.predict.job import run_job
from pointrend.predict.tasks import find_tasks
from tests.helpers import serving
from tests.predict.models import Counting, corrupt, make_image

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"


class Unreliable(http.server.BaseHTTPRequestHandler):
    """In front of the store: every fifth answer is 503, and the first one of an object ends in its middle."""

    protocol_version = "HTTP/1.1"
    store: tuple[str, int]
    count = 0
    cut = False

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        type(self).count += 1
        if self.count % 5 == 0:
            self.head(503, {"content-length": str(len(SLOW_DOWN))}, SLOW_DOWN)
            return
        connection = http.client.HTTPConnection(*self.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        content = found.read()
        headers = {name: value for name, value in found.getheaders() if name.lower() not in SKIPPED}
        connection.close()
        headers["content-length"] = headers.pop("Content-Length", None) or str(len(content))
        if self.command == "GET" and self.path.endswith("/3.png") and not self.cut:
            type(self).cut = True
            content = content[: len(content) // 2]
            self.close_connection = True
        self.head(found.status, headers, content if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def head(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


SKIPPED = ("transfer-encoding", "connection", "date", "server")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the store itself; everybody else goes through `Unreliable`."""
    import boto3
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    Unreliable.store = moto.get_host_and_port()
    with serving(Unreliable) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        yield boto3.client("s3", endpoint_url="http://{}:{}".format(*Unreliable.store))
    moto.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of boto and aiohttp
def test_errors_that_pass_leave_no_trace(store: Any, tmp_path: Path) -> None:
    store.create_bucket(Bucket="photos")
    for number in range(8):
        make_image(tmp_path / f"{number}.png", bright=number % 3 > 0)
    corrupt(tmp_path / "bad.png")
    for path in tmp_path.glob("*.png"):
        store.upload_file(str(path), "photos", f"in/{path.name}")

    def run() -> Any:
        predictor = Predictor(Counting(), device="cpu")
        return run_job(predictor, find_tasks(["s3://photos/in/"]), "s3://photos/out")

    summary = run()
    assert (summary.images, summary.failures) == (8, 1)
    assert Unreliable.cut
    listed = store.list_objects_v2(Bucket="photos", Prefix="out/part-")["Contents"]
    parts = [store.get_object(Bucket="photos", Key=one["Key"])["Body"].read() for one in listed]
    rows = [json.loads(line) for part in parts for line in part.splitlines()]
    assert sorted(len(row["masks"]) for row in rows) == [0, 0, 0, 1, 1, 1, 1, 1]
    make_image(tmp_path / "5.png", size=(40, 40))
    store.upload_file(str(tmp_path / "5.png"), "photos", "in/5.png")
    again = run()
    assert (again.images, again.skipped, again.failures) == (1, 7, 1)
