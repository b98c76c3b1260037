from __future__ import annotations

import pytest
import torch

from pointrend.core.sampling import point_sample, regular_grid
from pointrend.core.selection import (
    PointSampling,
    binary_uncertainty,
    margin_uncertainty,
    most_uncertain_cells,
    sample_training_points,
    uncertainty_for,
)


def test_a_binary_prediction_is_least_sure_at_logit_zero() -> None:
    logits = torch.tensor([[[-3.0, 0.0, 0.5]]])
    assert binary_uncertainty(logits).tolist() == [[-3.0, 0.0, -0.5]]


def test_a_multi_class_prediction_is_least_sure_where_the_two_best_are_equal() -> None:
    logits = torch.tensor([[5.0, 2.0], [5.0, 0.0], [1.0, -7.0]])[None]  # (1, 3 classes, 2 points)
    assert margin_uncertainty(logits).tolist() == [[0.0, -2.0]]


def test_two_classes_are_the_fewest_for_a_margin() -> None:
    with pytest.raises(ValueError, match="at least two"):
        margin_uncertainty(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="one channel"):
        binary_uncertainty(torch.zeros(1, 2, 4))
    assert uncertainty_for(1) is binary_uncertainty
    assert uncertainty_for(19) is margin_uncertainty


def test_uncertainty_is_measured_on_interpolated_logits() -> None:
    # Sure of "yes" beside sure of "no": half-way lies the boundary, though both cells are sure.
    logits = torch.tensor([4.0, -4.0]).reshape(1, 1, 1, 2)
    middle = point_sample(logits, torch.tensor([[[0.5, 0.5]]]))
    assert binary_uncertainty(middle).item() == 0.0


def test_the_most_uncertain_cells_are_found() -> None:
    uncertainty = torch.full((1, 4, 5), -9.0)
    uncertainty[0, 1, 2] = uncertainty[0, 3, 4] = 0
    assert sorted(most_uncertain_cells(uncertainty, 2)[0].tolist()) == [7, 19]


def test_a_grid_with_fewer_cells_than_points_is_taken_whole() -> None:
    assert sorted(most_uncertain_cells(torch.rand(1, 2, 3), 100)[0].tolist()) == list(range(6))


def test_no_regions_have_no_cells_and_zero_points_are_refused() -> None:
    assert most_uncertain_cells(torch.rand(0, 4, 4), 3).shape == (0, 3)
    with pytest.raises(ValueError, match="at least one point"):
        most_uncertain_cells(torch.rand(1, 4, 4), 0)


def edge(height: int = 16, width: int = 16) -> torch.Tensor:
    """Logits with a vertical boundary at x = 0.5: (1, 1, H, W)."""
    x = regular_grid(height, width)[0, :, 0].reshape(1, 1, height, width)
    return (x - 0.5) * 20


def mean_distance_to_edge(sampling: PointSampling) -> float:
    generator = torch.Generator().manual_seed(1)
    points = sample_training_points(
        edge().expand(50, -1, -1, -1), sampling, binary_uncertainty, generator=generator
    )
    return float((points[..., 0] - 0.5).abs().mean())


def test_the_strategies_of_table_4_come_closer_to_the_boundary_in_their_order() -> None:
    grid, uniform, mild, heavy = (
        mean_distance_to_edge(sampling(196))
        for sampling in (
            PointSampling.regular,
            PointSampling.uniform,
            PointSampling.mildly_biased,
            PointSampling.heavily_biased,
        )
    )
    assert abs(grid - 0.25) < 0.01
    assert abs(uniform - 0.25) < 0.01
    # 147 of the 3 * 196 nearest: distances up to 0.125, mean 0.0625, and 49 uniform ones at 0.25 -> 0.109
    assert abs(mild - 0.109) < 0.01
    assert abs(heavy - 0.025) < 0.005


def test_a_generator_makes_the_draw_repeatable() -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample_training_points(edge(), PointSampling(50), binary_uncertainty, generator=generator)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


@pytest.mark.parametrize("count", [1, 2, 7, 196])
@pytest.mark.parametrize("importance", [0.0, 0.3, 1.0])
def test_exactly_the_asked_number_of_points_is_drawn_inside_the_region(count: int, importance: float) -> None:
    points = sample_training_points(edge(3, 5), PointSampling(count, 3.0, importance), binary_uncertainty)
    assert points.shape == (1, count, 2)
    assert points.ge(0).all()
    assert points.lt(1).all()


def test_a_regular_grid_is_the_same_for_all_regions() -> None:
    points = sample_training_points(
        edge().expand(2, -1, -1, -1), PointSampling.regular(49), binary_uncertainty
    )
    assert torch.equal(points[0], regular_grid(7, 7)[0])
    assert torch.equal(points[0], points[1])


def test_no_gradient_flows_through_the_choice_of_points() -> None:
    coarse = edge().requires_grad_()
    assert not sample_training_points(coarse, PointSampling(20), binary_uncertainty).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_points": 0},
        {"oversample_ratio": 0.5},
        {"importance_ratio": 1.5},
        {"strategy": "sobol"},
        {"strategy": "grid", "num_points": 200},
    ],
)
def test_impossible_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="point sampling"):
        PointSampling(**wrong)
