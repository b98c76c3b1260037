"""Classes are matched by name: order and ids may differ, a class may be missing in the second, none in the first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.build import open_dataset
from pointrend.data.class_mapping import match_classes
from pointrend.evaluation.ground_truth import SampleList
from pointrend.structures import Sample, SemanticTarget

SQUARE = {"segmentation": [[2, 2, 12, 2, 12, 9, 2, 9]], "bbox": [2, 2, 10, 7], "area": 70, "iscrowd": 0}


def write_split(root: Path, split: str, categories: dict[str, int], objects: list[str]) -> None:
    (root / split).mkdir(parents=True)
    Image.fromarray(np.full((16, 20, 3), 90, np.uint8)).save(root / split / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 20}],
        "categories": [{"id": own, "name": name} for name, own in categories.items()],
        "annotations": [
            {**SQUARE, "id": number, "image_id": 1, "category_id": categories[name]}
            for number, name in enumerate(objects, 1)
        ],
    }
    (root / f"instances_{split}.json").write_text(json.dumps(content))


def test_labels_follow_the_names_where_order_and_ids_differ(tmp_path: Path) -> None:
    write_split(tmp_path, "train", {"cup": 1, "plate": 2, "fork": 3}, ["cup"])
    write_split(tmp_path, "val", {"fork": 1, "cup": 7}, ["fork", "cup", "cup"])
    train, val = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "val")
    matched = match_classes(val, train.class_names, of="the training part")
    assert matched.class_names == ("cup", "plate", "fork")
    assert matched[0].target.labels.tolist() == [2, 0, 0]
    assert matched.category_ids == [7, 8, 1]
    truth = matched.as_coco()
    assert truth is not None
    assert {category["name"]: category["id"] for category in truth["categories"]} == {
        "fork": 1,
        "cup": 7,
        "plate": 8,
    }
    assert [item["category_id"] for item in truth["annotations"]] == [1, 7, 7]


def test_a_class_that_the_training_part_lacks_is_refused_by_name(tmp_path: Path) -> None:
    write_split(tmp_path, "val", {"cup": 1, "spoon": 2}, ["spoon"])
    with pytest.raises(ValueError, match=r"has 'spoon', which the training part lacks: its classes are cup"):
        match_classes(open_dataset(tmp_path, "val"), ("cup",), of="the training part")


def test_label_maps_are_renumbered_and_ignored_pixels_stay_ignored() -> None:
    labels = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    sample = Sample(torch.zeros(3, 1, 3, dtype=torch.uint8), SemanticTarget(labels), 1)
    data = SampleList([sample], ("road", "sky"))
    assert match_classes(data, ("road", "sky"), of="the model") is data
    matched = match_classes(data, ("sky", "car", "road"), of="the model")
    assert matched[0].target.labels.tolist() == [[2, 0, 255]]


def test_a_name_that_is_there_twice_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="the model has 'car' twice"):
        match_classes(SampleList([], ("car",)), ("car", "car", "bus"), of="the model")
