"""Grids that are computed row by row, against interpolation and sorting by torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.lazy_grid import DenseLogits, UpsampledLogits, best_classes, best_two
from pointrend.core.selection import margin_uncertainty


@pytest.mark.parametrize("size", [(6, 7), (6, 30), (30, 7), (2, 2), (1, 13)])
def test_rows_are_those_of_bilinear_interpolation(size) -> None:
    logits = torch.randn(3, 6, 7)
    whole = F.interpolate(logits[None], size=size, mode="bilinear")[0]
    grid = UpsampledLogits(DenseLogits(logits), size)
    for first in range(size[0]):
        torch.testing.assert_close(grid.rows(first, first + 1), whole[:, first : first + 1])


def test_reading_changes_nothing() -> None:
    logits = torch.randn(3, 6, 7)
    before = logits.clone()
    grid = UpsampledLogits(DenseLogits(logits), (6, 7))  # no interpolation, so its rows are the logits' own
    grid.put(torch.tensor([[8]]), torch.full((1, 3, 1), 9.0))
    assert grid.rows(0, 6)[:, 1, 1].tolist() == [9, 9, 9]
    assert torch.equal(logits, before)


@pytest.mark.parametrize("classes", [2, 3, 19, 255, 256, 1203])
def test_the_two_best_and_the_label_are_those_of_sorting(classes) -> None:
    logits = torch.randn(classes, 5, 6)
    best, second = best_two(logits)
    assert torch.equal(torch.stack((best, second)), logits.topk(2, dim=0).values)
    assert torch.equal(best_classes(logits, best).long(), logits.argmax(0))
    assert torch.equal(second - best, margin_uncertainty(logits[None])[0])


def test_of_equal_classes_the_first_is_the_label() -> None:
    logits = torch.tensor([[1.0, 2, 0], [1, 2, 3], [0, 2, 3]])
    best, second = best_two(logits)
    assert best_classes(logits, best).tolist() == [0, 0, 1]
    assert torch.equal(best, second)


def test_a_diverged_networks_nan_gives_some_class() -> None:
    logits = torch.full((3, 2, 2), float("nan"))
    assert best_classes(logits, logits.amax(0)).max() < 3
