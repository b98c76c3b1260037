"""Images of results: right size, right colours, no collisions, nothing global."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.metadata.colors import default_palette
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks
from pointrend.visualize import (
    add_legend,
    as_image,
    color_labels,
    draw,
    draw_instances,
    draw_labels,
    heatmap,
    label_borders,
    outline,
    plot_instances,
    plot_semantic,
)
from pointrend.visualize.label_placement import place_caption


def instances(count: int, size: tuple[int, int] = (60, 80)) -> InstanceResult:
    """`count` squares in a row, one behind the other in score."""
    dense = torch.zeros(count, *size, dtype=torch.bool)
    for i in range(count):
        dense[i, 10:30, 5 + 8 * i : 20 + 8 * i] = True
    boxes = torch.tensor([[5.0 + 8 * i, 10, 20 + 8 * i, 30] for i in range(count)]).reshape(count, 4)
    return InstanceResult(
        boxes,
        torch.arange(count) % 3,
        1 - torch.arange(count) / 10,
        InstanceMasks.from_dense(dense),
        ("a", "b", "c"),
    )


def grey(height: int = 60, width: int = 80) -> torch.Tensor:
    return torch.full((3, height, width), 90, dtype=torch.uint8)


def test_a_class_keeps_its_colour_however_many_there_are() -> None:
    assert default_palette(1203)[:7] == default_palette(7)
    assert len(set(default_palette(80))) == 80


def test_labels_take_their_colours_and_ignored_ones_are_black() -> None:
    labels = torch.tensor([[0, 1], [255, 1]], dtype=torch.uint8)
    assert color_labels(labels, [(1, 2, 3), (4, 5, 6)]).tolist() == [
        [[1, 2, 3], [4, 5, 6]],
        [[0, 0, 0], [4, 5, 6]],
    ]


def test_a_palette_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes need as many colours, got 2"):
        color_labels(torch.tensor([[0, 2]]), [(0, 0, 0), (1, 1, 1)])


def test_an_empty_label_map_is_an_empty_image() -> None:
    assert color_labels(torch.zeros(0, 5, dtype=torch.uint8)).shape == (0, 5, 3)


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.tensor([[float("nan"), float("inf")]])])
def test_heatmaps_stand_constant_and_odd_numbers(values: torch.Tensor) -> None:
    assert heatmap(values).shape == (*values.shape, 3)


def test_images_may_be_tensors_arrays_grey_or_pil() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert as_image(array).shape == (4, 6, 3)
    assert (as_image(torch.from_numpy(array)[None]) == as_image(Image.fromarray(array))).all()


def test_a_float_image_is_refused_with_what_is_wanted() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 values 0\.\.255, got torch.float32"):
        as_image(torch.rand(3, 4, 5))


def test_the_outline_of_a_square_is_its_rim() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 2:7] = True
    assert outline(mask).sum() == 16
    assert outline(mask, 9).sum() == 25  # a wide one never leaves the mask


def test_a_mask_that_fills_the_image_has_the_image_edge_as_outline() -> None:
    assert outline(np.ones((4, 5), dtype=bool)).sum() == 14


def test_borders_lie_between_labels_only() -> None:
    borders = label_borders(torch.tensor([[0, 0, 1], [0, 0, 1]]))
    assert borders.tolist() == [[False, True, False], [False, True, False]]


def test_an_overlay_leaves_ignored_pixels_bare() -> None:
    labels = torch.full((60, 80), 255, dtype=torch.uint8)
    assert (draw_labels(grey(), labels) == 90).all()


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the image's size \(60, 80\), got \(3, 3\)"):
        draw_labels(grey(), torch.zeros(3, 3, dtype=torch.uint8))


def test_the_drawn_mask_has_exactly_the_mask_pixels() -> None:
    result = instances(1)
    changed = (draw_instances(grey(), result, captions=False) != 90).any(2)
    assert (changed == result.masks.full(0).numpy()).all()


def test_detections_below_the_score_are_not_drawn() -> None:
    assert (draw_instances(grey(), instances(3), min_score=1.1) == 90).all()


def test_no_detection_leaves_the_image_as_it_was() -> None:
    assert (draw(grey(), instances(0)) == 90).all()
    assert draw(grey(), instances(0), legend=True).shape == (60, 80, 3)


def test_windows_that_leave_the_image_are_cut() -> None:
    masks = InstanceMasks([torch.ones(10, 10)], torch.tensor([[-4, 55]]), (60, 80))
    result = InstanceResult(
        torch.tensor([[-4.0, 55, 6, 65]]), torch.zeros(1).long(), torch.ones(1), masks, ("a",)
    )
    changed = (draw_instances(grey(), result, captions=False) != 90).any(2)
    assert changed.sum() == 5 * 6


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    nameless = InstanceResult(
        torch.tensor([[5.0, 5, 30, 30]]),
        torch.tensor([7]),
        torch.ones(1),
        InstanceMasks([torch.ones(25, 25)], torch.tensor([[5, 5]]), (60, 80)),
    )
    assert plot_instances(grey(), nameless).legends[0].get_texts()[0].get_text() == "class 7"


def test_captions_avoid_one_another_and_stay_inside() -> None:
    size, taken = (200, 100), []
    for _ in range(6):
        place = place_caption((50.0, 10.0, 120.0, 60.0), (60, 12), size, taken)
        assert 0 <= place[0] < place[2] <= size[0]
        assert 0 <= place[1] < place[3] <= size[1]
        assert all(
            place[2] <= o[0] or o[2] <= place[0] or place[3] <= o[1] or o[3] <= place[1] for o in taken
        )
        taken.append(place)


def test_the_legend_grows_the_image_downwards_only() -> None:
    image = np.zeros((50, 120, 3), dtype=np.uint8)
    one, many = (add_legend(image, ["sky"] * n, default_palette(n)) for n in (1, 9))
    assert one.shape[1] == many.shape[1] == 120
    assert 50 < one.shape[0] < many.shape[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (333, 17)])
def test_odd_sizes_are_drawn(size: tuple[int, int]) -> None:
    labels = torch.ones(size, dtype=torch.uint8)
    result = SemanticResult(labels, ("a", "b"))
    assert draw(grey(*size), result, legend=True).shape[1] == size[1]
    assert len(plot_semantic(grey(*size), result).axes) == 1
    dense = InstanceMasks.from_dense(torch.ones(1, *size))
    whole = InstanceResult(
        torch.tensor([[0.0, 0, size[1], size[0]]]), torch.zeros(1).long(), torch.ones(1), dense, ("a",)
    )
    assert draw(grey(*size), whole).shape == (*size, 3)


def test_results_plot_themselves_with_a_legend_and_without_pyplot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise now
    semantic = SemanticResult(
        torch.ones(60, 80, dtype=torch.uint8), ("sky", "tree"), ((1, 1, 1), (9, 200, 9))
    )
    figure = semantic.plot(grey())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tree"]
    assert [text.get_text() for text in instances(2).plot(grey()).legends[0].get_texts()] == ["a", "b"]
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == 960


def test_a_class_whose_colour_is_black_leaves_the_image_bare() -> None:
    image = torch.full((3, 2, 4), 100, dtype=torch.uint8)
    labels = torch.tensor([[0, 0, 1, 255]] * 2)
    drawn = draw_labels(image, labels, [(0, 0, 0), (200, 0, 0)], opacity=0.5, borders=False)
    assert drawn[0].tolist() == [[100] * 3, [100] * 3, [150, 50, 50], [100] * 3]
