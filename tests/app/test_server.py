"""The running server: nothing of this computer can be read from outside, and many visitors at once are answered."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from tests.app.browser import answers, fetch, served

MODEL = "shapes-semantic"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(
        tmp_path_factory.mktemp("server"), "--queue", "5", "--no-zoo", "--max-megabytes", "2"
    ) as address:
        yield address


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def render(server: str, image: Any, model: Any = MODEL, **settings: Any) -> tuple[int, Any]:
    """Status and content."""
    status, content = fetch(
        server, "/render", json.dumps({"image": image, "model": model, **settings}).encode()
    )
    return status, json.loads(content)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "//etc/passwd", "/%2fetc/passwd", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
     "/app.js/../server.py", "/..%2fserver.py", "/static/app.js", "/server.py", "/index.html", "/app.css%00",
     "/results/../../../etc/passwd/a", "/results/a/..%2f..%2fetc%2fpasswd", "/results/%2fetc/passwd",
     "/images/1", "/docs", "/redoc", "/openapi.json"],
)  # fmt: skip
def test_no_path_of_the_server_is_readable(server: str, path: str) -> None:
    status, content = fetch(server, path)
    assert status == 404
    assert b"root:" not in content
    assert b"import " not in content


@pytest.mark.parametrize(
    ("image", "model"),
    [("/etc/passwd", MODEL), ("example:/etc/passwd", MODEL), ("example:Crowd", "/etc/passwd")],
)
def test_ids_and_models_are_no_paths(server: str, image: str, model: str) -> None:
    status, content = render(server, image, model)
    assert status == 422
    assert "root:" not in content["error"]


def test_a_request_that_is_none_gets_a_sentence(server: str) -> None:
    for body in (b"", b"{", b"[" * 50_000, b"\xff", b" " * 2**17, b'{"image": {"path": "/etc/passwd"}}'):
        status, content = fetch(server, "/render", body)
        assert status == 422
        assert json.loads(content)["error"].endswith("Reload the page.")
    for wrong in ({"points": -1}, {"resolution": 2**40}, {"min_score": None}, {"path": "/etc/passwd"}):
        assert render(server, "example:Crowd", **wrong)[0] == 422


def test_files_are_refused_in_words_and_the_server_goes_on(server: str) -> None:
    for content, words in [
        (b"\0" * (2 * 2**20 + 1), "larger than 2 MB"),
        (b"", "empty"),
        (b"nothing", "is no image"),
        (encoded(0)[:500], "is no image"),
    ]:
        status, answer = fetch(server, "/images", content, X_File_Name=quote("ärger.png"))
        assert status == 422
        assert words in json.loads(answer)["error"]
    status, answer = fetch(server, "/images", encoded(0))
    assert (status, list(json.loads(answer))) == (200, ["image"])


def test_other_pages_are_refused(server: str) -> None:
    assert fetch(server, "/images", encoded(0), Origin="http://evil.example")[0] == 403
    assert fetch(server, "/options", Host="evil.example")[0] == 421


def test_a_result_is_downloaded_as_a_file_and_not_shown_as_a_page(server: str) -> None:
    status, rendered = render(server, "example:Crowd", resolution=64, points=64)
    assert status == 200
    result = f"/results/{rendered['result']}"
    assert json.loads(fetch(server, f"{result}/coco.json")[1])["images"][0]["width"] == 768
    assert fetch(server, f"{result}/outlines.svg")[1].startswith(b"<svg")
    assert fetch(server, f"{result}/passwd")[0] == 404
    assert fetch(server, "/results/guessed/labels.png")[0] == 404


def test_twenty_visitors_at_once_are_served_or_asked_to_come_again(server: str) -> None:
    finished, busy, wrong = [], [], []
    start = threading.Barrier(20)

    def until_served(number: int, path: str, body: bytes) -> Any:
        for _ in range(300):
            status, content = fetch(server, path, body)
            if status == 200:
                return json.loads(content)
            assert status == 503
            assert "Busy" in json.loads(content)["error"]
            busy.append(number)
            time.sleep(0.2)
        raise AssertionError("never served")

    def visit(number: int) -> None:
        try:
            start.wait(60)
            image = until_served(number, "/images", encoded(number))["image"]
            body = json.dumps({"image": image, "model": MODEL, "resolution": 64, "points": 64}).encode()
            assert until_served(number, "/render", body)["hover"]["width"] == 64
            finished.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert sorted(finished) == list(range(20))
    assert busy, "twenty at once fit into a queue of five"
    assert answers(server)
