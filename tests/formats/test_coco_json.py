"""COCO annotation files: what is malformed is named by file, record, id and field; what is certain is read as meant."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as oracle

from pointrend.formats.coco_json import inspect_coco, read_coco

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SQUARE = [[2.0, 1.0, 8.0, 1.0, 8.0, 6.0, 2.0, 6.0]]
NAN = float("nan")
SEGMENTATION = "annotations.0.segmentation"


def content() -> dict[str, Any]:
    """Two images of 10x12 (height x width), the second without objects; ids with gaps."""
    bits = np.zeros((10, 12), dtype=np.uint8, order="F")
    bits[5:9, 3:11] = 1
    compressed = {"size": [10, 12], "counts": oracle.encode(bits)["counts"].decode()}
    plain = {"size": [10, 12], "counts": [35, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 11]}
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 10, "width": 12},
            {"id": 3, "file_name": "a.png", "height": 10, "width": 12},
        ],
        "categories": [{"id": 90, "name": "dog", "supercategory": "animal"}, {"id": 2, "name": "car"}],
        "annotations": [
            annotation(1, 90, SQUARE, [2, 1, 6, 5]),
            annotation(2, 2, compressed, [3, 5, 8, 4]),
            {**annotation(3, 2, plain, [3, 5, 8, 4]), "iscrowd": 1},
        ],
    }


def annotation(number: int, category: int, segmentation: Any, bbox: list[float]) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 7,
        "category_id": category,
        "segmentation": segmentation,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
    }


def changed(place: str, value: Any) -> dict[str, Any]:
    """The good file with one thing changed; None takes it out."""
    fields: Any = copy.deepcopy(content())
    *path, last = place.split(".")
    here = fields
    for step in path:
        here = here[int(step) if step.isdigit() else step]
    key: Any = int(last) if last.isdigit() else last
    if value is None:
        del here[key]
    else:
        here[key] = value
    return fields


def written(folder: Path, fields: Any) -> Path:
    (folder / "objects.json").write_text(json.dumps(fields))
    return folder / "objects.json"


def test_images_and_categories_are_in_the_order_of_their_ids_and_objects_in_the_files() -> None:
    file = read_coco(content())
    assert list(file.images) == [3, 7]
    assert list(file.categories) == [2, 90]
    assert [item.id for item in file.objects[7]] == [1, 2, 3]
    assert file.objects[3] == []
    assert [item.area for item in file.objects[7]] == [30, 32, 32]


def test_annotations_come_out_as_they_went_in() -> None:
    before = content()["annotations"]
    after = [item.to_coco() for item in read_coco(content()).objects[7]]
    assert after[:2] == before[:2]
    assert after[2]["segmentation"] == before[1]["segmentation"]  # compressed


def test_areas_and_boxes_of_one_third_stay_exact() -> None:
    box = [0.1, 0.2, 1 / 3, 0.7]
    (item, *_) = read_coco(changed("annotations.0.bbox", box)).objects[7]
    assert item.to_coco()["bbox"] == box


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ("images", None, "images: expected a list"),
        ("images.1.id", 7, r"images\[1\] \(id 7\), id: expected every id once"),
        ("annotations.1", [], r"annotations\[1\]: expected an object"),
        ("images.0.height", None, r"images\[0\] \(id 7\), height"),
        ("images.0.height", 0, r"height, width: expected 1 to"),
        ("images.0.width", 10**9, r"height, width: expected 1 to"),
        ("images.0.width", 10**400, r"images\[0\] \(id 7\), width"),
        ("categories.0.name", "", "name: expected a text"),
        ("categories.0.id", "dog", "id: expected a whole number, got 'dog'"),
        ("annotations.0.image_id", 8, r'\(id 1\), image_id: expected an id from "images", got 8'),
        ("annotations.0.category_id", 1, r'category_id: expected an id from "categories", got 1'),
        ("annotations.0.category_id", 2.5, "category_id: expected a whole number"),
        ("annotations.0.iscrowd", 2, "iscrowd: expected 0 or 1"),
        ("annotations.0.bbox", [0, 0, -1, 5], "bbox: expected .x, y, width, height."),
        ("annotations.0.bbox", [0, 0, NAN, 5], "bbox: expected a flat list of finite"),
        ("annotations.0.bbox", "box", "bbox: expected a list of numbers"),
        ("annotations.0.area", NAN, "area: expected a number"),
        ("annotations.0.area", -1, "area: expected a number, 0 or more"),
        (SEGMENTATION, None, "segmentation: expected polygons"),
        (SEGMENTATION, [], "segmentation: expected polygons"),
        (SEGMENTATION, [[1, 1, 5, 1, 5]], "segmentation: expected polygons of three or more x, y pairs"),
        (SEGMENTATION, [[1, 1, 5, 1]], "segmentation: expected polygons of three or more x, y pairs"),
        (SEGMENTATION, [[1, 1, 5, 1, 5, NAN]], "segmentation: expected a flat list of finite"),
        (SEGMENTATION, [[1, 1, 5, 1, 5, 1e300]], "segmentation: expected polygons near the 12x10 image"),
        (SEGMENTATION, SQUARE * 10_001, "segmentation: expected at most 10000 polygons"),
        (SEGMENTATION, [["a"] * 6], "segmentation: expected a list of numbers"),
        (SEGMENTATION, [[True] * 6], "segmentation: expected a list of numbers"),
        (SEGMENTATION, [[None] * 6], "segmentation: expected a list of numbers"),
        (SEGMENTATION, [[0, 0, 12, 10] * 2000], "segmentation: expected an outline"),
        ("annotations.1.segmentation.size", [12, 10], r"size: expected \[10, 12\] as its image"),
        ("annotations.1.segmentation.size", [10**6, 10**6], "segmentation.size"),
        ("annotations.1.segmentation.counts", "11", "counts: run lengths: expected .* add up to 120"),
        ("annotations.1.segmentation.counts", "\u00e9", "segmentation.counts: run lengths: expected COCO's"),
        ("annotations.1.segmentation.counts", "", "segmentation.counts: run lengths: expected COCO's"),
        ("annotations.1.segmentation.counts", [10**18], "segmentation.counts: run lengths"),
        ("annotations.1.segmentation.counts", [2**62] * 4 + [120], "segmentation.counts: run lengths"),
        ("annotations.1.segmentation.counts", [130, -10], "segmentation.counts: run lengths"),
        ("annotations.1.segmentation.counts", [60.5, 59.5], "segmentation.counts: run lengths"),
        ("annotations.1.segmentation.counts", None, "segmentation.counts: expected run lengths, got nothing"),
    ],
)
def test_a_malformed_file_is_refused_by_name_id_and_field(
    tmp_path: Path, place: str, value: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=rf"objects\.json.*{complaint}"):
        read_coco(written(tmp_path, changed(place, value)))


MEANT = {
    "two-point polygon beside a good one": (SEGMENTATION, [*SQUARE, [3, 3, 4, 4]]),
    "flat polygon": (SEGMENTATION, SQUARE[0]),
    "pairs for a flat list": (SEGMENTATION, [[[2, 1], [8, 1], [8, 6], [2, 6]]]),
    "text for a number": (SEGMENTATION, [[str(value) for value in SQUARE[0]]]),
    "true or false for iscrowd": ("annotations.0.iscrowd", False),
    "missing box": ("annotations.0.bbox", None),
}


@pytest.mark.parametrize("kind", MEANT)
def test_a_fault_of_certain_meaning_is_read_as_meant_and_said(tmp_path: Path, kind: str) -> None:
    place, value = MEANT[kind]
    file = written(tmp_path, changed(place, value))
    with pytest.warns(UserWarning, match=rf"objects\.json: .*1 x {kind}.*--fix"):
        (item, *_) = read_coco(file).objects[7]
    assert item.to_coco() == content()["annotations"][0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("annotations.0.category_id", "90"),
        ("annotations.0.image_id", "7"),
        ("annotations.0.area", "30"),
        ("annotations.0.bbox", ["2", "1", "6", "5"]),
        ("images.0.height", "10"),
    ],
)
def test_numbers_written_as_text_are_read(place: str, value: Any) -> None:
    with pytest.warns(UserWarning, match="1 x text for a number"):
        (item, *_) = read_coco(changed(place, value)).objects[7]
    assert item.to_coco() == content()["annotations"][0]


def test_a_missing_or_repeated_annotation_id_is_replaced_for_nothing_refers_to_it() -> None:
    for value in (None, 1):
        with pytest.warns(UserWarning, match="1 x (missing|duplicate) id"):
            file = read_coco(changed("annotations.1.id", value))
        assert [item.id for item in file.objects[7]] == [1, 4, 3]


def test_every_fault_is_found_and_objects_of_a_faulty_image_have_none_of_their_own() -> None:
    fields = content()
    fields["images"][0]["height"] = 0
    fields["images"].append({"id": 3, "height": 5, "width": 5})
    assert [fault.kind for fault in inspect_coco(fields).faults] == ["image size", "duplicate id"]
    fields = content()
    fields["annotations"][0]["segmentation"] = []
    fields["annotations"][1]["category_id"] = 5
    fields["annotations"][2]["iscrowd"] = True
    kinds = [(fault.kind, fault.repairable) for fault in inspect_coco(fields).faults]
    assert kinds == [
        ("missing mask", False),
        ("unknown category", False),
        ("true or false for iscrowd", True),
    ]
    with pytest.raises(ValueError, match=r"\(1 more faults; `pointrend data check` lists them\)"):
        read_coco(fields)


def test_the_mended_content_reads_without_a_fault_and_keeps_what_it_does_not_know() -> None:
    for place, value in MEANT.values():
        fields = {**changed(place, value), "licenses": [{"id": 1}]}
        mended = inspect_coco(fields).content
        assert inspect_coco(json.loads(json.dumps(mended))).faults == []
        assert mended["licenses"] == [{"id": 1}]
        assert read_coco(mended).objects[7][0].to_coco() == content()["annotations"][0]


def test_masks_are_not_needed_where_only_boxes_are_scored() -> None:
    fields = changed(SEGMENTATION, None)
    assert read_coco(fields, masks=False).objects[7][0].shape is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_windows_editors_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "objects.json").write_text(json.dumps(content()), encoding=encoding)
    assert list(read_coco(tmp_path / "objects.json").images) == [3, 7]
