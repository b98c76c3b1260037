from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.cityscapes import Cityscapes, instance_target, semantic_target
from pointrend.data.transforms import RandomFlip
from pointrend.metadata.cityscapes import LABELS


def write_frame(root: Path, city: str, number: int, instances: np.ndarray, split: str = "train") -> None:
    """An image with its label and instance files, sizes and ids as in the official release."""
    name = f"{city}_{number:06d}_000019"
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / split / city).mkdir(parents=True, exist_ok=True)
    height, width = instances.shape
    image = Image.new("RGB", (width, height), "grey")
    image.save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
    labels = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
    Image.fromarray(labels).save(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png")
    Image.fromarray(instances.astype(np.uint16)).save(
        root / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png"
    )


@pytest.fixture
def street() -> np.ndarray:
    """Road (7), sky (23), out of roi (3), two cars, a group of persons, a caravan (not evaluated)."""
    ids = np.full((8, 12), 7)
    ids[:2] = 23
    ids[0, 0] = 3
    ids[2:5, 1:4] = 26000
    ids[3:6, 3:7] = 26001
    ids[6:8, 8:12] = 24
    ids[2:4, 9:11] = 29000
    return ids


def test_label_ids_become_the_nineteen_classes(tmp_path: Path, street: np.ndarray) -> None:
    write_frame(tmp_path, "ulm", 1, street)
    dataset = Cityscapes(tmp_path, "train")
    assert len(dataset.class_names) == len(dataset.palette) == len(dataset.category_ids) == 19
    sample = dataset[0]
    assert sample.image_id == "ulm_000001_000019"
    labels = sample.target.labels
    assert labels.dtype == torch.uint8
    assert [dataset.class_names[labels[y, x]] for y, x in ((7, 0), (0, 5), (2, 1), (7, 9))] == [
        "road",
        "sky",
        "car",
        "person",
    ]
    assert labels[0, 0] == labels[2, 9] == 255


def test_instance_ids_become_objects_and_groups_become_crowds(tmp_path: Path, street: np.ndarray) -> None:
    write_frame(tmp_path, "ulm", 1, street)
    dataset = Cityscapes(tmp_path, "train", "instance")
    assert dataset.class_names == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert dataset.category_ids == (24, 25, 26, 27, 28, 31, 32, 33)
    target = dataset[0].target
    assert target.labels.tolist() == [0, 2, 2]
    assert target.crowd.tolist() == [True, False, False]
    assert target.boxes.tolist() == [[8, 6, 12, 8], [1, 2, 4, 5], [3, 3, 7, 6]]
    for mask, number in zip(target.masks, (24, 26000, 26001), strict=True):
        assert np.array_equal(mask.numpy(), street == number)


def test_objects_move_with_the_image(tmp_path: Path, street: np.ndarray) -> None:
    write_frame(tmp_path, "ulm", 1, street)
    target = Cityscapes(tmp_path, "train", "instance", transforms=RandomFlip(1.0))[0].target
    for mask, number in zip(target.masks, (24, 26000, 26001), strict=True):
        assert np.array_equal(mask.numpy(), street[:, ::-1] == number)


def test_a_street_without_things_is_an_empty_target() -> None:
    target = instance_target(torch.full((3, 4), 7, dtype=torch.int32))
    assert target.boxes.shape == (0, 4)
    assert target.masks.dense().shape == (0, 3, 4)


def test_splits_and_cities_are_read_in_order(tmp_path: Path, street: np.ndarray) -> None:
    for city, number, split in (("ulm", 2, "train"), ("bonn", 5, "train"), ("ulm", 1, "val")):
        write_frame(tmp_path, city, number, street, split)
    names = [Cityscapes(tmp_path, "train")[index].image_id for index in range(2)]
    assert names == ["bonn_000005_000019", "ulm_000002_000019"]
    assert len(Cityscapes(tmp_path, "val")) == 1


def test_missing_files_and_unknown_ids_are_named(tmp_path: Path, street: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"leftImg8bit/train/CITY"):
        Cityscapes(tmp_path, "train")
    write_frame(tmp_path, "ulm", 1, np.where(street == 7, 40, street))
    with pytest.raises(ValueError, match=r"labelIds\.png: expected ids 0\.\.33, got up to 40"):
        Cityscapes(tmp_path, "train")[0]
    with pytest.raises(ValueError, match=r"instanceIds\.png: expected class ids, .* got 40"):
        Cityscapes(tmp_path, "train", "instance")[0]
    for file in tmp_path.glob("gtFine/*/*/*instanceIds.png"):
        file.unlink()
    with pytest.raises(ValueError, match=r"1 of 1 label files are missing, such as .*instanceIds\.png"):
        Cityscapes(tmp_path, "train", "instance")
    with pytest.raises(ValueError, match="task"):
        Cityscapes(tmp_path, "train", "panoptic")  # type: ignore[arg-type]


def test_every_file_id_becomes_its_train_id() -> None:
    every = torch.arange(34, dtype=torch.int32)[None]
    assert semantic_target(every).labels[0].tolist() == [label.train_id for label in LABELS]
