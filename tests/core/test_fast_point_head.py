"""The fast path against the textbook path, in float64 where rounding is out of the question."""

from __future__ import annotations

import pytest
import torch

from pointrend.core.fast_point_head import FastPointHead
from pointrend.core.gather import point_sample_boxes
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import point_sample

BOXES = torch.tensor(
    [
        [3.0, 5, 40, 30],
        [-10, -8, 20, 25],
        [50, 20, 90, 70],
        [7, 7, 7, 7],
        [10, 10, 11, 11],
        [-90, -90, -80, -80],
    ]
).double()
IMAGES = torch.tensor([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("classes", [1, 6])
@pytest.mark.parametrize("expected_points", [1, 20, 10**6])  # grid_sample, a table of rows, a projected table
def test_the_projected_head_gives_the_textbooks_logits(
    residual: bool, every: bool, depth: int, classes: int, expected_points: int
) -> None:
    head = PointHead(
        5 + 3, classes, width=8, depth=depth, coarse_each_layer=every, residual=residual
    ).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    maps = [torch.randn(2, 5, 16, 24).double(), torch.randn(2, 3, 8, 12).double()]
    coarse = torch.randn(6, classes, 7, 7).double()
    labels = torch.randint(0, classes, (6,))
    points = torch.rand(6, 50, 2).double()
    rough = point_sample(coarse, points, padding=head.coarse_padding)
    textbook = head(point_sample_boxes(maps, [4, 8], BOXES, IMAGES, points), rough, labels)
    fast = FastPointHead(head, maps, [4, 8], BOXES, IMAGES, coarse, labels, expected_points=expected_points)
    torch.testing.assert_close(fast(points), textbook, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(fast(points[2:4], first=2), textbook[2:4], atol=1e-9, rtol=1e-9)


def test_a_class_agnostic_head_uses_its_only_row() -> None:
    head = PointHead(5, 1, width=8).double()
    torch.nn.init.normal_(head.predictor.weight)
    maps, coarse = [torch.randn(2, 5, 16, 24).double()], torch.randn(6, 1, 7, 7).double()
    points, rows = torch.rand(6, 9, 2).double(), torch.zeros(6, dtype=torch.int64)
    textbook = head(point_sample_boxes(maps, [4], BOXES, IMAGES, points), point_sample(coarse, points), rows)
    fast = FastPointHead(head, maps, [4], BOXES, IMAGES, coarse, rows, expected_points=9)
    torch.testing.assert_close(fast(points), textbook)


def test_no_boxes_give_no_logits() -> None:
    head = PointHead(5, 3, width=8)
    empty = torch.zeros(0, dtype=torch.int64)
    fast = FastPointHead(
        head,
        [torch.randn(1, 5, 8, 8)],
        [4],
        torch.zeros(0, 4),
        empty,
        torch.zeros(0, 3, 7, 7),
        empty,
        expected_points=9,
    )
    assert fast(torch.zeros(0, 9, 2)).shape == (0, 1, 9)


def test_a_head_without_hidden_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to project"):
        FastPointHead(
            PointHead(5, 3, depth=0),
            [torch.randn(1, 5, 8, 8)],
            [4],
            torch.zeros(1, 4),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, 3, 7, 7),
            torch.zeros(1, dtype=torch.int64),
            expected_points=9,
        )
