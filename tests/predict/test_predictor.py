"""A run over files: right names, right pixels, no bad file that ends it, no half-written output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pointrend
from pointrend.data.shapes import ShapeScenes
from pointrend.predict import Failure, Output, Prediction, Predictor
from pointrend.results import SemanticResult
from tests.predict.models import Broken, Finder, Threshold, corrupt, make_image

WITHOUT_OVERLAYS = Output(overlays=False)


def test_semantic_images_give_label_maps_with_a_palette_and_overlays(tmp_path: Path) -> None:
    source = make_image(tmp_path / "in" / "one.png")
    report = Predictor(Threshold(), device="cpu").save([source], tmp_path / "out")
    assert report.predicted == (source,)
    assert not report.failures
    with Image.open(tmp_path / "out" / "labels" / "one.png") as labels:
        assert labels.mode == "P"
        assert labels.getpalette()[:6] == [10, 20, 30, 200, 210, 220]
        assert np.asarray(labels).sum() == 64
    with Image.open(tmp_path / "out" / "overlays" / "one.png") as overlay:
        assert overlay.width == 24


def test_instances_go_into_one_coco_file(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    sources = [make_image(tmp_path / "in" / "a.png"), make_image(tmp_path / "in" / "b.png", bright=False)]
    Predictor(Finder(), device="cpu").save(sources, tmp_path / "out")
    file = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in file["images"]] == [str(path) for path in sources]
    assert file["categories"] == [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]
    (record,) = file["annotations"]
    assert (record["image_id"], record["category_id"], record["area"]) == (1, 2, 64)
    assert record["bbox"] == [4, 2, 8, 8]
    counts = {**record["segmentation"], "counts": record["segmentation"]["counts"].encode()}
    assert coco.area(counts) == 64
    assert coco.toBbox(counts).tolist() == [4, 2, 8, 8]


def test_zero_detections_everywhere_still_give_a_valid_file(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png", bright=False)
    Predictor(Finder(), device="cpu").save([source], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"] == []
    assert (tmp_path / "out" / "overlays" / "a.png").exists()


def test_a_corrupt_file_is_named_and_the_others_are_predicted(tmp_path: Path) -> None:
    sources = [make_image(tmp_path / "a.png"), corrupt(tmp_path / "b.png"), make_image(tmp_path / "c.png")]
    report = Predictor(Threshold(), device="cpu", batch_size=4).save(sources, tmp_path / "out")
    assert [path.name for path in report.predicted] == ["a.png", "c.png"]
    (failure,) = report.failures
    assert failure.path.name == "b.png"
    assert "not a readable image" in failure.reason
    assert not failure.reason.startswith(str(failure.path))  # the report names it already


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    report = Predictor(Threshold(), device="cpu").save([tmp_path / "no.png"], tmp_path / "out")
    assert report.failures == (Failure(tmp_path / "no.png", "no such file"),)


def test_an_empty_folder_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images found in .*empty; expected files, folders or patterns"):
        Predictor(Threshold(), device="cpu").save([tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_every_mode_is_read(tmp_path: Path, mode: str) -> None:
    source = make_image(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    assert Predictor(Threshold(), device="cpu")(source).labels.sum() == 64


def test_results_are_in_the_pixels_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    with Image.open(make_image(tmp_path / "a.png")) as image:
        image.save(tmp_path / "turned.jpg", exif=exif)
    assert Predictor(Threshold(), device="cpu")(tmp_path / "turned.jpg").labels.shape == (24, 16)


def test_equal_stems_in_different_folders_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name, bright in (("a/x.png", True), ("b/x.png", False)):
        make_image(tmp_path / "in" / name, bright=bright)
    Predictor(Threshold(), device="cpu").save([tmp_path / "in"], tmp_path / "out")
    sums = [np.asarray(Image.open(tmp_path / "out" / "labels" / f / "x.png")).sum() for f in ("a", "b")]
    assert sums == [64, 0]


def test_only_neighbours_of_one_size_share_a_batch(tmp_path: Path) -> None:
    sizes = [(24, 16)] * 3 + [(30, 16)] * 2 + [(24, 16)]
    sources = [make_image(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)]
    model = Threshold()
    Predictor(model, device="cpu", batch_size=2).save(sources, tmp_path / "out", WITHOUT_OVERLAYS)
    assert model.batches == [2, 1, 2, 1]
    assert not (tmp_path / "out" / "overlays").exists()


def test_predictions_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    sources = [make_image(tmp_path / "0.png"), corrupt(tmp_path / "1.png"), make_image(tmp_path / "2.png")]
    outcomes = list(Predictor(Threshold(), device="cpu", batch_size=8).stream(sources))
    assert [type(outcome) for outcome in outcomes] == [Prediction, Failure, Prediction]
    assert [outcome.path for outcome in outcomes] == sources


def test_a_huge_image_is_not_read_and_says_what_to_do(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png", (300, 200))
    (outcome,) = Predictor(Threshold(), device="cpu", max_pixels=1000).stream([source])
    assert isinstance(outcome, Failure)
    assert "300x200 pixels are more than the limit of 1,000; scale the image down" in outcome.reason


class Forgetful(Threshold):
    """Runs out of memory for more than one image."""

    def predict(self, images: Sequence[Tensor]) -> list[SemanticResult]:
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().predict(images)


def test_a_batch_that_does_not_fit_is_tried_one_by_one(tmp_path: Path) -> None:
    sources = [make_image(tmp_path / f"{i}.png") for i in range(3)]
    report = Predictor(Forgetful(), device="cpu", batch_size=3).save(sources, tmp_path / "out")
    assert len(report.predicted) == 3


def test_a_run_that_breaks_leaves_no_half_written_file(tmp_path: Path) -> None:
    sources = [make_image(tmp_path / f"{i}.png") for i in range(3)]
    with pytest.raises(KeyError):
        Predictor(Broken(), device="cpu").save(sources, tmp_path / "out", WITHOUT_OVERLAYS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".unfinished", ".pointrend-predictions"}


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    sources = [make_image(tmp_path / f"{i}.png") for i in range(3)]
    Predictor(Finder(), device="cpu").save(sources, tmp_path / "out", WITHOUT_OVERLAYS)
    before = (tmp_path / "out" / "predictions.json").read_bytes()
    with pytest.raises(KeyError):
        Predictor(Broken(), device="cpu").save(sources, tmp_path / "out", WITHOUT_OVERLAYS)
    assert (tmp_path / "out" / "predictions.json").read_bytes() == before


def test_one_image_gives_one_result_and_a_list_gives_a_list() -> None:
    predictor: Any = Predictor(Threshold(), device="cpu")
    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert predictor(image).labels.shape == (4, 5)
    assert [result.labels.shape for result in predictor([image, image])] == [(4, 5), (4, 5)]
    assert predictor([]) == []


def test_a_list_is_predicted_in_batches_of_neighbours_of_one_size() -> None:
    model = Threshold()
    sizes = [(4, 5)] * 5 + [(6, 5)] + [(4, 5)]
    results = Predictor(model, device="cpu", batch_size=4)([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert model.batches == [4, 1, 1, 1]
    assert [tuple(one.labels.shape) for one in results] == sizes


def test_an_image_may_come_in_any_form(tmp_path: Path) -> None:
    path = make_image(tmp_path / "a.png")
    with Image.open(path) as image:
        array = np.asarray(image).copy()
    predictor = Predictor(Threshold(), device="cpu", batch_size=8)
    forms = [path, str(path), path.as_uri(), path.read_bytes(), Image.fromarray(array), array, array[..., 0]]
    for result in [*(predictor(form) for form in forms), *predictor(forms)]:
        assert result.labels.sum() == 64
        assert result.image.shape == (3, 16, 24)  # for drawing
    assert predictor(forms[0]).plot().axes


def test_the_channels_of_cv2_reach_the_model_as_rgb() -> None:
    class Red(Threshold):
        def predict(self, images: Sequence[Tensor]) -> list[SemanticResult]:
            return [SemanticResult(image[0], ("a",)) for image in images]

    array = np.zeros((2, 2, 3), np.uint8)
    array[..., 2] = 9
    assert (Predictor(Red(), device="cpu", channel_order="bgr")(array).labels == 9).all()
    assert (Predictor(Red(), device="cpu")(array).labels == 0).all()


@pytest.mark.parametrize("images", [None, 3, {"image": 1}, np.zeros((2, 4, 5, 3), np.uint8)])
def test_what_is_no_image_is_refused_with_the_forms(images: Any) -> None:
    with pytest.raises(ValueError, match=r"expected (a path, a URL, .* a tensor \(3, H, W\)|an array)"):
        Predictor(Threshold(), device="cpu")(images)
    with pytest.raises(ValueError, match=r"images\[1\]: image: expected"):
        Predictor(Threshold(), device="cpu")([np.zeros((4, 5, 3), np.uint8), images])


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder; .*Predictor\.save"):
        Predictor(Threshold(), device="cpu")(tmp_path)
    with pytest.raises(ValueError, match=r"got a folder"):
        Predictor(Threshold(), device="cpu")([str(tmp_path)])


def test_scores_and_classes_are_chosen_for_results_and_files(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")

    def found(**options: Any) -> tuple[int, int]:
        predictor = Predictor(Finder(), device="cpu", **options)
        report = predictor.save([source], tmp_path / "out", WITHOUT_OVERLAYS)
        file = json.loads((report.out / "predictions.json").read_text())
        return len(predictor(source)), len(file["annotations"])

    assert found() == (1, 1)
    assert found(min_score=0.75) == (1, 1)
    assert found(min_score=0.76) == (0, 0)
    assert found(classes=["bright"]) == (1, 1)
    assert found(classes=["dark"]) == (0, 0)
    labels = Predictor(Threshold(), device="cpu", classes=["bright"])(source).labels
    assert torch.unique(labels).tolist() == [1, 255]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["brigt"]}, "class 'brigt': expected one of the model's 2 classes .bright"),
        ({"classes": "bright"}, "classes: expected a list of names"),
        ({"min_score": 50}, "min_score: expected a score from 0 to 1"),
        ({"min_score": "0.5"}, "min_score: expected a score from 0 to 1"),
        ({"classes": [3]}, "class: expected a name, got 3"),
        ({"batch_size": 0}, "batch_size: expected 1 or more"),
        ({"batch_size": "4"}, "batch_size: expected 1 or more"),
        ({"max_pixels": 0}, "max_pixels: expected 1 or more"),
        ({"channel_order": "grb"}, "channel_order: expected 'rgb' or 'bgr'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(Finder(), device="cpu", **options)


@pytest.mark.parametrize("model", [None, "shapes-semantic"])
def test_what_is_no_model_is_refused_and_how_to_load_one_said(model: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a model with predict\(\), got .*pointrend\.load"):
        Predictor(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_half_or_double_precision_predict_the_same_but_for_rounding(dtype: torch.dtype) -> None:
    image = ShapeScenes(1, first=1_000_000)[0].image[:, :96, :128]
    expected = Predictor(pointrend.load("shapes-semantic"), device="cpu")(image)
    found = Predictor(pointrend.load("shapes-semantic").to(dtype), device="cpu")(image)
    assert (found.labels == expected.labels).float().mean() >= 0.995
    wanted = Predictor(pointrend.load("shapes-instance"), device="cpu", min_score=0.5)(image)
    got = Predictor(pointrend.load("shapes-instance").to(dtype), device="cpu", min_score=0.5)(image)
    assert len(wanted) > 0
    assert torch.equal(got.labels, wanted.labels)
    assert torch.allclose(got.boxes, wanted.boxes, atol=0.5)
    assert {got.boxes.dtype, got.scores.dtype} == {torch.float32}
    both, either = got.masks.dense() & wanted.masks.dense(), got.masks.dense() | wanted.masks.dense()
    assert (both.sum((1, 2)) / either.sum((1, 2))).min() >= 0.97


@pytest.mark.parametrize("name", ["shapes-semantic", "shapes-instance"])
def test_a_model_takes_one_image_or_several(name: str) -> None:
    model = pointrend.load(name)
    image = torch.zeros(3, 32, 40, dtype=torch.uint8)
    one, (first, second) = model(image), model([image, image])
    assert repr(one) == repr(first) == repr(second)
    assert [repr(result) for result in model(torch.stack([image, image]))] == [repr(one)] * 2


@pytest.mark.parametrize(
    "image", ["photo.jpg", np.zeros((4, 4, 3), np.uint8), [np.zeros((4, 4, 3), np.uint8)], None]
)
def test_a_model_takes_tensors_alone_and_says_what_takes_the_rest(image: Any) -> None:
    with pytest.raises(
        ValueError, match=r"expected a uint8 tensor \(3, H, W\).*; pointrend\.Predictor takes"
    ):
        pointrend.load("shapes-semantic")(image)


def test_a_second_run_over_a_folder_leaves_out_what_the_first_one_wrote(tmp_path: Path) -> None:
    make_image(tmp_path / "photos" / "a.png")
    predictor = Predictor(Threshold(), device="cpu")
    for out in ("photos/first", "photos/second", "photos", "photos"):
        report = predictor.save([tmp_path / "photos"], tmp_path / out)
        assert [Path(path).name for path in report.predicted] == ["a.png"]


def test_an_output_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="cannot be made into a folder"):
        Predictor(Threshold(), device="cpu").save([make_image(tmp_path / "a.png")], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device"):
        Predictor(Threshold(), device="no-such-device")


def test_more_than_255_classes_are_written_with_16_bits(tmp_path: Path) -> None:
    class Many(Threshold):
        def predict(self, images: Sequence[Tensor]) -> list[SemanticResult]:
            return [SemanticResult(torch.full(tuple(image.shape[1:]), 1202)) for image in images]

    Predictor(Many(), device="cpu").save([make_image(tmp_path / "a.png")], tmp_path / "out", WITHOUT_OVERLAYS)
    with Image.open(tmp_path / "out" / "labels" / "a.png") as labels:
        assert labels.mode == "I;16"
        assert np.asarray(labels).max() == 1202
