"""RoIAlign as sums of table rows, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from pointrend.models.roi_align import pools_by_table, roi_align_rows


def boxes_everywhere(count: int) -> torch.Tensor:
    """Inside, across and beyond an image of 96x64 pixels; large, thin, and without area."""
    corner = torch.rand(count, 2) * torch.tensor([130.0, 100]) - 20
    boxes = torch.cat((corner, corner + torch.rand(count, 2) ** 2 * 90), 1)
    boxes[0] = torch.tensor([10.0, 10, 10, 10])
    boxes[1] = torch.tensor([10.0, 10, 40, 10])
    boxes[2] = torch.tensor([0.0, 0, 96, 64])
    boxes[3] = torch.tensor([96.0, 64, 97, 65])
    return boxes


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("stride", [4, 16])
def test_weighted_rows_are_roi_align(size: int, stride: int) -> None:
    features = torch.randn(2, 5, 64 // stride, 96 // stride).double()
    features = features.contiguous(memory_format=torch.channels_last)
    boxes, index = boxes_everywhere(60).double(), torch.randint(0, 2, (60,))
    rois = torch.cat((index[:, None].double(), boxes), 1)
    theirs = roi_align(features.contiguous(), rois, size, 1 / stride, sampling_ratio=0, aligned=True)
    torch.testing.assert_close(roi_align_rows(features, boxes, index, size, stride), theirs)


@torch.no_grad()
def test_many_rows_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(1, 3, 16, 24).contiguous(memory_format=torch.channels_last)
    boxes, index = boxes_everywhere(20), torch.zeros(20, dtype=torch.int64)
    whole = roi_align_rows(features, boxes, index, 7, 4)
    monkeypatch.setattr("pointrend.models.roi_align.ROWS_AT_ONCE", 1)
    torch.testing.assert_close(roi_align_rows(features, boxes, index, 7, 4), whole)


def test_no_boxes_give_no_features() -> None:
    features = torch.randn(1, 3, 16, 24).contiguous(memory_format=torch.channels_last)
    none = torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        assert roi_align_rows(features, torch.zeros(0, 4), none, 7, 4).shape == (0, 3, 7, 7)


def test_gradients_and_other_layouts_are_left_to_torchvision() -> None:
    features = torch.randn(1, 3, 16, 24)
    assert not pools_by_table(features.contiguous(memory_format=torch.channels_last))
    with torch.no_grad():
        assert not pools_by_table(features)
        assert pools_by_table(features.contiguous(memory_format=torch.channels_last))
