from __future__ import annotations

from math import pi

import numpy as np
import pytest

from pointrend.data import shape_drawing
from pointrend.data.shapes import KINDS
from pointrend.masks.polygons import Ring, bounds, coverage, inside

SQUARE = np.array([[2.0, 1.0], [6.0, 1.0], [6.0, 4.0], [2.0, 4.0]])


def by_definition(contours: list[Ring], height: int, width: int) -> np.ndarray:
    """Even-odd rule at every pixel centre, one edge after the other."""
    y, x = np.mgrid[:height, :width] + 0.5
    result = np.zeros((height, width), dtype=bool)
    for contour in contours:
        for (x0, y0), (x1, y1) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crosses = (y >= min(y0, y1)) & (y < max(y0, y1))
            result ^= crosses & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x)
    return result


def drawn(kind: int, seed: int, x: float = 30, y: float = 22) -> list[Ring]:
    rng = np.random.default_rng(seed)
    return shape_drawing.placed(KINDS[kind](rng, 15.0), x, y, rng.uniform(0, 2 * pi))


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("seed", range(3))
def test_pixels_inside_are_those_whose_centre_is(kind: int, seed: int) -> None:
    contours = drawn(kind, seed, x=3.0 if seed == 2 else 30.0)  # the last one leaves the image
    assert np.array_equal(inside(contours, (0, 0, 48, 64)), by_definition(contours, 48, 64))


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_window_shows_the_same_as_the_whole(kind: int) -> None:
    contours = drawn(kind, 5, x=60.0)
    whole = inside(contours, (0, 0, 48, 64))
    top, left, height, width = bounds(contours, 48, 64)
    part = np.zeros_like(whole)
    part[top : top + height, left : left + width] = inside(contours, (top, left, height, width))
    assert np.array_equal(whole, part)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_coverage_is_the_area_of_each_pixel_inside(kind: int) -> None:
    contours = drawn(kind, 1)
    fine = inside([contour * 16 for contour in contours], (0, 0, 48 * 16, 64 * 16))
    expected = fine.reshape(48, 16, 64, 16).mean(axis=(1, 3))
    share = coverage(contours, (0, 0, 48, 64))
    assert np.abs(share - expected).max() < 0.15  # five rows a pixel
    assert share.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_a_square_on_the_pixel_grid_is_covered_exactly() -> None:
    share = coverage([SQUARE], (0, 0, 6, 8))
    assert set(share.ravel().tolist()) == {0.0, 1.0}
    assert share.sum() == 12
    half = coverage([SQUARE + np.array([0.5, 0])], (0, 0, 6, 8))
    assert half[2].tolist() == pytest.approx([0, 0, 0.5, 1, 1, 1, 0.5, 0])


def test_shapes_outside_of_the_image_have_no_window() -> None:
    for shift in ((100, 0), (0, 100), (-100, 0), (0, -100)):
        _, _, height, width = bounds([SQUARE + np.array(shift)], 6, 8)
        assert height == 0 or width == 0
    assert inside([SQUARE + np.array([100, 0])], (0, 0, 6, 8)).sum() == 0
