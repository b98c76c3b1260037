from __future__ import annotations

import pytest
import torch

from pointrend.core.sampling import cell_centers, points_in_image, regular_grid


def test_the_only_cell_of_a_1x1_grid_has_its_centre_in_the_middle() -> None:
    assert regular_grid(1, 1).tolist() == [[[0.5, 0.5]]]


def test_a_regular_grid_runs_row_by_row_with_x_first() -> None:
    expected = torch.tensor([[0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25], [0.125, 0.75]])
    torch.testing.assert_close(regular_grid(2, 4)[0, :5], expected, atol=1e-7, rtol=0)


def test_every_region_gets_the_same_grid() -> None:
    grid = regular_grid(3, 5, regions=2)
    assert grid.shape == (2, 15, 2)
    assert torch.equal(grid[0], grid[1])


def test_grids_stay_float32_under_autocast() -> None:
    exact = regular_grid(28, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(regular_grid(28, 28), exact)


def test_no_region_gives_an_empty_grid() -> None:
    assert regular_grid(3, 5, regions=0).shape == (0, 15, 2)


def test_cell_centers_of_all_cells_are_the_regular_grid() -> None:
    index = torch.arange(7 * 9)[None]
    torch.testing.assert_close(cell_centers(index, 7, 9), regular_grid(7, 9), atol=1e-6, rtol=0)


def test_centres_stay_apart_on_a_grid_of_8192_columns() -> None:
    # bfloat16 could tell 256 of them apart.
    x = cell_centers(torch.arange(8192)[None], 1, 8192)[0, :, 0]
    assert x.dtype == torch.float32
    assert len(torch.unique(x)) == 8192


def test_the_corners_of_the_unit_square_are_the_corners_of_the_box() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    corners = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]])
    assert points_in_image(corners, boxes).tolist() == [[[10, 20], [30, 60], [20, 40]]]


def test_a_box_without_area_maps_every_point_to_itself() -> None:
    boxes = torch.tensor([[5.0, 6.0, 5.0, 6.0]])
    assert torch.equal(points_in_image(torch.rand(1, 9, 2), boxes), torch.tensor([5.0, 6.0]).expand(1, 9, 2))


def test_empty_grids_and_unequal_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 cell"):
        regular_grid(0, 3)
    with pytest.raises(ValueError, match="boxes"):
        points_in_image(torch.rand(2, 3, 2), torch.rand(1, 4))
