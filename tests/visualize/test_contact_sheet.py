"""Contact sheets have room for every image and little else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointrend.structures import InstanceMasks, InstanceTarget, LabelledPoints, Sample
from pointrend.visualize.contact_sheet import contact_sheet, draw_target


def make_image(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_a_row_is_as_high_as_its_highest_image() -> None:
    sheet = contact_sheet(
        [make_image(40, 100, 1), make_image(20, 100, 2), make_image(100, 50, 3)], columns=2, tile=100
    )
    assert sheet.shape == (8 + 40 + 8 + 100 + 8, 8 + 108 + 108, 3)
    assert (sheet[8:48, 8:108] == 1).all()
    assert (sheet[18:38, 116:216] == 2).all()


def test_small_images_are_enlarged_by_whole_factors_and_large_ones_made_to_fit() -> None:
    sheet = contact_sheet([make_image(10, 30, 1), make_image(50, 400, 2)], columns=1, tile=100)
    assert sheet.shape[1] == 116
    assert ((sheet == 1).all(2)).sum() == 9 * 10 * 30
    assert ((sheet == 2).all(2)).sum() == pytest.approx(100 * 12.5, rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_odd_sizes_have_their_place(size: tuple[int, int]) -> None:
    assert contact_sheet([make_image(*size, 7)], tile=50).min() == 7


def test_a_sheet_needs_an_image() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])


def test_labelled_points_are_green_on_their_object_and_red_beside_it() -> None:
    points = LabelledPoints(
        torch.tensor([[[10.5, 20.5], [40.5, 20.5], [70.5, 20.5]]]), torch.tensor([[1.0, 0, -1]])
    )
    nothing = InstanceMasks([torch.zeros(0, 0)], torch.zeros(1, 2, dtype=torch.int64), (60, 90))
    target = InstanceTarget(
        torch.tensor([[5.0, 5, 85, 55]]), torch.tensor([0]), nothing, torch.tensor([False]), points
    )
    drawn = draw_target(Sample(torch.zeros(3, 60, 90, dtype=torch.uint8), target, 1), ("disc",))
    assert drawn[20, 10].tolist() == [0, 200, 0]
    assert drawn[20, 40].tolist() == [220, 0, 0]
    assert drawn[20, 70].tolist() == [0, 0, 0]  # it does not count
