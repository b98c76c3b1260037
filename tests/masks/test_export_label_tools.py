"""What labelling tools and other trainers are given holds the same masks, and comes back equal."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pointrend.masks.export import to_label_studio, to_voc, to_yolo
from pointrend.results import InstanceResult, SemanticResult
from tests.masks.readers import read_label_studio, read_voc, read_yolo
from tests.masks.test_export import labels, masks, objects


def same(read: InstanceResult, expected: InstanceResult) -> None:
    """Equal masks, labels and names; an object without pixels has no outline and does not come back."""
    expected = expected[expected.masks.areas() > 0]
    assert torch.equal(read.masks.dense(), expected.masks.dense())
    assert [one.class_name for one in read] == [one.class_name for one in expected]


@pytest.mark.parametrize("size", [(40, 53), (37, 7), (1, 1), (1, 300)])
def test_label_studio_gets_polygons_that_come_back_equal(size: tuple[int, int]) -> None:
    result = objects(masks(*size))
    task = json.loads(json.dumps(to_label_studio(result, image="/data/a.jpg")))
    assert task["data"] == {"image": "/data/a.jpg"}
    read = read_label_studio(task, size)
    same(read, result)
    assert read.scores.tolist() == pytest.approx(result.scores[result.masks.areas() > 0].tolist())
    (prediction,) = task["predictions"]
    for region in prediction["result"]:
        assert (region["original_width"], region["original_height"]) == size[::-1]
        assert (
            0 <= min(map(min, region["value"]["points"])) <= max(map(max, region["value"]["points"])) <= 100
        )


@pytest.mark.parametrize("size", [(40, 53), (37, 7), (1, 1), (1, 300)])
def test_yolo_text_comes_back_equal(size: tuple[int, int]) -> None:
    result = objects(masks(*size))
    text = to_yolo(result)
    assert len(text.splitlines()) == int((result.masks.areas() > 0).sum())
    same(read_yolo(text, size, result.class_names), result)


def test_a_plain_yolo_polygon_is_what_another_program_fills() -> None:
    dense = torch.zeros(1, 20, 30, dtype=torch.bool)
    dense[0, 4:12, 5:20] = True
    (line,) = to_yolo(objects(dense)).splitlines()
    number, *shares = line.split()
    assert number == "0"
    points = np.array([float(share) for share in shares]).reshape(-1, 2) * (30, 20)
    drawn = Image.new("1", (30, 20))
    ImageDraw.Draw(drawn).polygon(
        [tuple(point - 0.5) for point in points], fill=1
    )  # Pillow: centres at whole numbers
    inner = np.zeros((20, 30), bool)
    inner[5:11, 6:19] = True
    assert np.asarray(drawn)[inner].all()
    assert not np.asarray(drawn)[:3].any()


def test_voc_maps_have_classes_from_one_and_objects_apart() -> None:
    dense = torch.zeros(2, 6, 8, dtype=torch.bool)
    dense[0, 1:4, 1:4] = True
    dense[1, 3:6, 3:8] = True  # below the first, which is surer
    result = objects(dense)
    classes, owners = to_voc(result)
    assert classes[1:4, 1:4].tolist() == [[1] * 3] * 3
    assert classes[5, 7] == 2
    assert classes[0, 0] == owners[0, 0] == 0
    assert owners[3, 3] == 1
    assert owners[5, 5] == 2
    read = read_voc(classes, owners, result.class_names)
    dense[1] &= ~dense[0]
    assert torch.equal(read.masks.dense(), dense)
    assert read.labels.tolist() == [0, 1]


def test_voc_maps_of_label_maps_keep_background_and_ignored_pixels() -> None:
    found = torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8)
    with_background = SemanticResult(found, ("background", "cat", "dog"))
    assert to_voc(with_background)[0].tolist() == [[0, 1, 2, 255]]
    without = SemanticResult(found, ("sky", "cat", "dog"))
    assert to_voc(without)[0].tolist() == [[1, 2, 3, 255]]
    assert to_voc(without)[1].tolist() == [[1, 2, 3, 0]]


def test_voc_has_room_for_254_classes() -> None:
    many = SemanticResult(torch.full((2, 2), 254), tuple(map(str, range(255))))
    with pytest.raises(ValueError, match="at most 254"):
        to_voc(many)


def test_label_maps_go_out_as_one_object_a_class() -> None:
    result = labels()
    read = read_yolo(result.to_yolo(), (40, 53), result.class_names)
    for one in read:
        assert torch.equal(one.mask, result.labels == one.label)
    assert len(read_label_studio(result.to_label_studio(), (40, 53))) == len(read)


def test_nothing_found_gives_empty_files() -> None:
    nothing = objects(masks()[:0])
    assert to_yolo(nothing) == ""
    assert not to_voc(nothing)[0].any()
    task = to_label_studio(nothing)
    assert task["predictions"][0]["result"] == []
