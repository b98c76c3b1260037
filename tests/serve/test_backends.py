"""An exported file answers without torch as the same results do with it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="not installed: pip install 'pointrend[serve]'")
pytest.importorskip("httpx")
from PIL import Image

from pointrend.cli import main
from pointrend.predict import Predictor
from pointrend.runtime.model import InstanceModel, SemanticModel
from pointrend.runtime.sessions import Session
from pointrend.serve import backends
from pointrend.serve.backends import ExportedBackend, TorchBackend
from pointrend.zoo.exported import as_result
from tests.serve.test_api import client

PREPROCESSING = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def png(height: int = 20, width: int = 31) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def opened(task: str) -> SemanticModel | InstanceModel:
    """A runtime whose session computes in numpy."""

    def labels(arrays: Any) -> list[Any]:
        return [np.where(arrays["image"][0] > 200, 255, arrays["image"][1] % 3).astype(np.uint8)]

    def objects(arrays: Any) -> list[Any]:
        boxes = np.array([[1, 2, 14, 12], [6, 5, 30, 19], [3, 3, 3, 9]], dtype=np.float32)
        masks = np.random.default_rng(1).random((3, 7, 7)).astype(np.float32)
        return [boxes, np.array([1, 0, 2]), np.array([0.9, 0.4, 0.3], dtype=np.float32), masks]

    metadata = {
        "classes": '["background", "b", "c"]',
        "palette": "[[0, 0, 0], [255, 0, 0], [0, 255, 0]]",
        "preprocessing": json.dumps(PREPROCESSING),
        "size": "dynamic",
        "gives": "labels" if task == "semantic" else "probabilities",
    }
    semantic = task == "semantic"
    session = Session(Path("a.onnx"), metadata, ("image",), labels if semantic else objects)
    return SemanticModel(session) if semantic else InstanceModel(session)


class InTorch:
    """The same results as a model for `Predictor`."""

    def __init__(self, runtime: SemanticModel | InstanceModel) -> None:
        self.runtime, self.task, self.config = runtime, runtime.task, runtime

    def predict(self, images: Any) -> list[Any]:
        pixels = [image.permute(1, 2, 0).numpy() for image in images]
        instances = isinstance(self.runtime, InstanceModel)
        return [
            as_result(self.runtime, self.runtime.find(one) if instances else self.runtime.predict(one))
            for one in pixels
        ]


@pytest.fixture(params=["semantic", "instance"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    runtime = opened(request.param)
    monkeypatch.setattr(backends, "load", lambda path: runtime)
    return ExportedBackend("a.onnx"), TorchBackend(Predictor(InTorch(runtime), device="cpu"))


def test_answers_are_those_of_torch(both: tuple[Any, Any]) -> None:
    with client(both[0]) as service, client(both[1]) as in_torch:
        for kind in ("json", "mask", "cutout", "overlay"):
            for query in ("masks=rle", "masks=polygons", "masks=none", "min_score=0.5"):
                url = f"/predict?format={kind}&{query}"
                found, expected = (one.post(url, content=png()) for one in (service, in_torch))
                assert found.status_code == expected.status_code == 200, url
                assert found.headers["content-type"] == expected.headers["content-type"]
                assert found.content == expected.content, url
                assert kind != "json" or found.json()["objects"]


def test_an_image_that_does_not_fit_is_refused_alone(both: tuple[Any, Any]) -> None:
    backend = both[0]
    backend.model.size = (20, 31)
    with client(backend) as service:
        found = service.post("/predict", content=png(9, 9))
        assert (found.status_code, "for images of (20, 31)" in found.json()["error"]) == (422, True)
        assert service.post("/predict", content=png()).status_code == 200


def test_scores_are_for_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    for task, score in (("semantic", 0.5), ("instance", 1.5)):
        monkeypatch.setattr(backends, "load", lambda path, task=task: opened(task))
        with pytest.raises(ValueError, match="min_score: expected a score from 0 to 1 for an instance model"):
            ExportedBackend("a.onnx", score)
    assert ExportedBackend("a.onnx", 0.5).min_score == 0.5


def test_a_semantic_model_that_gives_logits_is_refused_before_any_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = opened("semantic")
    runtime.metadata["gives"] = "logits"
    monkeypatch.setattr(backends, "load", lambda path: runtime)
    with pytest.raises(ValueError, match="gives logits instead of labels; export the model without --logits"):
        ExportedBackend("a.onnx")


def test_without_torch_there_are_json_and_masks(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png())
    script = f"""
import sys
sys.modules["torch"] = None  # as if it were not installed
from pathlib import Path
from pointrend.cli.serve import Serve
from pointrend.serve import backends
from pointrend.serve.api import ServiceLimits, build_service
from pointrend.app.limits import Limits
from pointrend.runtime.model import Instances
import numpy as np

backend = object.__new__(backends.ExportedBackend)
backend.class_names, backend.min_score = ("a", "b"), 0.0
build_service(backend, ServiceLimits(Limits()))
image = backend.read(Path({str(tmp_path / "image.png")!r}).read_bytes())
window = np.ones((3, 4), dtype=bool)
found = Instances(np.ones((1, 4)), np.array([1]), np.ones(1), [window], [(2, 3)], image.shape[:2])
class Model: task, palette = "instance", ()
backend.model = Model()
for masks in ("rle", "polygons"):
    assert b'"class_name": "b"' in backend.answer((image, found), "json", masks, 0.0)[0]
assert backend.answer((image, found), "mask", "rle", 0.0)[1] == "image/png"
try:
    backend.answer((image, found), "overlay", "rle", 0.0)
except ValueError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (
        0,
        "format: overlay is drawn with torch, which is not installed here; ask for json or mask\n",
    ), ran.stderr


def test_an_exported_file_takes_no_options_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "a.onnx", "--device", "cpu", "--batch-size", "4"]) == 2
    assert "device, batch_size: an exported file is run as it was written" in capsys.readouterr().err
