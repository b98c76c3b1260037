"""Points drawn from masks: those of PointSup's own tool for its seed, which the specification lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pointrend.cli import main
from pointrend.data.sample_points import place_points, write_points
from tests.helpers import DATA

# Annotation -> coordinates, labels: coco_mini's validation part, seed 12345, 10 points.
GOLDEN = {
    26547: (
        [
            [259, 164], [241, 156], [251, 183], [260, 187], [255, 187],
            [255, 209], [237, 149], [244, 188], [256, 203], [260, 192],
        ],
        [0, 0, 1, 0, 0, 0, 0, 1, 0, 0],
    ),
    34646: (
        [
            [102, 235], [76, 198], [72, 236], [155, 231], [125, 183],
            [11, 243], [141, 170], [80, 217], [96, 172], [140, 236],
        ],
        [1, 1, 1, 0, 1, 1, 0, 1, 1, 1],
    ),
    2160325: (
        [
            [99, 149], [131, 292], [84, 160], [77, 58], [166, 97],
            [61, 181], [5, 111], [107, 316], [101, 248], [117, 243],
        ],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def coco_mini() -> Path:
    path = DATA / "coco_mini" / "instances_val.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def test_points_and_labels_are_those_of_the_original(coco_mini: Path, tmp_path: Path) -> None:
    ((target, count, inside),) = write_points(coco_mini, tmp_path)
    assert target.name == "instances_val_n10_v1_without_masks.json"
    assert (count, inside) == (10_090, 5_999)
    before, after = json.loads(coco_mini.read_text()), json.loads(target.read_text())
    assert {key: value for key, value in before.items() if key != "annotations"} == {
        key: value for key, value in after.items() if key != "annotations"
    }
    records = {record["id"]: record for record in after["annotations"]}
    for number, (coords, labels) in GOLDEN.items():
        assert records[number]["point_coords"] == coords
        assert records[number]["point_labels"] == labels
    assert sum(np.array(record["point_coords"]).sum() for record in after["annotations"]) == 5_799_003
    original = before["annotations"][0]
    kept = {key: value for key, value in original.items() if key != "segmentation"}
    assert {key: after["annotations"][0][key] for key in kept} == kept
    assert "segmentation" not in after["annotations"][0]


def test_versions_are_drawn_one_after_the_other(tmp_path: Path) -> None:
    path = tiny(tmp_path, [[0, 0, 10, 10]])
    first, second = write_points(path, tmp_path / "two", points=3, versions=2)
    alone = write_points(path, tmp_path / "one", points=3)[0]
    assert first[0].read_text() == alone[0].read_text()
    assert second[0].name == "instances_train_n3_v2_without_masks.json"
    drawn = np.random.RandomState(12345).rand(2, 3, 2)
    coords = json.loads(second[0].read_text())["annotations"][0]["point_coords"]
    assert coords == np.floor(10 * drawn[1]).astype(int).tolist()


def test_a_box_that_sticks_out_of_the_image_gets_points_on_its_border() -> None:
    bbox, uniform = np.array([-4.5, 5, 30, 30.0]), np.array([[0, 0], [0.999, 0.999], [0.5, 0.1]])
    assert place_points(bbox, (20, 20), uniform).tolist() == [[0, 5], [19, 19], [10, 8]]


def test_an_object_of_one_pixel_has_every_point_there(tmp_path: Path) -> None:
    path = tiny(tmp_path, [[3, 4, 1, 1]])
    ((target, count, inside),) = write_points(path, points=5)
    assert (count, inside) == (5, 5)
    assert json.loads(target.read_text())["annotations"][0]["point_coords"] == [[3, 4]] * 5


def test_the_command_writes_the_files_and_says_how_many_points_are_inside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny(tmp_path, [[0, 0, 10, 10]])
    assert main(["data", "sample-points", str(path), "--points", "4", "--versions", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "v2_without_masks.json: 4 points, 100.00 % of them on their object" in lines[1]
    assert main(["data", "sample-points", str(path), "--points", "0"]) == 2
    assert main(["data", "sample-points", str(tmp_path / "instances_train_n4_v1_without_masks.json")]) == 2
    assert "expected a mask to draw points from" in capsys.readouterr().err


def tiny(folder: Path, boxes: list[list[float]]) -> Path:
    """A COCO file with these boxes (x, y, width, height), filled with their masks."""
    path = folder / "instances_train.json"
    rings = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in boxes]
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": [ring]}
        for number, (box, ring) in enumerate(zip(boxes, rings, strict=True), start=1)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 20, "width": 20}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    path.write_text(json.dumps(content))
    return path
