"""Labelled points on their way into a sample: + 0.5, moved like polygons, drawn anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.annotations import PlacedObjects, PlacedPoints
from pointrend.data.build import open_dataset
from pointrend.data.coco import CocoInstances
from pointrend.data.transforms import (
    Compose,
    RandomCrop,
    RandomFlip,
    ResizeShortEdge,
    SamplePoints,
    cropped,
    finished,
    flipped,
    resized,
)
from pointrend.data.validate import check_dataset
from pointrend.structures import Sample, SemanticTarget


def sample(coords, labels, *, size=(20, 30), boxes=None) -> Sample:
    """An image without masks, with points at these continuous coordinates."""
    count = len(labels)
    target = PlacedObjects(
        shapes=[None] * count,
        boxes=np.array(boxes or [[2, 3, 12, 13]] * count, dtype=np.float64),
        labels=np.zeros(count, dtype=np.int64),
        crowd=np.zeros(count, dtype=bool),
        source_size=size,
        image_size=size,
        points=PlacedPoints(np.array(coords, dtype=np.float64), np.array(labels, dtype=np.float32)),
    )
    return Sample(torch.zeros(3, *size, dtype=torch.uint8), target, 1)


def points_of(one: Sample):
    points = finished(one).target.points
    return points.coords.tolist(), points.labels.tolist()


def test_points_move_like_polygon_vertices() -> None:
    one = sample([[[0.5, 0.5], [29.5, 19.5]]], [[1, 0]])
    assert points_of(resized(one, 40, 15))[0] == [[[0.25, 1], [14.75, 39]]]
    assert points_of(flipped(one))[0] == [[[29.5, 0.5], [0.5, 19.5]]]
    assert points_of(flipped(resized(one, 40, 15)))[0] == [[[14.75, 1], [0.25, 39]]]


def test_a_crop_ignores_the_points_outside_and_keeps_the_box_cut() -> None:
    one = cropped(sample([[[2.5, 3.5], [10, 10], [11.5, 12.5]]], [[1, 0, 1]]), 5, 4, 5, 6)
    target = finished(one).target
    assert target.points.labels.tolist() == [[-1, 0, -1]]  # on the crop's very corner it still counts
    assert target.points.coords[0, 1].tolist() == [6, 5]
    assert target.boxes.tolist() == [[0, 0, 6, 5]]
    gone = finished(cropped(sample([[[2.5, 3.5]]], [[1]]), 14, 0, 6, 30)).target
    assert len(gone) == len(gone.points) == 0


def test_a_pixel_and_the_point_on_it_stay_together() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    changes = Compose([ResizeShortEdge((23, 61)), RandomFlip(), RandomCrop(18, 18)])
    for _ in range(30):
        y, x = int(rng.integers(0, 20)), int(rng.integers(0, 30))
        image = torch.zeros(3, 20, 30, dtype=torch.uint8)
        image[:, y, x] = 255
        one = sample([[[x + 0.5, y + 0.5]]], [[1]], boxes=[[0, 0, 30, 20]])
        moved = changes(Sample(image, one.target, 1))
        (((column, row),),), ((label,),) = points_of(moved)
        assert (label == 1) == (0 <= column <= 18 and 0 <= row <= 18)
        if label == 1 and column < 18 and row < 18:
            assert moved.image[0, int(row), int(column)] == moved.image[0].max() > 0


def test_five_of_ten_points_are_distinct_and_five_of_three_are_not() -> None:
    torch.manual_seed(0)
    ten = [[[float(i), 0] for i in range(10)]] * 2
    seen = set()
    for _ in range(20):
        coords, labels = points_of(SamplePoints(5)(sample(ten, [[1] * 10, [0] * 10])))
        assert [len({x for x, _ in own}) for own in coords] == [5, 5]
        assert labels == [[1] * 5, [0] * 5]
        seen |= {tuple(sorted(x for x, _ in own)) for own in coords}
    assert len(seen) > 20  # anew for each object and sample
    few = points_of(SamplePoints(5)(sample([[[1.0, 1], [2, 1], [3, 1]]], [[1, 1, 0]])))
    assert len(few[0][0]) == 5
    assert {tuple(point) for point in few[0][0]} <= {(1, 1), (2, 1), (3, 1)}


def test_what_has_no_points_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SamplePoints(0)
    labels = Sample(torch.zeros(3, 4, 4), SemanticTarget(torch.zeros(4, 4, dtype=torch.uint8)), 1)
    with pytest.raises(ValueError, match="got a label map"):
        SamplePoints(2)(labels)
    one = sample([[[1.0, 1]]], [[1]])
    bare = PlacedObjects(
        one.target.shapes, one.target.boxes, one.target.labels, one.target.crowd, (20, 30), (20, 30)
    )
    with pytest.raises(ValueError, match="data sample-points"):
        SamplePoints(2)(Sample(one.image, bare, 1))


def folder(path: Path, **points: list) -> Path:
    """A COCO folder with masks, and a copy with points in their place."""
    for split in ("train", "val"):
        (path / split).mkdir(parents=True)
        Image.new("RGB", (30, 20), "green").save(path / split / "a.png")
        ring = [[2, 3, 12, 3, 12, 13, 2, 13]]
        record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10]}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
            "categories": [{"id": 1, "name": "square"}],
        }
        full = content | {"annotations": [record | {"segmentation": ring}]}
        (path / f"instances_{split}.json").write_text(json.dumps(full))
        few = content | {"annotations": [record | points]}
        (path / f"instances_{split}_n2_v1_without_masks.json").write_text(json.dumps(few))
    return path


POINTS = {"point_coords": [[2, 3], [11, 12]], "point_labels": [1, 0]}


def test_points_are_read_where_they_are_asked_for_and_masks_otherwise(tmp_path: Path) -> None:
    root = folder(tmp_path, **POINTS)
    masks, points, val = (
        open_dataset(name, split)
        for name, split in ((root, "train"), (f"{root}:points", "train"), (f"{root}:points:instance", "val"))
    )
    assert isinstance(points, CocoInstances)
    assert masks[0].target.points is None
    assert points.has_points
    target = points[0].target
    assert target.points.coords.tolist() == [[[2.5, 3.5], [11.5, 12.5]]]  # centres of the pixels
    assert target.points.labels.tolist() == [[1, 0]]
    assert target.masks.windows[0].shape == (0, 0)
    assert val[0].target.points is None
    with pytest.raises(ValueError, match="scores need masks"):
        points.as_coco()
    assert masks.as_coco() == val.as_coco()


def test_a_version_can_be_named_and_has_to_be_where_there_are_several(tmp_path: Path) -> None:
    root = folder(tmp_path, **POINTS)
    first = root / "instances_train_n2_v1_without_masks.json"
    first.with_name("instances_train_n2_v2_without_masks.json").write_text(first.read_text())
    with pytest.raises(ValueError, match=r"points_n2_v1, .*:points_n2_v2"):
        open_dataset(f"{root}:points", "train")
    assert "v2" in open_dataset(f"{root}:points_n2_v2", "train").file.source
    with pytest.raises(ValueError, match="found no file of labelled points"):
        open_dataset(f"{root}:points_n9_v1", "train")
    with pytest.raises(ValueError, match="not semantic"):
        open_dataset(f"{root}:points:semantic", "train")


def test_points_survive_an_image_whose_objects_are_all_dropped(tmp_path: Path) -> None:
    root = folder(tmp_path, **POINTS)
    data = open_dataset(f"{root}:points", "train", transforms=lambda one: cropped(one, 15, 0, 5, 30))
    target = data[0].target
    assert len(target) == 0
    assert target.points.coords.shape == (0, 2, 2)


def test_a_check_names_points_outside_of_their_box(tmp_path: Path) -> None:
    good = check_dataset(open_dataset(f"{folder(tmp_path / 'good', **POINTS)}:points", "train"))
    assert good.problems == []
    assert good.amount_of == [1]
    root = folder(tmp_path / "bad", point_coords=[[2, 3], [29, 19]], point_labels=[1, 0])
    (problem,) = check_dataset(open_dataset(f"{root}:points", "train")).problems
    assert problem.kind == "points outside their box"
    assert "1 labelled points of object 0" in problem.text
