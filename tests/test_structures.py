from __future__ import annotations

import pytest
import torch

from pointrend.core.sampling import point_sample
from pointrend.structures import InstanceMasks, InstanceTarget


def some_masks() -> torch.Tensor:
    masks = torch.zeros(4, 9, 13, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 0, 0] = True
    masks[2] = True
    return masks  # the fourth is empty


def test_windows_hold_the_same_masks_as_full_images() -> None:
    masks = InstanceMasks.from_dense(some_masks())
    assert torch.equal(masks.dense(), some_masks())
    assert [tuple(window.shape) for window in masks.windows] == [(3, 6), (1, 1), (9, 13), (0, 0)]
    assert masks.areas().tolist() == [18, 1, 117, 0]


def test_masks_can_be_chosen_by_numbers_or_flags() -> None:
    masks = InstanceMasks.from_dense(some_masks())
    assert torch.equal(masks[torch.tensor([2, 0])].dense(), some_masks()[[2, 0]])
    assert torch.equal(masks[torch.tensor([False, True, False, True])].dense(), some_masks()[[1, 3]])
    assert len(masks[[]]) == 0
    assert masks[[]].dense().shape == (0, 9, 13)


def test_samples_are_those_of_the_full_image_with_zero_padding() -> None:
    dense = some_masks()
    points = torch.rand(4, 300, 2) * torch.tensor([17.0, 13.0]) - 2  # some outside
    full = point_sample(dense[:, None].float(), points / torch.tensor([13.0, 9.0]))[:, 0]
    ours = InstanceMasks.from_dense(dense).sample(torch.arange(4), points)
    torch.testing.assert_close(ours, full, atol=1e-5, rtol=0)


def test_one_mask_may_be_sampled_for_several_boxes_and_none_for_no_box() -> None:
    masks = InstanceMasks.from_dense(some_masks())
    points = torch.rand(3, 5, 2) * 9
    values = masks.sample(torch.tensor([2, 0, 2]), points)
    assert torch.equal(values[0], masks.sample(torch.tensor([2]), points[:1])[0])
    assert masks.sample(torch.zeros(0, dtype=torch.int64), points[:0]).shape == (0, 5)


def test_targets_whose_parts_disagree_are_refused() -> None:
    masks = InstanceMasks.from_dense(some_masks())
    with pytest.raises(ValueError, match=r"boxes \(4, 4\)"):
        InstanceTarget(
            torch.zeros(3, 4), torch.zeros(4, dtype=torch.int64), masks, torch.zeros(4, dtype=torch.bool)
        )
    with pytest.raises(ValueError, match="offsets"):
        InstanceMasks(masks.windows, masks.offsets[:2], (9, 13))
