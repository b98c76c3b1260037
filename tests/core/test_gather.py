"""Samples as weighted sums of rows, against grid_sample."""

from __future__ import annotations

import pytest
import torch

from pointrend.core import point_sample, point_sample_boxes
from pointrend.core.gather import FineMap, Windows, bilinear_rows, weighted_rows


@pytest.mark.parametrize("border", [False, True])
def test_four_weighted_rows_are_a_bilinear_sample(border: bool) -> None:
    features = torch.randn(1, 3, 5, 7).double()
    points = (torch.rand(1, 400, 2) * 1.6 - 0.3).double()  # some outside
    index, weights = bilinear_rows(points[0] * torch.tensor([7.0, 5.0]), 5, 7, border=border)
    ours = weighted_rows(features[0].flatten(1).T.contiguous(), index, weights)
    theirs = point_sample(features, points, padding="border" if border else "zeros")
    torch.testing.assert_close(ours.T[None], theirs)


BOXES = {
    "inside": (8.0, 4, 40, 30),
    "partly outside": (-20.0, -9, 30, 12),
    "beyond the right edge": (90.0, 30, 140, 70),
    "outside": (200.0, 300, 260, 340),
    "a point": (33.0, 21, 33, 21),
    "a line": (10.0, 20, 60, 20),
    "one pixel": (50.0, 50, 51, 51),
    "the whole image": (0.0, 0, 100, 60),
}


@pytest.mark.parametrize("names", [list(BOXES), *([name] for name in BOXES)], ids=lambda names: names[0])
def test_windows_around_boxes_give_the_samples_of_the_whole_map(names: list[str]) -> None:
    boxes = torch.tensor([BOXES[name] for name in names], dtype=torch.float64)
    images = torch.arange(len(boxes)) % 2
    features = torch.randn(2, 3, 15, 25).double()
    points = torch.cat((torch.rand(len(boxes), 40, 2), torch.eye(2).expand(len(boxes), 2, 2)), 1)
    points = points.double()
    expected = point_sample_boxes([features], [4], boxes, images, points).transpose(1, 2).flatten(0, 1)
    windows = Windows(boxes / 4, images, (15, 25))
    table = windows.table(features.permute(0, 2, 3, 1), torch.float64)
    assert len(table) == windows.cells
    position = (boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])) / 4
    index, weights = bilinear_rows(position, 15, 25)
    rows = windows.rows_of(index, slice(0, len(boxes))).flatten(0, 1)
    assert rows.min() >= 0
    assert rows.max() < windows.cells
    torch.testing.assert_close(weighted_rows(table, rows, weights.flatten(0, 1)), expected)


@pytest.mark.parametrize(
    ("points", "scale", "kind"),
    [(1, 1, "as it is"), (50, 1, "windows"), (50, 20, "whole"), (400, 1, "projected")],
)
def test_a_map_is_sampled_the_cheapest_way_with_the_same_result(points: int, scale: float, kind: str) -> None:
    features, columns = torch.randn(1, 3, 30, 40), torch.randn(8, 3)
    corner = torch.rand(5, 2) * 80
    boxes = torch.cat((corner, corner + 20 * scale), 1)
    images = torch.zeros(5, dtype=torch.int64)
    fine = FineMap(features, 4, columns, boxes, images, points)
    found = "windows" if fine.windows else "as it is" if fine.table is None else "whole"
    assert ("projected" if fine.columns is None else found) == kind
    where = torch.rand(2, 30, 2)
    expected = point_sample_boxes([features], [4], boxes[1:3], images[1:3], where)
    hidden = torch.ones(60, 8)
    fine.add_to(hidden, slice(1, 3), where)
    torch.testing.assert_close(hidden, 1 + expected.transpose(1, 2).flatten(0, 1) @ columns.T)


def test_a_channels_last_map_is_a_table_already() -> None:
    features = torch.randn(1, 3, 30, 40).contiguous(memory_format=torch.channels_last)
    fine = FineMap(features, 4, torch.randn(8, 3), torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), 1)
    assert fine.table is not None
    assert fine.table.data_ptr() == features.data_ptr()
