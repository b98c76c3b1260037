from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend.data.build import open_dataset
from pointrend.data.cityscapes import Cityscapes
from pointrend.data.coco import CocoInstances
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import RandomCrop, RandomFlip


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


def write_labels(path: Path, label: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), label, np.uint8)).save(path)


def write_coco(file: Path, objects: int = 1) -> None:
    """Two images, the first with objects."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 4, "width": 6} for n in (1, 2)]
    polygon = [[0, 0, 4, 0, 4, 3]]
    thing = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 4, 3], "segmentation": polygon, "area": 6}
    annotations = [{**thing, "id": n} for n in range(objects)]
    categories = [{"id": 9, "name": "fig", "supercategory": "fruit"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("instances_{}.json", "{}"),
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/instances_{}2017.json", "images/{}2017"),
        ("annotations/instances_{}.json", "images"),
    ],
)
def test_coco_layouts_are_found(tmp_path: Path, annotations: str, images: str) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path / annotations.format(split))
        for number in (1, 2):
            write_image(tmp_path / images.format(split) / f"{number}.jpg")
    train, val = open_dataset(tmp_path, "train"), open_dataset(str(tmp_path), "val")
    assert isinstance(train, CocoInstances)
    assert (train.task, train.class_names) == ("instance", ("fig",))
    assert (len(train), len(val)) == (1, 2)  # the image without objects is not trained on
    assert len(train[0].target) == 1
    assert open_dataset(tmp_path, "train", categories=["fruit"]).class_names == ("fruit",)


def test_pair_lists_share_the_classes_of_both_splits(tmp_path: Path) -> None:
    for name, label in (("a", 0), ("b", 3)):
        write_image(tmp_path / f"{name}.jpg")
        write_labels(tmp_path / f"{name}.png", label)
    (tmp_path / "train.txt").write_text("a.jpg a.png\n")
    (tmp_path / "val.txt").write_text("b.jpg b.png\n")
    train, val = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "val")
    assert isinstance(train, SemanticFolder)
    assert len(train.class_names) == len(val.class_names) == 4
    assert int(val[0].target.labels[0, 0]) == 3


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("training", "validation")])
@pytest.mark.parametrize("labels", ["labels", "masks", "annotations"])
def test_folders_with_splits_are_found(tmp_path: Path, train: str, val: str, labels: str) -> None:
    for split, count in ((train, 3), (val, 2)):
        for number in range(count):
            write_image(tmp_path / "images" / split / f"{number}.jpg")
            write_labels(tmp_path / labels / split / f"{number}.png")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["only"]}))
    assert len(open_dataset(tmp_path, "train")) == 3
    assert len(open_dataset(tmp_path, "val")) == 2
    assert open_dataset(tmp_path, "val").class_names == ("only",)


def test_folders_without_splits_hold_out_every_tenth_image(tmp_path: Path) -> None:
    for number in range(21):
        write_image(tmp_path / "images" / f"{number:02d}.jpg")
        write_labels(tmp_path / "labels" / f"{number:02d}.png")
    train, val = (
        {open_dataset(tmp_path, s)[i].image_id for i in range(n)} for s, n in (("train", 18), ("val", 3))
    )
    assert val == {"00", "10", "20"}
    assert not train & val
    assert len(train) == 18


def test_ade20k_has_150_classes_and_its_zero_is_ignored(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "validation" / "a.jpg")
    write_labels(tmp_path / "annotations" / "validation" / "a.png", 150)
    write_image(tmp_path / "images" / "validation" / "b.jpg")
    write_labels(tmp_path / "annotations" / "validation" / "b.png", 0)
    (tmp_path / "objectInfo150.txt").write_text("")
    data = open_dataset(tmp_path, "val")
    assert len(data.class_names) == 150
    assert (data.class_names[0], data.class_names[149]) == ("wall", "flag")
    assert [int(data[n].target.labels[0, 0]) for n in range(2)] == [149, 255]


def test_coco_stuff_is_found_beside_coco(tmp_path: Path) -> None:
    write_coco(tmp_path / "annotations" / "instances_val2017.json")
    for split in ("train2017", "val2017"):
        for number in (1, 2):
            write_image(tmp_path / split / f"{number}.jpg")
    for number, label in ((1, 181), (2, 255)):
        write_labels(tmp_path / "stuffthingmaps" / "val2017" / f"{number}.png", label)
    assert open_dataset(tmp_path, "val").task == "instance"
    data = open_dataset(f"{tmp_path}:semantic", "val")
    assert len(data.class_names) == 171
    assert data.class_names[170] == "wood"
    assert [int(data[n].target.labels[0, 0]) for n in range(2)] == [170, 255]
    write_labels(tmp_path / "stuffthingmaps" / "val2017" / "1.png", 11)  # street sign: no annotation has it
    with pytest.raises(ValueError, match=r"1\.png: expected labels the 171 ids or 255 \(ignored\), got 11"):
        data[0]


def test_cityscapes_is_found_and_asked_for_its_objects_by_a_suffix(tmp_path: Path) -> None:
    stem = tmp_path / "gtFine" / "train" / "ulm" / "ulm_000000_000019_gtFine"
    write_image(tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    for kind in ("labelIds", "instanceIds"):
        write_labels(Path(f"{stem}_{kind}.png"), 26)
    assert isinstance(open_dataset(tmp_path, "train"), Cityscapes)
    assert open_dataset(tmp_path, "train").task == "semantic"
    assert open_dataset(f"{tmp_path}:instance", "train")[0].target.crowd.tolist() == [True]


def test_shapes_need_no_files_and_their_splits_differ() -> None:
    train, val = (
        open_dataset("shapes", "train"),
        open_dataset("shapes:instance", "val", transforms=RandomCrop(99, 99)),
    )
    assert isinstance(train, ShapeScenes)
    assert (train.task, val.task) == ("semantic", "instance")
    assert train[0].image_id != val[0].image_id
    sample = val[0]
    assert sample.image.shape == (3, 99, 99)
    assert sample.target.masks.image_size == (99, 99)
    assert (sample.target.masks.areas() > 0).all()


def test_what_is_not_understood_is_answered_with_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder(.|\n)*instances_\{train,val\}\.json"):
        open_dataset("nowhere", "train")
    with pytest.raises(
        ValueError, match=r"found none of the layouts below for the split 'val'(.|\n)*classes\.json"
    ):
        open_dataset(tmp_path, "val")
    with pytest.raises(ValueError, match='"train" or "val", got \'test\''):
        open_dataset("shapes", "test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="COCO data only"):
        open_dataset("shapes", "train", categories=["star"])
    write_coco(tmp_path / "instances_train.json")
    write_image(tmp_path / "train" / "1.jpg")
    with pytest.raises(ValueError, match="for instance segmentation, not semantic"):
        open_dataset(f"{tmp_path}:semantic", "train")


@pytest.mark.parametrize(
    ("name", "classes", "train", "val"),
    [("camvid", 11, 367, 101), ("coco_mini", 80, 340, 106), ("fruits_nuts", 3, 10, 4)],
)
def test_the_real_data_is_found(shared_data: Path, name: str, classes: int, train: int, val: int) -> None:
    for split, count in (("train", train), ("val", val)):
        dataset = open_dataset(shared_data / name, split, transforms=RandomFlip())  # type: ignore[arg-type]
        assert len(dataset.class_names) == len(dataset.palette) == classes
        assert abs(len(dataset) - count) <= 1  # an image with crowds only counts as empty
        assert dataset[0].image.shape[0] == 3
