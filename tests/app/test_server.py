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

QUEUE = 5
MODEL = "Shapes, every pixel (embedded)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(
        tmp_path_factory.mktemp("server"), "--queue", str(QUEUE), "--no-zoo", "--max-megabytes", "2"
    ) as address:
        yield address


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def slider_call(server: str) -> int:
    """The number of the call that a slider makes."""
    config = json.loads(fetch(server, "/config")[1])
    return next(call["id"] for call in config["dependencies"] if len(call["inputs"]) == 5)


def join(server: str, call: int, session: str, inputs: list[Any]) -> tuple[int, bytes]:
    body = json.dumps({"data": inputs, "fn_index": call, "session_hash": session}).encode()
    return fetch(server, "/gradio_api/queue/join", body, Content_Type="application/json")


def outcome(server: str, session: str) -> dict[str, Any]:
    """What the queue finally says."""
    content = fetch(server, f"/gradio_api/queue/data?session_hash={session}")[1].decode()
    messages = [
        json.loads(line.removeprefix("data: ")) for line in content.splitlines() if line.startswith("data: ")
    ]
    return next(message for message in messages if message["msg"] == "process_completed")


@pytest.mark.parametrize(
    "path",
    ["/file=/etc/passwd", "/gradio_api/file=/etc/passwd", "/gradio_api/file=//etc/passwd", "/file/etc/passwd",
     "/gradio_api/file=%2Fetc%2Fpasswd", "/gradio_api/file=../../../../etc/passwd", "/assets/../../../../etc/passwd",
     "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
     "/assets/..%2f..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/blocks.py",
     "/static/..%5c..%5cblocks.py", "/theme.css/../../etc/passwd", "/gradio_api/proxy=http://127.0.0.1/",
     "/gradio_api/file=http://127.0.0.1/", "/result/../../../etc/passwd/a", "/result/a/..%2f..%2fetc%2fpasswd",
     "/gradio_api/custom_component/1/client/component/..%2f..%2fblocks.py", "/svelte/../../blocks.py", "/monitoring",
     "/gradio_api/upload_progress?upload_id=1", "/%2fetc/passwd", "/docs", "/openapi.json", "/gradio_api/info"],
)  # fmt: skip
def test_no_path_of_the_server_is_readable(server: str, path: str) -> None:
    status, content = fetch(server, path)
    assert status == 404
    assert b"root:" not in content
    assert b"import " not in content


def test_a_call_cannot_name_a_file(server: str) -> None:
    for file in ({"path": "/etc/passwd"}, {"path": "http://127.0.0.1:9/x"}):
        inputs = [{**file, "meta": {"_type": "gradio.FileData"}}, MODEL, 64, 64, 0.5]
        assert join(server, slider_call(server), "file", inputs)[0] == 422


@pytest.mark.parametrize(("ticket", "model"), [("/etc/passwd", MODEL), ("example:Crowd", "/etc/passwd")])
def test_tickets_and_models_are_no_paths(server: str, ticket: str, model: str) -> None:
    session = f"path{len(ticket)}"
    assert join(server, slider_call(server), session, [ticket, model, 64, 64, 0.5])[0] == 200
    told = outcome(server, session)
    assert not told["success"]
    assert "root:" not in json.dumps(told)


def test_files_are_refused_in_words_and_the_server_goes_on(server: str) -> None:
    for content, words in [
        (b"\0" * (2 * 2**20 + 1), "larger than 2 MB"),
        (b"", "empty"),
        (b"nothing", "is no image"),
        (encoded(0)[:500], "is no image"),
    ]:
        status, told = fetch(server, "/image", content, X_File_Name=quote("ärger.png"))
        assert status == 422
        assert words in json.loads(told)["error"]
    status, told = fetch(server, "/image", encoded(0))
    assert (status, list(json.loads(told))) == (200, ["ticket"])


def test_a_result_goes_out_as_a_file_and_not_as_a_page(server: str) -> None:
    assert join(server, slider_call(server), "result", ["example:Crowd", MODEL, 64, 64, 0.5])[0] == 200
    facts = outcome(server, "result")["output"]["data"][1]
    assert json.loads(fetch(server, f"/result/{facts['result']}/coco.json")[1])["images"][0]["width"] == 768
    assert fetch(server, f"/result/{facts['result']}/outlines.svg")[1].startswith(b"<svg")
    assert fetch(server, f"/result/{facts['result']}/passwd")[0] == 404
    assert fetch(server, "/result/guessed/labels.png")[0] == 404


def test_twenty_visitors_at_once_are_served_or_told_to_come_again(server: str) -> None:
    call = slider_call(server)
    served_, busy, wrong = [], [], []
    start = threading.Barrier(20)

    def visit(number: int) -> None:
        try:
            start.wait(60)
            session = f"visitor{number}"
            for _ in range(100):
                status, told = fetch(server, "/image", encoded(number))
                if status == 200:
                    break
                assert status == 503
                assert "Busy" in json.loads(told)["error"]
                busy.append(number)
                time.sleep(0.2)
            inputs = [json.loads(told)["ticket"], MODEL, 64, 64, 0.5]
            for _ in range(200):
                status, told = join(server, call, session, inputs)
                if status == 200:
                    break
                assert status == 503
                assert b"Queue is full" in told
                busy.append(number)
                time.sleep(0.2)
            assert outcome(server, session)["success"]
            served_.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert sorted(served_) == list(range(20))
    assert busy, "twenty at once fit into a queue of five"
    assert answers(server)
