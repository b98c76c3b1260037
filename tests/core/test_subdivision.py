from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.sampling import regular_grid
from pointrend.core.selection import binary_uncertainty, margin_uncertainty
from pointrend.core.subdivision import (
    SubdivisionStep,
    put_back,
    share_predicted,
    subdivide,
    subdivision_sizes,
)


def disc(points: torch.Tensor) -> torch.Tensor:
    """A smooth signed field at points (N, P, 2): positive inside of a disc, (N, 1, P)."""
    distance = (points - torch.tensor([0.45, 0.55], dtype=points.dtype)).norm(dim=-1)
    return ((0.3 - distance) * 30)[:, None]


def on_grid(height: int, width: int, regions: int = 1) -> torch.Tensor:
    return disc(regular_grid(height, width, regions=regions)).reshape(regions, 1, height, width)


def test_subdivision_equals_dense_evaluation_where_points_cover_every_cell() -> None:
    sizes = subdivision_sizes((7, 9), (50, 61))
    rendered = subdivide(on_grid(7, 9), disc, sizes=sizes, num_points=50 * 61, uncertainty=binary_uncertainty)
    torch.testing.assert_close(rendered, on_grid(50, 61), atol=1e-4, rtol=0)  # of logits up to 14


def test_a_few_points_near_the_boundary_give_the_same_mask_as_all_cells() -> None:
    rendered = subdivide(
        on_grid(28, 28),
        disc,
        sizes=subdivision_sizes((28, 28), (224, 224)),
        num_points=28 * 28,
        uncertainty=binary_uncertainty,
    )
    assert torch.equal(rendered > 0, on_grid(224, 224) > 0)
    upsampled = F.interpolate(on_grid(28, 28), size=(224, 224), mode="bilinear")
    assert not torch.equal(upsampled > 0, on_grid(224, 224) > 0)


def test_no_step_returns_the_start() -> None:
    start = on_grid(4, 4)
    assert subdivide(start, disc, sizes=[], num_points=5, uncertainty=binary_uncertainty) is start


def test_only_the_chosen_cells_change() -> None:
    trace: list[SubdivisionStep] = []
    subdivide(
        on_grid(8, 8),
        disc,
        sizes=[(16, 16), (32, 32)],
        num_points=30,
        uncertainty=binary_uncertainty,
        trace=trace,
    )
    assert [step.size for step in trace] == [(16, 16), (32, 32)]
    for step in trace:
        changed = (step.logits != step.upsampled).flatten().nonzero().flatten().tolist()
        assert set(changed) <= set(step.index[0].tolist())
        assert step.points.shape == (1, 30, 2)
        assert torch.equal(step.logits.flatten(2).gather(2, step.index[:, None]), disc(step.points))


def test_the_most_uncertain_cells_of_the_upsampled_grid_are_chosen() -> None:
    trace: list[SubdivisionStep] = []
    subdivide(
        on_grid(8, 8), disc, sizes=[(16, 16)], num_points=30, uncertainty=binary_uncertainty, trace=trace
    )
    doubt = -trace[0].upsampled.flatten().abs()
    chosen = torch.zeros(256, dtype=torch.bool)
    chosen[trace[0].index[0]] = True
    assert doubt[chosen].min() >= doubt[~chosen].max()


def test_flipping_the_input_flips_the_output() -> None:
    def mirrored(points: torch.Tensor) -> torch.Tensor:
        return disc(torch.stack((1 - points[..., 0], points[..., 1]), -1))

    options = {"sizes": [(20, 20), (37, 41)], "num_points": 60, "uncertainty": binary_uncertainty}
    there = subdivide(on_grid(10, 10), disc, **options)
    back = subdivide(on_grid(10, 10).flip(-1), mirrored, **options)
    torch.testing.assert_close(back.flip(-1), there, atol=1e-4, rtol=0)


def test_a_linear_field_is_reproduced_exactly_up_to_rounding() -> None:
    def plane(points: torch.Tensor) -> torch.Tensor:
        return (points.double() @ torch.tensor([3.0, -2.0]).double())[:, None]

    start = plane(regular_grid(6, 6)).reshape(1, 1, 6, 6)
    rendered = subdivide(
        start, plane, sizes=[(12, 12), (24, 24)], num_points=20, uncertainty=binary_uncertainty
    )
    inside = plane(regular_grid(24, 24)).reshape(1, 1, 24, 24)[..., 3:-3, 3:-3]
    torch.testing.assert_close(rendered[..., 3:-3, 3:-3], inside, atol=1e-6, rtol=0)


def test_regions_do_not_see_one_another() -> None:
    shift = torch.tensor([0.0, 0.2]).reshape(2, 1, 1)

    def shifted(points: torch.Tensor) -> torch.Tensor:
        return disc(points + shift[: len(points)])

    def second(points: torch.Tensor) -> torch.Tensor:
        return disc(points + 0.2)

    start = shifted(regular_grid(8, 8, regions=2)).reshape(2, 1, 8, 8)
    options = {"sizes": [(16, 16), (32, 32)], "num_points": 20, "uncertainty": binary_uncertainty}
    both = subdivide(start, shifted, **options)
    assert torch.equal(both[:1], subdivide(start[:1], disc, **options))
    assert torch.equal(both[1:], subdivide(start[1:], second, **options))


def test_no_regions_give_an_empty_grid_of_the_last_size() -> None:
    empty = torch.zeros(0, 3, 7, 7)
    rendered = subdivide(
        empty,
        lambda points: torch.zeros(0, 3, points.shape[1]),
        sizes=[(14, 14)],
        num_points=9,
        uncertainty=margin_uncertainty,
    )
    assert rendered.shape == (0, 3, 14, 14)


def test_put_back_leaves_the_given_grid_alone() -> None:
    grid = torch.zeros(1, 2, 2, 2)
    filled = put_back(grid, torch.tensor([[3]]), torch.tensor([[[1.0], [2.0]]]))
    assert filled[0, :, 1, 1].tolist() == [1, 2]
    assert grid.eq(0).all()


@pytest.mark.parametrize(
    ("start", "output", "sizes"),
    [
        ((28, 28), (224, 224), [(56, 56), (112, 112), (224, 224)]),
        ((26, 40), (101, 157), [(52, 80), (101, 157)]),
        ((1, 1), (1, 1), [(1, 1)]),
        ((1, 63), (1, 2000), [(1, 126), (1, 252), (1, 504), (1, 1008), (1, 2000)]),
        ((8, 8), (5, 5), [(5, 5)]),
        ((8, 8), (17, 17), [(16, 16), (17, 17)]),
    ],
)
def test_grids_double_until_the_last_fits_exactly(start: tuple, output: tuple, sizes: list) -> None:
    assert subdivision_sizes(start, output) == sizes


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 cell"):
        subdivision_sizes((4, 4), (0, 7))


def test_the_share_of_predicted_cells_is_that_of_the_paper() -> None:
    # 784 points on 56, 112 and 224: the paper's N log2(M / M0) against 224 * 224.
    assert share_predicted([(56, 56), (112, 112), (224, 224)], 784) == 3 * 784 / 224**2
