"""Results in the form of Cityscapes' server, written and read back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pointrend.data.cityscapes import Cityscapes
from pointrend.evaluation.cityscapes_results import CityscapesResults
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import Subset
from pointrend.evaluation.prediction_store import SavedLabels
from pointrend.metadata.cityscapes import INSTANCE_LABELS, TRAIN_LABELS
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks

CAR = [label.name for label in INSTANCE_LABELS].index("car")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of one city: a car each, a group of cars and void in the second."""
    for number in range(2):
        name = f"ulm_00000{number}_000019"
        ids = np.full((30, 50), 7, np.int32)
        ids[5:25, 5 + number : 30] = 26001
        if number:
            ids[:5], ids[10:28, 35:48] = 4, 26
        for folder in ("leftImg8bit", "gtFine"):
            (tmp_path / folder / "val" / "ulm").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 30), (number, 0, 0)).save(
            tmp_path / "leftImg8bit/val/ulm" / f"{name}_leftImg8bit.png"
        )
        labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
        stem = tmp_path / "gtFine/val/ulm" / f"{name}_gtFine"
        Image.fromarray(labels).save(f"{stem}_labelIds.png")
        Image.fromarray(ids.astype(np.uint16)).save(f"{stem}_instanceIds.png")
    return tmp_path


class Cars:
    """Finds the car, the group, and one car too many."""

    config = SimpleNamespace(class_names=tuple(label.name for label in INSTANCE_LABELS))

    def predict(self, images: list[Tensor]) -> list[Any]:
        masks = torch.zeros(3, 30, 50, dtype=torch.bool)
        masks[0, 5:24, 5:30], masks[1, 10:28, 35:48], masks[2, 0:9, 0:40] = True, True, True
        boxes = torch.tensor([[5.0, 5, 30, 24], [35, 10, 48, 28], [0, 0, 40, 9]])
        scores = torch.tensor([1 / 3, 0.9, 0.25])
        labels = torch.tensor([CAR] * 3)
        return [
            InstanceResult(boxes, labels, scores, InstanceMasks.from_dense(masks), self.config.class_names)
        ]


class Roads:
    """Everything is road, but cars in the middle."""

    config = SimpleNamespace(class_names=tuple(label.name for label in TRAIN_LABELS))

    def predict(self, images: list[Tensor]) -> list[Any]:
        labels = torch.zeros(30, 50, dtype=torch.uint8)
        labels[8:20, 8:45] = 13
        return [SemanticResult(labels, self.config.class_names)]


def test_instances_are_written_as_the_server_wants_them_and_score_the_same_when_read_back(
    root: Path, tmp_path: Path
) -> None:
    data, out = Cityscapes(root, "val", "instance"), tmp_path / "out"
    metrics: Any = ("cityscapes", "mask")
    whole = evaluate_instances(Cars(), data, metrics=metrics, stores={"model": CityscapesResults(out)})[0]
    assert whole.class_names == data.class_names
    assert 0 < whole.numbers["Cityscapes AP"] < 1
    lines = (out / "ulm_000001_000019_pred.txt").read_text().splitlines()
    assert lines[0] == "masks/ulm_000001_000019_000.png 26 0.3333333432674408"
    with Image.open(out / lines[0].split()[0]) as mask:
        assert (mask.mode, mask.size) == ("L", (50, 30))
        assert np.unique(np.array(mask)).tolist() == [0, 255]
    again = evaluate_instances(None, data, metrics=metrics, stores={"model": CityscapesResults(out)})[0]
    assert again.numbers == pytest.approx(whole.numbers, abs=0, nan_ok=True)
    alone = evaluate_instances(Cars(), data, metrics=("cityscapes",))[0]
    assert alone.numbers["Cityscapes AP"] == whole.numbers["Cityscapes AP"]


def test_a_part_of_the_data_keeps_its_own_images(root: Path) -> None:
    data = Cityscapes(root, "val", "instance")
    part = Subset.with_ids(data, ["ulm_000001_000019"])
    assert part.image_ids == ["ulm_000001_000019"]
    assert torch.equal(part.instance_ids(0), data.instance_ids(1))
    assert (
        evaluate_instances(Cars(), part, metrics=("cityscapes",))[0].numbers
        != evaluate_instances(Cars(), Subset.first(data, 1), metrics=("cityscapes",))[0].numbers
    )
    with pytest.raises(ValueError, match="at least one image"):
        Subset.with_ids(data, ["bonn"])
    with pytest.raises(ValueError, match="limit: expected at least one"):
        Subset.first(data, 0)


def test_label_maps_carry_label_ids_and_score_the_same_when_read_back(root: Path, tmp_path: Path) -> None:
    data, ids = Cityscapes(root, "val"), [label.id for label in TRAIN_LABELS]
    store = SavedLabels(tmp_path / "out", file_ids=ids)
    whole = evaluate_semantic(Roads(), data, metrics=("categories",), stores={"model": store})[0]
    assert 0 < whole.numbers["category mIoU"] < 1
    with Image.open(tmp_path / "out" / "ulm_000000_000019.png") as image:
        assert np.unique(np.array(image)).tolist() == [7, 26]
    names = data.class_names
    known = SavedLabels(tmp_path / "out", file_ids=ids, known=data.image_ids)
    again = evaluate_semantic(
        None, data, class_names=names, metrics=("categories",), stores={"model": known}
    )[0]
    assert again.numbers == whole.numbers


def test_licence_plates_are_void(root: Path) -> None:
    file = next(root.glob("gtFine/val/ulm/*000001*instanceIds.png"))
    ids = np.array(Image.open(file))
    Image.fromarray(np.where(ids == 4, 65535, ids).astype(np.uint16)).save(file)
    data = Cityscapes(root, "val", "instance")
    assert data.instance_ids(1).unique().tolist() == [0, 7, 26, 26001]
    with pytest.raises(ValueError, match="for the instance task"):
        Cityscapes(root, "val").instance_ids(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("masks/a.png 26", "expected a mask's file"),
        ("../gtFine/a.png 26 0.5", "lies outside of"),
        ("masks/ulm_000000_000019_000.png 7 0.5", r"label id: expected one of \[24, 25"),
        ("masks/ulm_000000_000019_000.png 26 inf", "score: expected a finite number, got inf"),
        ("masks/ulm_000000_000019_000.png 26 nan", "score: expected a finite number"),
        ("masks/ulm_000000_000019_000.png car 1", "expected a label id and a score"),
        ("masks/none.png 26 0.5", r"none\.png"),
        ("masks/small.png 26 0.5", "expected the image's height and width"),
    ],
)
def test_what_the_server_would_not_take_is_refused_by_line(
    root: Path, tmp_path: Path, line: str, message: str
) -> None:
    data, out = Cityscapes(root, "val", "instance"), tmp_path / "out"
    evaluate_instances(Cars(), data, metrics=("cityscapes",), stores={"model": CityscapesResults(out)})
    Image.new("L", (3, 3)).save(out / "masks" / "small.png")
    file = out / "ulm_000000_000019_pred.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"ulm_000000_000019_pred\.txt, line 4: .*{message}"):
        evaluate_instances(None, data, metrics=("cityscapes",), stores={"model": CityscapesResults(out)})
