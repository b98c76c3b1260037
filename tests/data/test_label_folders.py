from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.class_table import find_classes
from pointrend.data.label_folders import SemanticFolder, match_folders
from pointrend.structures import SemanticTarget


def write_pair(root: Path, name: str, labels: np.ndarray, size: tuple[int, int] | None = None) -> None:
    for folder in ("images", "labels"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    height, width = size or labels.shape
    Image.new("RGB", (width, height), "green").save(root / "images" / f"{name}.jpg")
    Image.fromarray(labels.astype(np.uint8)).save(root / "labels" / f"{name}.png")


def from_folders(images: Path, labels: Path) -> SemanticFolder:
    pairs = match_folders(images, labels)
    return SemanticFolder(pairs, find_classes(labels, pairs))


def write_classes(root: Path, **fields: object) -> None:
    (root / "classes.json").write_text(json.dumps(fields))


def test_folders_are_matched_by_name_in_order_and_subfolders_count(tmp_path: Path) -> None:
    for value, name in enumerate(("c", "a", "b/a")):
        write_pair(tmp_path, name, np.full((3, 5), value))
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    assert len(dataset) == 3
    assert [int(sample.target.labels[0, 0]) for sample in (dataset[i] for i in range(3))] == [1, 2, 0]
    sample = dataset[0]
    assert isinstance(sample.target, SemanticTarget)
    assert sample.image.shape == (3, 3, 5)
    assert sample.image_id == "a"
    assert sample.target.labels.dtype == torch.uint8


def test_the_number_of_classes_is_inferred_without_the_ignore_label(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 255]]))
    write_pair(tmp_path, "b", np.array([[4, 2]]))
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    assert dataset.class_names == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert len(set(dataset.palette)) == 5
    assert dataset[0].target.labels.tolist() == [[0, 255]]


def test_classes_json_names_the_classes_and_the_ignore_label_becomes_255(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 1, 2]]))
    write_classes(
        tmp_path, classes=["road", "car"], ignore_label=2, palette=[[1, 2, 3], [4, 5, 6], [0, 0, 0]]
    )
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    assert dataset.class_names == ("road", "car")
    assert dataset.palette == ((1, 2, 3), (4, 5, 6))
    assert dataset[0].target.labels.tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("fields", [{"ids": [1, 2]}, {"reduce_zero_label": True}, {"ids": [2, 1]}])
def test_classes_json_can_say_which_numbers_the_files_have(tmp_path: Path, fields: dict[str, object]) -> None:
    write_pair(tmp_path, "a", np.array([[0, 1, 2, 255]]))
    write_classes(tmp_path, classes=["road", "car"], **{"ignore_label": 0, **fields})
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    expected = [255, 1, 0, 255] if fields == {"ids": [2, 1]} else [255, 0, 1, 255]
    assert dataset[0].target.labels.tolist() == [expected]
    write_pair(tmp_path, "a", np.array([[0, 1, 3, 255]]))
    with pytest.raises(ValueError, match=r"a\.png: expected labels the 2 ids or 0 \(ignored\), got 3"):
        dataset[0]


def test_pairs_are_read_from_a_list_relative_to_it(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[1]]))
    write_pair(tmp_path, "with space", np.array([[0]]))
    lines = "images/a.jpg labels/a.png\n\nimages/with space.jpg\tlabels/with space.png\n"
    (tmp_path / "train.txt").write_text(lines)
    dataset = SemanticFolder.from_list(tmp_path / "train.txt")
    assert [int(dataset[i].target.labels) for i in range(2)] == [1, 0]
    (tmp_path / "bad.txt").write_text("images/a.jpg\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 1: .*got 1 names"):
        SemanticFolder.from_list(tmp_path / "bad.txt")


def test_a_label_out_of_range_names_file_value_and_place(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 1], [9, 1]]))
    write_classes(tmp_path, classes=["x", "y"])
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(ValueError, match=r"a\.png: .*0\.\.1 or 255.*got 9 at row 1, column 0"):
        dataset[0]


def test_a_label_map_of_another_size_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((4, 4)), size=(4, 5))
    dataset = from_folders(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(ValueError, match=r"a\.png: .*4x5.*got 4x4"):
        dataset[0]


def test_missing_and_double_files_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((2, 2)))
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "b.png")
    with pytest.raises(ValueError, match=r"1 of 2 have none, such as .*b\.png"):
        from_folders(tmp_path / "images", tmp_path / "labels")
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: expected one file of this name"):
        from_folders(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        from_folders(tmp_path / "nowhere", tmp_path / "labels")


def test_camvid_reads_with_its_eleven_classes(shared_data: Path) -> None:
    dataset = SemanticFolder.from_list(shared_data / "camvid" / "val.txt")
    assert len(dataset) == 101
    assert dataset.class_names[0] == "Sky"
    assert len(dataset.class_names) == 11
    sample = dataset[5]
    assert sample.image.shape == (3, 360, 480)
    assert set(sample.target.labels.unique().tolist()) <= {*range(11), 255}
