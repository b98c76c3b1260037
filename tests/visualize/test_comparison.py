"""Contact sheets have room for every image and little else."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend.visualize.comparison import contact_sheet


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
