"""Predictions from files: what `pointrend predict` writes scores as the model itself, and misfits are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointrend.cli import main
from pointrend.data.build import open_dataset
from pointrend.evaluation.external_results import read_detections
from pointrend.evaluation.ground_truth import Subset
from pointrend.evaluation.prediction_store import SavedLabels
from pointrend.metadata.cityscapes import INSTANCE_LABELS
from tests.evaluation.tiny import SIZE, instance_model, photo, semantic_model

SQUARE = {"segmentation": [[5, 5, 45, 5, 45, 35, 5, 35]], "bbox": [5, 5, 40, 30], "area": 1200, "iscrowd": 0}


def make_coco(root: Path, names: list[str], ids: list[int]) -> Path:
    """A square cat or oven in each image; ids as given, in another order than the names."""
    images = [
        {"id": own, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for own, name in zip(ids, names, strict=True)
    ]
    for number, name in enumerate(names):
        photo(root / "val" / name, number)
    objects = [
        {**SQUARE, "id": n, "image_id": own, "category_id": 79 if n % 2 else 17}
        for n, own in enumerate(ids, 1)
    ]
    categories = [{"id": 17, "name": "cat"}, {"id": 79, "name": "oven"}]
    (root / "instances_val.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": categories})
    )
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Ids that are those of `predict` (1, 2, 3), but of other images."""
    return make_coco(tmp_path / "coco", ["a.png", "b.png", "c.png"], [3, 1, 2])


def numbers(out: Path) -> dict[str, float]:
    return json.loads((out / "scores.json").read_text())[0]["numbers"]


def run(*arguments: object) -> int:
    return main([*map(str, arguments), *(["--device", "cpu"] if arguments[0] != "data" else [])])


def scores_of_both(model: str, data: str | Path, images: Path, saved: str, tmp_path: Path) -> tuple[Any, Any]:
    """The last row of the model, and the row of what `predict` wrote."""
    out = tmp_path / "predictions"
    assert run("predict", images, "--model", model, "--out", out, "--no-overlays") == 0
    assert run("eval", model, "--data", data, "--out", tmp_path / "model") == 0
    assert run("eval", "--data", data, "--predictions", out / saved, "--out", tmp_path / "file") == 0
    own = json.loads((tmp_path / "model" / "scores.json").read_text())[-1]["numbers"]
    return own, numbers(tmp_path / "file")


def test_predicted_objects_score_as_the_model_that_predicted_them(coco: Path, tmp_path: Path) -> None:
    model = instance_model(tmp_path / "m.safetensors")
    own, saved = scores_of_both(model, coco, coco / "val", "predictions.json", tmp_path)
    assert saved == own
    assert saved["mask AP"] is not None


def test_predicted_label_maps_score_as_the_model_that_predicted_them(tmp_path: Path) -> None:
    root = tmp_path / "streets"
    for number, folder in enumerate(("x", "y")):  # `predict` keeps the folders
        photo(root / "images" / "val" / folder / f"{number}.png", number)
        labels = np.zeros(SIZE, np.uint8)
        labels[20:, number:] = 1
        (root / "labels" / "val" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / "val" / folder / f"{number}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["sky", "road"]}))
    model = semantic_model(tmp_path / "m.safetensors")
    own, saved = scores_of_both(model, root, root / "images" / "val", "labels", tmp_path)
    assert saved == own
    shutil.copytree(tmp_path / "predictions/labels/x", tmp_path / "predictions/labels/z")
    with pytest.raises(ValueError, match=r"0\.png: there is another label map of this name"):
        SavedLabels(tmp_path / "predictions/labels", known=["0", "1"])


def test_predicted_objects_of_cityscapes_score_as_the_model(tmp_path: Path) -> None:
    root = tmp_path / "city"
    for number in range(2):
        name = f"ulm_00000{number}_000019"
        photo(root / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png", number)
        ids = np.full(SIZE, 7, np.uint16)
        ids[5:35, 5 + number : 40] = 26001
        stem = root / "gtFine" / "val" / "ulm"
        stem.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(stem / f"{name}_gtFine_instanceIds.png")
    model = instance_model(tmp_path / "m.safetensors", tuple(label.name for label in INSTANCE_LABELS))
    images = root / "leftImg8bit" / "val"
    own, saved = scores_of_both(model, f"{root}:instance", images, "predictions.json", tmp_path)
    assert saved["Cityscapes AP"] == own["Cityscapes AP"]
    assert saved["mask AP"] == own["mask AP"]


def predicted(coco: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    """As `predict` would write it, with something changed."""
    mask = {"size": list(SIZE), "counts": [0, 400, 1600]}
    content: dict[str, Any] = {
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": 1,
                "bbox": [0, 0, 10, 40],
                "segmentation": mask,
                "score": 0.5,
            }
            for n in (1, 2, 3)
        ],
        "images": [
            {"id": n, "file_name": f"photos/{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for n, name in enumerate("abc", 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "oven"}],
    }
    change(content)
    file = coco / "predicted.json"
    file.write_text(json.dumps(content))
    return file


def test_images_are_found_by_name_and_classes_by_name(coco: Path) -> None:
    records = read_detections(predicted(coco), open_dataset(coco, "val"))
    assert [record["image_id"] for record in records] == [3, 1, 2]
    assert {record["category_id"] for record in records} == {17}


def test_images_without_names_are_found_by_id(coco: Path) -> None:
    def nameless(content: dict[str, Any]) -> None:
        for image in content["images"]:
            del image["file_name"]

    records = read_detections(predicted(coco, nameless), open_dataset(coco, "val"))
    assert [record["image_id"] for record in records] == [1, 2, 3]


def test_folders_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", ["x/1.png", "y/1.png"], [5, 6])
    names = ["/home/y/1.png", "C:\\images\\x\\1.png"]

    def named(content: dict[str, Any]) -> None:
        content["images"] = [{"id": n, "file_name": name} for n, name in enumerate(names, 1)]
        content["annotations"] = content["annotations"][:2]

    file = predicted(root, named)
    assert [record["image_id"] for record in read_detections(file, open_dataset(root, "val"))] == [6, 5]
    names[1] = "1.png"
    with pytest.raises(ValueError, match=r"image 2: file_name: '1.png' may be any of \[5, 6\]"):
        read_detections(predicted(root, named), open_dataset(root, "val"))


def test_an_image_that_was_not_predicted_is_an_error_unless_it_is_not_scored(coco: Path) -> None:
    data = open_dataset(coco, "val")  # b.png, c.png, a.png by id

    def fewer(content: dict[str, Any]) -> None:
        del content["images"][0], content["annotations"][0]

    file = predicted(coco, fewer)
    with pytest.raises(ValueError, match=r"images: image 3 of the data set \(a.png\) is not among them"):
        read_detections(file, data)
    assert len(read_detections(file, Subset.first(data, 2))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["images"][1].update(file_name="d.png"),
            "image 2: file_name: 'd.png' is not in the data set",
        ),
        (
            lambda c: c["images"][1].update(file_name="a.png"),
            "image 2: file_name: image 3 .* is there twice",
        ),
        (lambda c: c["images"][1].update(height=41), "image 2: height, width: expected .*40, 50.*41"),
        (lambda c: c["images"][1].update(id=1), "image 1: id: appears twice"),
        (lambda c: c["images"][1].update(id=[1]), "image number 1: id: expected a whole number"),
        (lambda c: c["images"].append({"id": 9}), "image 9: id: is not in the data set"),
        (lambda c: c["images"].append(7), "image number 3: id"),
        (lambda c: c.pop("images"), "images: expected a list, got NoneType"),
        (
            lambda c: c["categories"][0].update(name="dog"),
            "categories: 'cat', a class of the data set, is not among .'dog'",
        ),
        (lambda c: c["categories"][0].update(name="oven"), "category 2: name: 'oven' is there twice"),
        (
            lambda c: c["annotations"][0].update(category_id=3),
            "record 0: category_id: 3 is not among its cat",
        ),
        (lambda c: c["annotations"][0].update(image_id=4), "record 0: image_id: 4 is not among its images"),
        (lambda c: c["annotations"].append(None), "record 3: expected an object, got NoneType"),
        (
            lambda c: c["annotations"][0].pop("score"),
            "record 0 .*score: expected a finite number, got nothing",
        ),
        (lambda c: c.update(annotations={}), "expected a list of detections, or an object with images"),
    ],
)
def test_what_does_not_fit_the_data_set_is_named(
    coco: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = predicted(coco, change)
    assert run("eval", "--data", coco, "--predictions", file) == 2
    said = capsys.readouterr().err.partition("\n")[2]  # the first line says what is read
    assert said.startswith(f"pointrend: {file}")
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)
