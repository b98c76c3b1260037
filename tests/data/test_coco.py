from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from pointrend.data.coco import CocoInstances
from pointrend.data.image_io import build_loader
from pointrend.data.transforms import (
    Compose,
    RandomCrop,
    RandomFlip,
    RandomScale,
    instance_training_transforms,
)

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SQUARE = [[2.0, 1.0, 8.0, 1.0, 8.0, 6.0, 2.0, 6.0]]


def content() -> dict[str, Any]:
    """Two images of 10x12 (height x width), the second without objects; ids with gaps."""
    bits = np.zeros((10, 12), dtype=np.uint8, order="F")
    bits[5:9, 3:11] = 1
    compressed = oracle.encode(bits)["counts"].decode()
    plain = {"size": [10, 12], "counts": [35, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 11]}
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 10, "width": 12},
            {"id": 3, "file_name": "a.png", "height": 10, "width": 12},
        ],
        "categories": [
            {"id": 90, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "car", "supercategory": "vehicle"},
            {"id": 5, "name": "cat", "supercategory": "animal"},
        ],
        "annotations": [
            annotation(1, 90, SQUARE, [2, 1, 6, 5]),
            annotation(2, 2, {"size": [10, 12], "counts": compressed}, [3, 5, 8, 4]),
            {**annotation(3, 5, plain, [3, 5, 8, 4]), "iscrowd": 1},
        ],
    }


def annotation(number: int, category: int, segmentation: Any, bbox: list[float]) -> dict[str, Any]:
    area = bbox[2] * bbox[3]
    return {
        "id": number,
        "image_id": 7,
        "category_id": category,
        "segmentation": segmentation,
        "bbox": bbox,
        "area": area,
        "iscrowd": 0,
    }


def write(root: Path, fields: dict[str, Any]) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (12, 10), "green").save(root / "images" / name)
    (root / "objects.json").write_text(json.dumps(fields))
    return root / "objects.json"


def opened(root: Path, fields: dict[str, Any] | None = None, **options: Any) -> CocoInstances:
    return CocoInstances(root / "images", write(root, fields or content()), **options)


def test_labels_are_contiguous_in_the_order_of_ids_and_lead_back(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert dataset.class_names == ("car", "cat", "dog")
    assert dataset.category_ids == (2, 5, 90)
    assert len(dataset.palette) == 3
    sample = dataset[1]
    assert sample.image_id == 7
    assert sample.image.shape == (3, 10, 12)
    assert sample.target.labels.tolist() == [2, 0, 1]
    assert sample.target.crowd.tolist() == [False, False, True]
    assert sample.target.boxes.tolist() == [[2, 1, 8, 6], [3, 5, 11, 9], [3, 5, 11, 9]]


def test_polygons_and_both_kinds_of_run_lengths_give_their_pixels(tmp_path: Path) -> None:
    masks = opened(tmp_path)[1].target.masks.dense()
    square, rectangle = torch.zeros(2, 10, 12, dtype=torch.bool)
    square[1:6, 2:8] = True
    rectangle[5:9, 3:11] = True
    assert torch.equal(masks, torch.stack([square, rectangle, rectangle]))


def test_an_image_without_objects_is_a_sample_unless_unwanted(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert [dataset[i].image_id for i in range(len(dataset))] == [3, 7]
    assert len(dataset[0].target) == 0
    assert opened(tmp_path, keep_empty=False).image_ids == [7]
    assert opened(tmp_path, keep_empty=False, categories=["cat"]).image_ids == []  # a crowd only


def test_categories_are_chosen_by_name_and_supercategories_become_one_class(tmp_path: Path) -> None:
    dataset = opened(tmp_path, categories=["vehicle", "animal"])
    assert dataset.class_names == ("vehicle", "animal")
    assert dataset.category_ids == (2, 5)
    assert dataset[1].target.labels.tolist() == [1, 0, 1]
    assert opened(tmp_path, categories=["dog"])[1].target.labels.tolist() == [0]
    with pytest.raises(ValueError, match=r"no category or supercategory 'dgo'; there are animal, car, cat"):
        opened(tmp_path, categories=["dgo"])
    for names in (["dog", "animal"], []):
        with pytest.raises(ValueError, match="each category once"):
            opened(tmp_path, categories=names)


def test_small_objects_can_be_left_out_but_crowds_stay(tmp_path: Path) -> None:
    target = opened(tmp_path, min_area=31)[1].target
    assert target.labels.tolist() == [0, 1]


def test_what_is_left_can_be_written_as_coco_again(tmp_path: Path) -> None:
    kept = opened(tmp_path, categories=["animal"]).as_coco()
    assert kept["categories"] == [{"id": 5, "name": "animal"}]
    assert [item["category_id"] for item in kept["annotations"]] == [5, 5]
    again = opened(tmp_path, json.loads(json.dumps(kept)))
    assert torch.equal(
        again[1].target.masks.dense(), opened(tmp_path, categories=["animal"])[1].target.masks.dense()
    )


def test_transforms_move_image_and_objects_together(tmp_path: Path) -> None:
    fields = content()
    steps = Compose([RandomScale(0.7, 3.0), RandomCrop(9, 9), RandomFlip()])
    dataset = opened(tmp_path, fields, transforms=steps)
    image = np.zeros((10, 12, 3), dtype=np.uint8)
    image[1:6, 2:8, 0] = 255  # the polygon in red
    Image.fromarray(image).save(tmp_path / "images" / "b.jpg", format="PNG")
    torch.manual_seed(0)
    for _ in range(30):
        sample = dataset[1]
        painted = sample.image[0] > 127
        dogs = sample.target.masks.dense()[sample.target.labels == 2]
        mask = dogs[0] if len(dogs) else torch.zeros_like(painted)
        # They may differ by the antialiased rim only.
        assert (painted ^ mask).sum() <= 0.25 * max(int(mask.sum()), 16)
        assert sample.target.masks.image_size == tuple(sample.image.shape[-2:])
        assert sample.image.is_contiguous()


def test_an_exif_rotated_image_is_read_as_it_was_annotated(tmp_path: Path) -> None:
    """Upright where that has the annotated size, else as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    dataset = opened(tmp_path)
    Image.new("RGB", (10, 12)).save(tmp_path / "images" / "b.jpg", exif=exif)
    assert dataset[1].image.shape == (3, 10, 12)
    Image.new("RGB", (12, 10)).save(tmp_path / "images" / "b.jpg", exif=exif)
    assert dataset[1].image.shape == (3, 10, 12)
    Image.new("RGB", (12, 11)).save(tmp_path / "images" / "b.jpg")
    with pytest.raises(ValueError, match=r"b\.jpg: .*10x12.*image 7.*11x12"):
        dataset[1]


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, content())
    for text in ("", "[1, 2", "[" * 100_000, "[]", "\x00"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"objects\.json: (not a readable JSON|expected an object)"):
            CocoInstances(tmp_path / "images", file)
    with pytest.raises(ValueError, match="no such folder"):
        CocoInstances(tmp_path / "nothing", file)


def test_a_file_without_categories_or_file_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"objects\.json, categories: expected at least one"):
        opened(tmp_path, {**content(), "categories": [], "annotations": []})
    nameless = content()
    del nameless["images"][0]["file_name"]
    with pytest.raises(ValueError, match=r"images\[0\] \(id 7\), file_name: expected a text, got nothing"):
        opened(tmp_path, nameless)


def test_a_missing_image_is_named_when_read(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    (tmp_path / "images" / "b.jpg").unlink()
    with pytest.raises(ValueError, match=r"b\.jpg: no such file"):
        dataset[1]


def test_every_mask_of_coco_mini_equals_the_coco_api(shared_data: Path) -> None:
    file = shared_data / "coco_mini" / "instances_val.json"
    dataset, reference = CocoInstances(file.parent / "val", file), COCO(str(file))
    seen = 0
    for image_id in dataset.image_ids[:60]:
        target = dataset.placed(image_id).target()
        kept = iter(zip(target.masks, target.labels.tolist(), strict=True))
        for item in reference.loadAnns(reference.getAnnIds(image_id)):
            expected = reference.annToMask(item).astype(bool)
            if not expected.any() or min(item["bbox"][2:]) <= 0:
                continue
            mask, label = next(kept)
            assert dataset.category_ids[label] == item["category_id"]
            assert np.array_equal(mask.numpy(), expected)
            seen += 1
    assert seen > 400


def test_coco_mini_goes_through_the_training_recipe_and_a_loader(shared_data: Path) -> None:
    folder = shared_data / "coco_mini"
    steps = instance_training_transforms((128, 160), 256)
    dataset = CocoInstances(
        folder / "train",
        folder / "instances_train.json",
        transforms=steps,
        categories=["person"],
        keep_empty=False,
        min_area=100,
    )
    assert 100 < len(dataset) < 170
    torch.manual_seed(0)
    images, targets, samples = next(iter(build_loader(dataset, 4)))
    assert len(images) == len(targets) == len(samples) == 4
    for image, target in zip(images, targets, strict=True):
        assert min(image.shape[-2:]) in {128, 160} or max(image.shape[-2:]) == 256
        assert target.boxes[:, 2].max() <= image.shape[-1]  # type: ignore[attr-defined]
        assert (target.masks.areas() > 0).all()  # type: ignore[attr-defined]


def test_fruits_and_nuts_have_their_three_classes(shared_data: Path) -> None:
    folder = shared_data / "fruits_nuts"
    dataset = CocoInstances(folder / "val", folder / "instances_val.json")
    assert dataset.class_names == ("date", "fig", "hazelnut")
    assert sum(len(dataset.placed(number).target()) for number in dataset.image_ids) == 38
