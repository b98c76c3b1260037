"""Workers that are spawned, as on macOS and Windows, read what the training itself would read."""

from __future__ import annotations

import json
import multiprocessing
import operator
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.build import open_dataset
from pointrend.data.transforms import RandomFlip
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.recipe import Recipe


@pytest.fixture
def _spawned() -> Iterator[None]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def coco(root: Path) -> Path:
    """Six images with an object in each; the third is no image."""
    (root / "train").mkdir()
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    for number in range(1, 7):
        pixels = np.full((24, 32, 3), 20 * number, np.uint8)
        Image.fromarray(pixels).save(root / "train" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 24, "width": 32})
        ring = [4, 4, 20, 4, 20, 16, 4, 16]
        own = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0}
        content["annotations"].append({**own, "segmentation": [ring], "bbox": [4, 4, 16, 12], "area": 192})
    (root / "train" / "3.png").write_bytes(b"no image")
    (root / "instances_train.json").write_text(json.dumps(content))
    return root


def seen(root: Path, workers: int, transforms: Any) -> list[Any]:
    data = open_dataset(root, "train", transforms=transforms)
    batches = TrainingLoader(data, Recipe(batch_size=2), workers=workers).batches()
    return [
        (sample.image_id, sample.image, sample.target.masks.dense())
        for _, _, samples in islice(batches, 6)
        for sample in samples
    ]


@pytest.mark.slow  # three starts of a process that imports torch
@pytest.mark.filterwarnings("ignore:left out an image")
@pytest.mark.usefixtures("_spawned")
def test_spawned_workers_read_the_same_also_after_an_error_in_one(tmp_path: Path) -> None:
    root, transforms = coco(tmp_path), RandomFlip()
    with pytest.raises(TypeError, match="bad operand type"):
        seen(root, 1, operator.neg)
    expected, found = seen(root, 0, transforms), seen(root, 1, transforms)
    assert [one[0] for one in found] == [one[0] for one in expected]
    assert 3 not in [one[0] for one in found]
    assert all(
        torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) for a, b in zip(found, expected, strict=True)
    )
