"""Labelled points in COCO files: read strictly, every fault named."""

from __future__ import annotations

from typing import Any

import pytest

from pointrend.formats.coco_json import inspect_coco, read_coco


def content(*points: dict[str, Any]) -> dict[str, Any]:
    """An image of 20 x 10 pixels with a box for each; what is given belongs to the annotation."""
    base = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 10, "width": 20}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": number, **base, **own} for number, own in enumerate(points, start=1)],
    }


def points(count: int = 2) -> dict[str, Any]:
    return {"point_coords": [[19, 9]] * count, "point_labels": [1, 0] * (count // 2) + [1] * (count % 2)}


def test_points_take_the_place_of_masks_and_are_written_as_they_were_read() -> None:
    file = read_coco(content(points()))
    (item,) = file.objects[1]
    assert item.shape is None
    assert item.points is not None
    assert item.points.coords.tolist() == [[19, 9], [19, 9]]
    assert {name: item.to_coco()[name] for name in points()} == points()


def test_points_beside_a_mask_keep_the_mask() -> None:
    (item,) = read_coco(content(points() | {"segmentation": [[1, 1, 9, 1, 9, 9]]})).objects[1]
    assert item.shape is not None
    assert item.points is not None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"point_labels": [1]}, "a label for each of 2"),
        ({"point_labels": [1, 2]}, "expected 0 or 1, got [2]"),
        ({"point_labels": [1, -1]}, "expected 0 or 1, got [-1]"),
        ({"point_labels": [True, False]}, "a list of 0 and 1"),
        ({"point_labels": None}, "point_labels: expected"),
        ({"point_coords": None}, "point_coords: expected"),
        ({"point_coords": [[20, 0], [0, 0]]}, "expected pixels of the 20x10 image, got [20, 0]"),
        ({"point_coords": [[0, 0], [0, -1]]}, "expected pixels of the 20x10 image, got [0, -1]"),
        ({"point_coords": [[0.5, 0], [0, 0]]}, "fractions"),
        ({"point_coords": [[0, float("nan")], [0, 0]]}, "no index"),
        ({"point_coords": [[0, 0], [0]]}, "[x, y]"),
        ({"point_coords": [[0, 0, 1], [0, 0, 1]]}, "got 3 numbers each"),
        ({"point_coords": [], "point_labels": []}, "1 to 1000 points"),
        ({"point_coords": [["1", "2"]] * 2}, "[x, y]"),
        ({"point_coords": [[10**400, 0]] * 2}, "[x, y]"),
        ({"point_coords": [[0, 0]] * 2000}, "got 2000"),
    ],
)
def test_a_fault_names_annotation_and_field(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"annotations\[1\] \(id 2\): point_") as error:
        read_coco(content(points(), points() | wrong))
    assert words in str(error.value)


def test_every_object_but_crowds_needs_as_many_points() -> None:
    masks = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    crowd = masks | {"iscrowd": 1}
    read_coco(content(points(), points(), crowd))
    for other in (points(3), masks):
        faults = inspect_coco(content(points(), points(), other)).faults
        assert [fault.place for fault in faults] == ["annotations (id 3), point_labels"]
        assert "expected 2 labelled points" in faults[0].text
