"""The images of point sampling show what the trace of `subdivide` says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from pointrend.core.point_rend import PointRend
from pointrend.core.subdivision import SubdivisionStep
from pointrend.models.inputs import Preprocessing
from pointrend.visualize import (
    Window,
    color_logits,
    draw_chosen,
    draw_uncertainty,
    largest_differences,
    plot_steps,
    plot_training_points,
    plot_uncertainty,
    side_by_side,
    traced_box,
)
from pointrend.visualize.points import disc, draw_dots


def refined(classes: int, size: tuple[int, int] = (20, 26)) -> list[SubdivisionStep]:
    torch.manual_seed(0)
    trace: list[SubdivisionStep] = []
    rend = PointRend(4, classes, width=8, depth=1)
    rend.refine(torch.randn(2, classes, 5, 7), torch.randn(2, 4, 10, 14), size, num_points=30, trace=trace)
    return trace


@pytest.mark.parametrize("classes", [1, 5])
def test_every_step_is_a_column_with_its_points(classes: int) -> None:
    trace = refined(classes)
    image = torch.zeros(3, 20, 26, dtype=torch.uint8)
    figure = plot_steps(trace, image=image, region=1, title="way")
    axes = np.array(figure.axes).reshape(3, len(trace))
    for column, step in enumerate(trace):
        dots = axes[0, column].collections[0].get_offsets()
        expected = step.points[1].numpy() * (26, 20)
        assert np.allclose(np.asarray(dots), expected)
        assert "30 points" in axes[1, column].get_title()
        assert axes[2, column].images[0].get_array().shape == (*step.size, 3)


def test_points_of_a_box_lie_in_that_box_of_the_image() -> None:
    trace = refined(1)
    figure = plot_steps(trace, image=torch.zeros(3, 50, 60, dtype=torch.uint8), box=(10, 20, 30, 44))
    dots = np.asarray(figure.axes[len(trace)].collections[0].get_offsets())
    assert dots.min(0).tolist() >= [10, 20]
    assert (dots <= (30, 44)).all()
    assert np.allclose(dots, trace[0].points[0].numpy() * (20, 24) + (10, 20))


def test_a_region_larger_than_the_image_is_shown_as_far_as_the_image_goes() -> None:
    trace = refined(3)
    image = torch.zeros(3, 16, 26, dtype=torch.uint8)
    figure = plot_steps(trace, image=image, box=(0, 0, 26, 20))
    assert all(axes.get_ylim() == (16, 0) and axes.get_xlim() == (0, 26) for axes in figure.axes)
    assert draw_chosen(image, trace, box=(0, 0, 26, 20), scale=2).shape == (32, 52, 3)


def test_points_are_drawn_where_they_are() -> None:
    trace = refined(1)[-1:]
    drawn = draw_chosen(torch.zeros(3, 20, 26, dtype=torch.uint8), trace, scale=9)
    centres = drawn[4::9, 4::9].any(2)
    assert sorted(np.flatnonzero(centres)) == sorted(trace[0].index[0].tolist())


def test_dots_are_at_their_centres_and_nowhere_else() -> None:
    image = np.full((20, 30, 3), 100, dtype=np.uint8)
    drawn = draw_dots(image, [(np.array([[3.5, 4.5], [29.5, 19.5], [29.9, 0.1]]), np.full(3, 0.5))])
    assert np.argwhere((drawn != 35).any(axis=2)).tolist() == [[0, 29], [4, 3], [19, 29]]


def test_large_dots_are_cut_at_the_border() -> None:
    image = np.full((20, 30, 3), 100, dtype=np.uint8)
    drawn = draw_dots(image, [(np.array([[0.5, 0.5]]), np.array([3.2]))])
    assert 5 < int((drawn != 35).any(axis=2).sum()) < len(disc(3.2))
    assert (drawn[10:, 15:] == 35).all()


def test_no_point_and_no_step_is_a_dark_image() -> None:
    image = np.full((2, 3, 3), 100, dtype=np.uint8)
    assert (draw_dots(image, [(np.zeros((0, 2)), np.zeros(0))]) == draw_dots(image, [])).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 96), (96, 64)), ((50, 96), (96, 64)), ((1, 1), (32, 32))]
)
def test_the_traced_box_includes_the_padding(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert traced_box(torch.zeros(3, *size, dtype=torch.uint8), Preprocessing()) == (0, 0, *expected)


def test_the_traced_box_is_in_the_pixels_of_the_image_whatever_the_network_sees() -> None:
    image = torch.zeros(3, 50, 100, dtype=torch.uint8)
    assert traced_box(image, Preprocessing(short_edge=100)) == (0, 0, 112, 64)


def test_without_an_image_that_row_is_left_out() -> None:
    assert len(plot_steps(refined(3)).axes) == 2 * len(refined(3))


def test_an_empty_trace_says_how_to_get_one() -> None:
    with pytest.raises(ValueError, match="pass `trace=\\[\\]`"):
        plot_steps([])


def test_a_region_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"regions 0\.\.1, got 2"):
        plot_steps(refined(3), region=2)


def test_a_box_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="x1 < x2"):
        plot_steps(refined(1), box=(5, 5, 5, 9))


def test_binary_logits_are_grey_by_probability() -> None:
    image = color_logits(torch.tensor([[[-40.0, 0.0, 40.0]]]))
    assert image[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_multiclass_logits_show_the_best_class() -> None:
    logits = torch.tensor([[[3.0, 0.0]], [[0.0, 3.0]]])
    assert color_logits(logits, [(1, 1, 1), (2, 2, 2)])[0].tolist() == [[1] * 3, [2] * 3]


def test_sampling_strategies_stand_side_by_side() -> None:
    figure = plot_training_points(
        torch.zeros(1, 3, 4, 6), {"uniform": torch.rand(1, 9, 2), "grid": torch.rand(1, 4, 2)}
    )
    assert [axes.get_title() for axes in figure.axes] == ["uniform", "grid"]


def test_uncertainty_lies_over_the_image_or_beside_it() -> None:
    image = torch.zeros(3, 8, 9, dtype=torch.uint8)
    assert draw_uncertainty(image, torch.rand(8, 9)).shape == (8, 9, 3)
    assert len(plot_uncertainty(image, torch.rand(8, 9)).axes) == 3  # with the scale
    with pytest.raises(ValueError, match="the image's size"):
        draw_uncertainty(image, torch.rand(4, 4))


def test_the_largest_difference_is_found() -> None:
    before = torch.zeros(40, 50, dtype=torch.uint8)
    after = before.clone()
    after[20:30, 30:40] = 1
    (window,) = largest_differences(before, after, size=10)
    assert window == Window(20, 30, 30, 40)


def test_with_the_truth_the_window_shows_a_gain_and_not_a_loss() -> None:
    truth = torch.zeros(40, 50, dtype=torch.uint8)
    truth[0:4, 0:4] = 1
    before, after = torch.zeros_like(truth), torch.zeros_like(truth)
    after[0:4, 0:4] = 1  # mended
    after[20:40, 20:40] = 1  # broken, and larger
    (window,) = largest_differences(before, after, truth=truth, size=8)
    assert (window.top, window.left) == (0, 0)


def test_several_windows_do_not_overlap() -> None:
    after = torch.ones(40, 40, dtype=torch.uint8)
    windows = largest_differences(torch.zeros_like(after), after, size=10, count=4)
    covered = np.zeros((40, 40), dtype=int)
    for window in windows:
        covered[window.top : window.bottom, window.left : window.right] += 1
    assert len(windows) == 4
    assert covered.max() == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_maps_smaller_than_the_window_are_shown_whole(size: tuple[int, int]) -> None:
    same = torch.zeros(size, dtype=torch.uint8)
    assert largest_differences(same, same, size=64)[0].bottom == min(64, size[0])


def test_panels_are_magnified_at_the_windows() -> None:
    images = {name: np.zeros((40, 60, 3), dtype=np.uint8) for name in ("coarse", "refined")}
    windows = [Window(0, 0, 10, 10), Window(20, 20, 30, 30)]
    figure = side_by_side(images, windows=windows, names=["a", "b"], title="gain")
    assert len(figure.axes) == 6
    assert figure.axes[2].images[0].get_array().shape == (10, 10, 3)
    assert len(figure.legends[0].get_texts()) == 2


def test_panels_of_different_sizes_are_refused() -> None:
    images = {str(n): np.zeros((n, 5, 3), dtype=np.uint8) for n in (4, 5)}
    with pytest.raises(ValueError, match="one size"):
        side_by_side(images)


def test_drawing_changes_no_trace() -> None:
    trace = refined(3)
    before = [step.logits.clone() for step in trace]
    plot_steps(trace)
    assert all(torch.equal(a, step.logits) for a, step in zip(before, trace, strict=True))
    assert all(a.size != b.size for a, b in pairwise(trace))
