"""LVIS files as data of COCO's classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointrend.data.build import open_dataset
from pointrend.data.coco import CocoInstances
from pointrend.formats.lvis import read_lvis_as_coco


def write_lvis(path: Path, *, v1: bool) -> None:
    """Two images of different folders: a person and an acorn, and an acorn alone."""
    images = [
        {
            "id": number,
            "height": 20,
            "width": 30,
            "coco_url": f"http://images.cocodataset.org/{folder}/{number:012d}.jpg",
            **({} if v1 else {"file_name": f"COCO_val2014_{number:012d}.jpg"}),
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        }
        for number, folder in ((7, "train2017"), (9, "val2017"))
    ]
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    objects = [
        {"id": n, "image_id": image, "category_id": kind, "bbox": [2, 2, 10, 10], "segmentation": square}
        for n, (image, kind) in enumerate([(7, 793), (7, 1), (9, 1)])
    ]
    content = {
        "images": images,
        "annotations": objects,
        "categories": [
            {"id": 1, "name": "acorn", "synset": "acorn.n.01"},
            {"id": 793, "name": "baby", "synset": "person.n.01"},
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    for number, folder in ((7, "train2017"), (9, "val2017")):
        (path.parent.parent / folder).mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(path.parent.parent / folder / f"{number:012d}.jpg")


@pytest.mark.parametrize(("name", "v1"), [("lvis_v1_val.json", True), ("lvis_v0.5_val.json", False)])
def test_objects_of_cocos_classes_are_found_in_both_releases(tmp_path: Path, name: str, v1: bool) -> None:
    write_lvis(tmp_path / "annotations" / name, v1=v1)
    data = open_dataset(tmp_path, "val")
    assert isinstance(data, CocoInstances)
    assert (len(data), len(data.class_names), data.category_ids[-1]) == (2, 80, 90)
    first, second = data[0], data[1]
    assert [data.class_names[label] for label in first.target.labels] == ["person"]
    assert first.path.endswith("train2017/000000000007.jpg")
    assert second.path.endswith("val2017/000000000009.jpg")
    assert len(second.target) == 0
    assert torch.equal(first.target.boxes, torch.tensor([[2.0, 2, 12, 12]]))


def test_images_without_an_object_of_cocos_classes_are_not_trained_on(tmp_path: Path) -> None:
    write_lvis(tmp_path / "annotations" / "lvis_v1_train.json", v1=True)
    assert open_dataset(tmp_path, "train").image_ids == [7]
    with pytest.raises(ValueError, match="found none of the layouts"):
        open_dataset(tmp_path, "val")


def test_beside_coco_lvis_is_asked_for_by_a_suffix(tmp_path: Path) -> None:
    write_lvis(tmp_path / "annotations" / "lvis_v1_val.json", v1=True)
    coco = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 20, "width": 30}],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(coco))
    assert len(open_dataset(tmp_path, "val").class_names) == 1
    for name in (f"{tmp_path}:lvis", f"{tmp_path}:lvis:instance"):
        assert len(open_dataset(name, "val").class_names) == 80
    with pytest.raises(ValueError, match="not semantic"):
        open_dataset(f"{tmp_path}:lvis:semantic", "val")


def test_a_file_without_synsets_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lvis_v1_val.json"
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "acorn"}]}
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected id .* and synset"):
        read_lvis_as_coco(file)


def test_the_real_file_has_as_many_objects_as_lvis_own_conversion(shared_data: Path) -> None:
    folder = shared_data / "lvis_sample"
    file = read_lvis_as_coco(folder / "lvis_val_100.json")
    converted = json.loads((folder / "lvis_val_100_cococats.json").read_text())
    expected = sorted((a["image_id"], a["category_id"]) for a in converted["annotations"])
    assert sorted((a.image_id, a.category_id) for rows in file.objects.values() for a in rows) == expected
    assert len(expected) == 435
    assert all(image.file_name.startswith("val2017/0") for image in file.images.values())
