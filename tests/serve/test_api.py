"""The service: right answers, words instead of stack traces, and nothing that a stranger sends ends it."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("prometheus_client", reason="not installed: pip install 'pointrend[serve]'")
pytest.importorskip("httpx")
from fastapi.testclient import TestClient
from torch import Tensor

from pointrend.app.limits import Limits
from pointrend.masks.rle import decode_window
from pointrend.predict import Predictor
from pointrend.results import InstanceResult
from pointrend.serve.api import ServiceLimits, build_service
from pointrend.serve.backends import Backend, ExportedBackend, TorchBackend
from tests.predict.models import Finder, Threshold, make_image


class Slow(Finder):
    """Waits until it is let go; remembers its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.go = threading.Event()
        self.batches: list[int] = []

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        self.batches.append(len(images))
        self.go.wait(10)
        return super().predict(images)


def client(model: Any = None, batch_size: int = 4, **limits: Any) -> TestClient:
    bounds = ServiceLimits(limits.pop("upload", Limits(1, 0.1)), **limits)
    backend: Backend = (
        model
        if isinstance(model, ExportedBackend | TorchBackend)
        else TorchBackend(Predictor(model or Finder(), device="cpu", batch_size=batch_size))
    )
    return TestClient(build_service(backend, bounds), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def service() -> Iterator[TestClient]:
    with client() as one:
        yield one


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return make_image(tmp_path / "a.png").read_bytes()


def test_objects_come_with_run_lengths_or_polygons(service: TestClient, image: bytes) -> None:
    found = service.post("/predict", content=image)
    assert found.status_code == 200
    (one,) = found.json()["objects"]
    assert {name: one[name] for name in ("label", "class_name", "score", "box")} == {
        "label": 1,
        "class_name": "bright",
        "score": 0.75,
        "box": [4, 2, 12, 10],
    }
    assert int(decode_window(one["segmentation"]["counts"], (16, 24))[0].sum()) == 64
    polygons = service.post("/predict?masks=polygons", content=image).json()["objects"][0]["segmentation"]
    assert sorted(map(tuple, polygons[0])) == [(4, 2), (4, 10), (12, 2), (12, 10)]
    assert "segmentation" not in service.post("/predict?masks=none", content=image).json()["objects"][0]
    assert service.post("/predict?min_score=0.8", content=image).json()["objects"] == []


@pytest.mark.parametrize(("kind", "mode"), [("mask", "P"), ("cutout", "RGBA"), ("overlay", "RGB")])
def test_images_come_as_png(service: TestClient, image: bytes, kind: str, mode: str) -> None:
    found = service.post(f"/predict?format={kind}", content=image)
    assert found.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(found.content)) as png:
        assert (png.mode, png.size) == (mode, (24, 16))
        if kind == "mask":
            assert np.unique(np.asarray(png)).tolist() == [1, 255]


def test_label_maps_are_answered_too(image: bytes) -> None:
    with client(Threshold()) as one:
        objects = one.post("/predict", content=image).json()["objects"]
    assert [found["class_name"] for found in objects] == ["dark", "bright"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_exported_files_are_served(tmp_path: Path, image: bytes) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from pointrend.export import export
    from pointrend.zoo import load

    model = load("shapes-semantic")
    with client(load(export(model, tmp_path / "a.onnx"))) as one, client(model) as other:
        found, expected = (service.post("/predict?format=mask", content=image) for service in (one, other))
    assert found.status_code == 200
    assert found.content == expected.content


def test_health_metrics_and_description(service: TestClient, image: bytes) -> None:
    assert service.get("/health").json() == {"status": "ok", "classes": ["dark", "bright"]}
    service.post("/predict", content=image)
    service.post("/predict", content=b"none")
    metrics = service.get("/metrics").text
    assert 'pointrend_requests_total{status="422"}' in metrics
    assert "pointrend_batch_size_count" in metrics
    assert "pointrend_requests_at_work 0.0" in metrics
    description = service.get("/openapi.json").json()
    assert "image/*" in description["paths"]["/predict"]["post"]["requestBody"]["content"]


def bomb(side: int) -> bytes:
    """Many pixels in a PNG of some kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_what_is_too_large_is_refused_before_it_is_decoded(service: TestClient, side: int) -> None:
    content = bomb(side)
    assert len(content) < 2**20
    begun = time.monotonic()
    found = service.post("/predict", content=content)
    assert found.status_code == 413
    assert "megapixels" in found.json()["error"]
    assert time.monotonic() - begun < 2
    found = service.post("/predict", content=b"\0" * (2**20 + 1))
    assert (found.status_code, "larger than 1 MB" in found.json()["error"]) == (413, True)


def malformed() -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    for number in range(60):
        broken = bytearray(whole[: random.integers(0, len(whole))])
        for place in random.integers(0, max(len(broken), 1), 5 if broken else 0):
            broken[place] = random.integers(0, 256)
        yield "POST", "/predict", bytes(broken), {}
        yield "POST", f"/predict?format={'%00' * number}", whole, {}
    for body in (
        b"",
        b"{",
        b"[" * 9000,
        b"\xff",
        b'{"url": 3}',
        b'{"url": "a", "b": 1}',
        b"null",
        b'{"url": "http://["}',
    ):
        yield "POST", "/predict", body, {"content-type": "application/json"}
    for query in (
        "min_score=nan",
        "min_score=2",
        "min_score=",
        "masks=x",
        "format=json&format=exe",
        "%ff=%fe",
    ):
        yield "POST", f"/predict?{query}", whole[:100], {}
    for method in ("GET", "PUT", "DELETE", "TRACE", "PATCH"):
        yield method, "/predict", b"", {}
    yield "GET", "/../../etc/passwd", b"", {}
    yield "POST", "/predict", whole[:9], {"content-type": "\xff", "content-length": "9"}


def test_no_malformed_request_is_an_internal_error(service: TestClient) -> None:
    for method, path, body, headers in malformed():
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        found = service.request(method, path, content=body, headers=raw)
        assert found.status_code < 500, (path, body[:80], found.text)
        if found.status_code == 422:
            assert found.json()["error"]
    assert service.get("/health").status_code == 200


def test_addresses_are_refused_unless_their_host_is_named(service: TestClient) -> None:
    found = service.post("/predict", json={"url": "http://127.0.0.1/a.png"})
    assert (found.status_code, "not allowed here" in found.json()["error"]) == (422, True)
    with client(url_hosts=("localhost",), seconds=5) as one:
        found = one.post("/predict", json={"url": "http://localhost:9/a.png"})
        assert (found.status_code, "could not be fetched" in found.json()["error"]) == (502, True)


def test_waiting_requests_of_one_size_are_predicted_together(image: bytes, tmp_path: Path) -> None:
    other = make_image(tmp_path / "b.png", size=(40, 40)).read_bytes()
    model = Slow()
    with client(model, batch_size=3) as one:
        answers = in_threads(one, [image, other, image, image, other, image, image])
        wait(lambda: "at_work 7.0" in one.get("/metrics").text)
        model.go.set()
        assert answers() == [200] * 7
    assert sum(model.batches) == 7
    assert 2 <= max(model.batches) <= 3


def test_the_queue_is_bounded_and_requests_are_late_in_words(image: bytes) -> None:
    model = Slow()
    with client(model, queue=2, seconds=1.5) as one:
        answers = in_threads(one, [image, image])
        wait(lambda: "at_work 2.0" in one.get("/metrics").text)
        busy = one.post("/predict", content=image)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "3")
        assert answers() == [504, 504]
        model.go.set()
        wait(lambda: "at_work 0.0" in one.get("/metrics").text)
        assert one.post("/predict", content=image).status_code == 200


def test_an_error_of_the_model_is_its_requests_only(image: bytes) -> None:
    class Failing(Finder):
        calls = 0

        def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
            self.calls += 1
            if self.calls == 1:
                raise KeyError("a defect")
            return super().predict(images)

    with client(Failing()) as one:
        assert one.post("/predict", content=image).status_code == 500
        assert one.post("/predict", content=image).status_code == 200


def test_requests_from_other_sites_are_refused(service: TestClient, image: bytes) -> None:
    assert (
        service.post("/predict", content=image, headers={"origin": "http://evil.example"}).status_code == 403
    )


def test_limits_make_sense() -> None:
    with pytest.raises(ValueError, match="queue"):
        ServiceLimits(Limits(), queue=0)
    for seconds in (0, math.inf):
        with pytest.raises(ValueError, match="seconds"):
            ServiceLimits(Limits(), seconds=seconds)


def in_threads(one: TestClient, contents: list[bytes]) -> Any:
    """Post all at once; the function that comes back waits for their statuses."""
    statuses: list[int] = [0] * len(contents)

    def post(number: int) -> None:
        statuses[number] = one.post("/predict", content=contents[number]).status_code

    threads = [threading.Thread(target=post, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()

    def ended() -> list[int]:
        for thread in threads:
            thread.join(30)
        return statuses

    return ended


def wait(what: Any) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
