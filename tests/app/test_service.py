"""What visitors may ask for: images by ids, models by names, results until they are dropped."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import pointrend
from pointrend.app.exports import DOWNLOADS
from pointrend.app.limits import Limits
from pointrend.app.model_cache import ModelCache
from pointrend.app.service import EXAMPLE, Service
from pointrend.app.types import Range, Settings
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticSegmenter
from pointrend.zoo import BUNDLED
from tools.train_demo_models import instance_config

SETTINGS = Settings(64, 64)


def encoded(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def checkpoint(semantic: SemanticSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret-folder") / "mine.safetensors"
    pointrend.save(semantic, path)
    return path


@pytest.fixture
def service(checkpoint: Path) -> Service:
    return Service(ModelCache([checkpoint]), Limits())


def test_an_uploaded_image_is_shown_and_its_result_downloaded(service: Service) -> None:
    image = service.add_image(encoded(), "/me/blue.png")
    shown = service.render("mine.safetensors", image, SETTINGS)
    assert (shown["hover"]["width"], shown["hover"]["height"]) == (64, 48)
    for name in shown["downloads"]:
        found = service.download(shown["result"], name)
        assert found is not None
        assert found[1:] == (DOWNLOADS[name][1], f"blue-{name}")
        assert found[0]
    json.dumps(shown)


def test_features_are_computed_once_for_an_image_and_a_model(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = SemanticSegmenter.features
    monkeypatch.setattr(SemanticSegmenter, "features", lambda self, x: calls.append(1) or original(self, x))
    image = service.add_image(encoded(), "a")
    for side in (24, 64, 192):
        service.render("mine.safetensors", image, Settings(side, 64))
    assert len(calls) == 1


def test_what_was_given_up_is_computed_again(checkpoint: Path) -> None:
    service = Service(ModelCache([checkpoint]), Limits(), megabytes=1)  # features of one image do not fit
    image = service.add_image(encoded(), "a")
    first, second = (service.render("mine.safetensors", image, SETTINGS) for _ in range(2))
    assert first["hover"] == second["hover"]
    assert service.sessions.used <= 2**20


def test_an_image_that_was_given_up_is_asked_for_again(checkpoint: Path) -> None:
    service = Service(ModelCache([checkpoint]), Limits(), megabytes=1)
    images = [service.add_image(encoded(400, 300), "a") for _ in range(3)]
    assert service.images.used <= 2**18
    with pytest.raises(ValueError, match="drop it again"):
        service.render("mine.safetensors", images[0], SETTINGS)


@pytest.mark.parametrize("image", ["", "example:", "example:../../etc/passwd", "/etc/passwd", "a" * 10_000])
def test_a_image_that_was_not_given_out_opens_nothing(service: Service, image: str) -> None:
    with pytest.raises(ValueError, match=r"no longer stored|expected one of"):
        service.render("mine.safetensors", image, SETTINGS)


def test_a_model_that_is_not_offered_is_not_loaded(service: Service, checkpoint: Path) -> None:
    for name in (str(checkpoint), "../mine.safetensors", "user/name", ""):
        with pytest.raises(ValueError, match="not offered"):
            service.render(name, f"{EXAMPLE}Crowd", SETTINGS)


def test_a_visitor_learns_no_path_of_the_server(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "hidden" / "broken.safetensors"
    broken.parent.mkdir()
    broken.write_bytes(b"nothing")
    models = ModelCache([checkpoint, broken])
    assert models.names[:2] == ["mine.safetensors", "broken.safetensors"]
    with pytest.raises(ValueError, match="cannot be used here") as caught:
        models.get("broken.safetensors")
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValueError, match="hidden"):
        models.preload()  # whoever starts the server learns it


def test_checkpoints_of_equal_names_are_told_apart(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "run" / "model.safetensors"
    assert ModelCache([checkpoint, checkpoint, other]).names[:3] == [
        "mine.safetensors",
        "mine.safetensors (2)",
        "run",
    ]


def test_the_zoo_is_offered_where_it_is_wanted() -> None:
    name = "pointrend_rcnn_R_50_FPN_3x_coco"
    assert name not in ModelCache().names
    assert name in ModelCache(zoo=True).names
    assert "implicit_pointrend_R_50_FPN_1x_coco" not in ModelCache(zoo=True).names  # has no weights


def test_a_failed_download_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="has to be downloaded, and that failed") as caught:
        ModelCache(zoo=True).get("pointrend_rcnn_R_50_FPN_3x_coco")
    assert str(tmp_path) not in str(caught.value)


def test_a_published_model_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    models = ModelCache(["pointrend_rcnn_R_50_FPN_3x_coco"])
    assert models.names[0] == "pointrend_rcnn_R_50_FPN_3x_coco"
    with pytest.raises(ConnectionError, match="POINTREND_OFFLINE"):
        models.preload()


def test_few_models_stay_in_memory_and_their_features_go_with_them(checkpoint: Path) -> None:
    service = Service(ModelCache([checkpoint, checkpoint], capacity=1), Limits())
    image = service.add_image(encoded(), "a")
    service.render("mine.safetensors", image, SETTINGS)
    service.render("mine.safetensors (2)", image, SETTINGS)
    assert len(service.sessions) == 1


def test_a_model_without_points_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    pointrend.save(InstanceSegmenter(replace(instance_config(), mask_head="coarse")), path)
    with pytest.raises(ValueError, match="no PointRend head"):
        ModelCache([path]).preload()


def test_there_is_no_such_download(service: Service) -> None:
    assert service.download("nobody", "labels.png") is None
    shown = service.render("mine.safetensors", service.add_image(encoded(), "a"), SETTINGS)
    assert service.download(shown["result"], "../../etc/passwd") is None


def test_ranges_are_multiples_and_keep_the_models_own() -> None:
    values = Range.around(100, minimum=5, maximum=250, step=8)
    assert (values.minimum, values.maximum, values.start) == (8, 248, 96)
    assert [values.clamp(v) for v in (0, 100, 101, 9999, None)] == [8, 100, 101, 248, 96]
    assert Range.of_points(1) == Range(1, 4, 1, 1, 1)


def test_the_bundled_models_are_always_there() -> None:
    assert ModelCache().names == list(BUNDLED)
