"""Data sets behind an address: the samples that the same files give from the disk, and nothing kept."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data import remote
from pointrend.data.build import open_dataset
from pointrend.data.coco import CocoInstances
from pointrend.data.image_io import build_loader
from pointrend.data.repair import write_repaired
from pointrend.structures import Dataset
from tests.helpers import FolderHandler, serving

NAMES = ("0.png", "deep/a b#1.png", "2.png")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Images of different sizes, with objects in COCO's format and with label maps."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, name in enumerate(NAMES):
        path, height, width = tmp_path / "train" / name, 9 + number, 12
        for target in (path, tmp_path / "maps" / name):
            target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        Image.fromarray(rng.integers(0, 3, (height, width), dtype=np.uint8)).save(tmp_path / "maps" / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        box: dict[str, Any] = {"bbox": [1, 2, 4, 5], "area": 20, "iscrowd": 0}
        outline = [[1, 2, 5, 2, 5, 7, 1, 7]]
        annotations.append(
            {"id": number + 1, "image_id": number, "category_id": 4, "segmentation": outline, **box}
        )
    categories = [{"id": 4, "name": "thing"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    (tmp_path / "train.txt").write_text("".join(f"train/{name}\tmaps/{name}\n" for name in NAMES))
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c"]}))
    return tmp_path


@pytest.fixture
def web(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    with serving(functools.partial(FolderHandler, directory=str(files))) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def store(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.delenv("POINTREND_OFFLINE", raising=False)
    memory = fsspec.filesystem("memory")
    for path in files.rglob("*.*"):
        memory.pipe_file(f"/bucket/data/{path.relative_to(files).as_posix()}", path.read_bytes())
    yield "memory://bucket/data/"
    memory.rm("/bucket", recursive=True)


@pytest.fixture(params=["web", "store"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def same(streamed: Dataset, local: Dataset) -> None:
    assert streamed.class_names == local.class_names
    assert list(streamed.image_ids) == list(local.image_ids)
    for one, other in zip(streamed, local, strict=True):  # type: ignore[call-overload]
        assert torch.equal(one.image, other.image)
        if streamed.task == "semantic":
            assert torch.equal(one.target.labels, other.target.labels)
        else:
            assert torch.equal(one.target.boxes, other.target.boxes)
            assert torch.equal(one.target.masks.dense(), other.target.masks.dense())


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_samples_are_those_of_the_disk(address: str, files: Path, task: str) -> None:
    streamed, local = (open_dataset(f"{one}:{task}", "train") for one in (address, files))
    assert streamed.task == task
    same(streamed, local)


def test_worker_processes_read_by_themselves(web: str) -> None:
    data = open_dataset(web, "train")
    batches = list(build_loader(data, 1, workers=2, train=False))
    assert [sample[0].path for _, _, sample in batches] == [
        f"{web}/train/{name}" for name in ("0.png", "deep/a%20b%231.png", "2.png")
    ]


def test_coco_as_released(files: Path, store: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.mv("/bucket/data/instances_train.json", "/bucket/data/annotations/instances_train2017.json")
    memory.mv("/bucket/data/train", "/bucket/data/train2017", recursive=True)
    same(open_dataset(store, "train"), open_dataset(f"{files}:instance", "train"))


def test_a_missing_image_is_named_and_no_reason_to_ask_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: pytest.fail("asks again"))
    data = open_dataset(address, "train")
    data.file.images[2] = type(data.file.images[2])(2, "gone.png", 9, 12)  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError, match=r"train/gone\.png: could not be fetched"):
        data[2]


def test_a_damaged_image_is_named_by_its_address(web: str, files: Path) -> None:
    (files / "train" / "0.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=rf"^{web}/train/0\.png: not a readable image"):
        open_dataset(web, "train")[0]


def test_a_repaired_copy_needs_the_images(web: str, tmp_path: Path) -> None:
    data = open_dataset(web, "train")
    assert isinstance(data, CocoInstances)
    with pytest.raises(ValueError, match="expected images on this computer"):
        write_repaired(data, "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_said(address: str, files: Path) -> None:
    with pytest.raises(ValueError, match=r"no annotations of 'val' there.*instances_val\.json.*val\.txt"):
        open_dataset(address, "val")
    with pytest.raises(ValueError, match="from this computer's disk only"):
        open_dataset(f"{address}:points", "train")
    with pytest.raises(ValueError, match="categories can be chosen in COCO data only"):
        open_dataset(f"{address}:semantic", "train", categories=["a"])


def test_label_maps_need_named_classes(web: str, files: Path) -> None:
    (files / "classes.json").unlink()
    with pytest.raises(ValueError, match=r"classes\.json: not there"):
        open_dataset(f"{web}:semantic", "train")
    (files / "classes.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{web}/classes\.json: not a readable JSON file"):
        open_dataset(f"{web}:semantic", "train")
