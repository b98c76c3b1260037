from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pointrend.data.shapes import ShapeScenes
from pointrend.training.nonfinite import FailedBatch, load_batch, save_batch


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_targets_of_both_tasks_come_back_as_they_were(tmp_path: Path, task: str) -> None:
    samples = [ShapeScenes(2, task, size=(24, 32))[number] for number in range(2)]
    targets = [sample.target for sample in samples]
    images = [sample.image for sample in samples]
    failed = FailedBatch(images, targets, nn.Linear(2, 2).state_dict(), 2**62 + 1, [5, 2**62 + 3])
    path = save_batch(tmp_path, failed, step=4, rank=1)
    assert path is not None
    assert path.name == "failed-update0000005-process1.pt"
    found = load_batch(path)
    assert torch.equal(found.images[1], images[1])
    assert set(found.weights) == {"weight", "bias"}
    assert (found.seed, found.seeds) == (failed.seed, failed.seeds)
    for ours, theirs in zip(found.targets, targets, strict=True):
        assert torch.equal(ours.labels, theirs.labels)
        if task == "instance":
            assert torch.equal(ours.boxes, theirs.boxes)
            assert torch.equal(ours.crowd, theirs.crowd)
            assert torch.equal(ours.masks.dense(), theirs.masks.dense())


def test_no_room_for_the_batch_does_not_hide_the_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = save_batch(tmp_path / "file", FailedBatch([], [], {}, 0, []), step=0, rank=0)
    assert found is None
