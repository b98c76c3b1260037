"""The one subdivision loop, for boxes and whole images alike (paper section 3.1, figure 4).

:func:`render` is the loop. It runs on any :class:`Grid`: :class:`DenseGrid` holds the logits of N regions,
:mod:`pointrend.core.lazy_grid` computes those of one image a chunk of rows at a time.

Shapes: N regions, C classes, P points, H W rows and columns of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch.nn.functional as F
from torch import Tensor

from pointrend.core.sampling import cell_centers
from pointrend.core.selection import Uncertainty, most_uncertain_cells, uncertain_cells

Size = tuple[int, int]
"""Rows and columns of a grid."""

PredictAt = Callable[[Tensor], Tensor]
"""Predicts at points: (N, P, 2) in the unit squares of the regions -> logits (N, C, P)."""


G = TypeVar("G", bound="Grid")


class Grid(Protocol):
    """Logits of N regions, as the loop sees them."""

    def upsample(self: G, size: Size) -> G:
        """The grid interpolated bilinearly to so many rows and columns."""

    def most_uncertain(self, num_points: int, min_uncertainty: float | None = None) -> Tensor:
        """Flat indices (N, P) of the most uncertain cells, of those above ``min_uncertainty`` where it is given."""

    def put(self: G, cells: Tensor, values: Tensor) -> G:
        """The grid in which the cells (N, P) hold the logits (N, C, P)."""


def render(
    grid: G,
    predict_at: PredictAt,
    *,
    sizes: Sequence[Size],
    num_points: int,
    min_uncertainty: float | None = None,
) -> G:
    """Upsample, predict the most uncertain cells anew, put them back; repeat. Arguments as for :func:`subdivide`."""
    for size in sizes:
        grid = grid.upsample(size)
        cells = grid.most_uncertain(num_points, min_uncertainty)  # (N, P)
        grid = grid.put(cells, predict_at(cell_centers(cells, *size)))
    return grid


@dataclass(frozen=True)
class SubdivisionStep:
    """What one step did: record for images and tests."""

    size: Size
    """Rows and columns of the step's grid."""
    upsampled: Tensor
    """(N, C, H, W) logits after bilinear upsampling, before any point was predicted."""
    index: Tensor
    """(N, P) flat indices of the chosen cells."""
    points: Tensor
    """(N, P, 2) their centres, (x, y) in [0, 1]."""
    logits: Tensor
    """(N, C, H, W) logits with the predicted points put back."""


@dataclass(frozen=True)
class DenseGrid:
    """A grid that holds all its logits."""

    logits: Tensor
    """(N, C, H, W)."""
    uncertainty: Uncertainty
    trace: list[SubdivisionStep] | None = None
    """A list to which each step is appended; it keeps every grid in memory."""

    def upsample(self, size: Size) -> DenseGrid:
        logits = F.interpolate(self.logits, size=size, mode="bilinear", align_corners=False)
        return DenseGrid(logits, self.uncertainty, self.trace)

    def most_uncertain(self, num_points: int, min_uncertainty: float | None = None) -> Tensor:
        uncertainty = self.uncertainty(self.logits)
        if min_uncertainty is None:
            return most_uncertain_cells(uncertainty, num_points)
        return uncertain_cells(uncertainty, num_points, min_uncertainty)

    def put(self, cells: Tensor, values: Tensor) -> DenseGrid:
        logits = put_back(self.logits, cells, values)
        if self.trace is not None:
            size = (logits.shape[2], logits.shape[3])
            step = SubdivisionStep(size, self.logits, cells, cell_centers(cells, *size), logits)
            self.trace.append(step)
        return DenseGrid(logits, self.uncertainty, self.trace)


def subdivide(
    logits: Tensor,
    predict_at: PredictAt,
    *,
    sizes: Sequence[Size],
    num_points: int,
    uncertainty: Uncertainty,
    min_uncertainty: float | None = None,
    trace: list[SubdivisionStep] | None = None,
) -> Tensor:
    """Render logits on a fine grid: upsample, predict the most uncertain cells anew, put them back; repeat.

    Args:
        logits: (N, C, H, W) where the first step starts from.
        predict_at: the point head, given features and coarse prediction.
        sizes: the grid of each step, see :func:`subdivision_sizes`.
        num_points: points predicted in each step and region.
        uncertainty: which cells to predict first.
        min_uncertainty: leave cells alone whose uncertainty is not above this (a negative number), also where
            ``num_points`` would reach them; None, as the paper: always ``num_points`` of them.
        trace: a list to which each step is appended; it keeps every grid in memory.

    Returns:
        (N, C, H, W) logits of the last of ``sizes``; ``logits`` itself if there is no step.
    """
    grid = DenseGrid(logits, uncertainty, trace)
    return render(
        grid, predict_at, sizes=sizes, num_points=num_points, min_uncertainty=min_uncertainty
    ).logits


def put_back(grid: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """A copy of the grid (N, C, H, W) in which the cells (N, P) hold the values (N, C, P)."""
    channels = grid.shape[1]
    flat = grid.flatten(2).scatter(2, index[:, None].expand(-1, channels, -1), values.to(grid.dtype))
    return flat.view_as(grid)


def subdivision_sizes(start: Size, output: Size) -> list[Size]:
    """The grids between ``start`` and ``output``: each twice the last, the last one exactly ``output``.

    An axis that has reached its output size stays there. There is always one step, also where ``output`` is not
    larger than ``start``: its most uncertain cells are still predicted.

    >>> subdivision_sizes((26, 40), (101, 157))
    [(52, 80), (101, 157)]

    Raises:
        ValueError: if a side is below 1.
    """
    if min(*start, *output) < 1:
        raise ValueError(f"expected grids with sides of at least 1 cell, got {start} and {output}")
    sizes = []
    rows, columns = start
    while 2 * rows < output[0] or 2 * columns < output[1]:
        rows, columns = min(2 * rows, output[0]), min(2 * columns, output[1])
        sizes.append((rows, columns))
    return [*sizes, (output[0], output[1])]


def share_predicted(sizes: Sequence[Size], num_points: int) -> float:
    """Point predictions in all steps together over the cells of the last grid: what subdivision saves."""
    if not sizes:
        return 0.0
    return sum(min(num_points, rows * columns) for rows, columns in sizes) / (sizes[-1][0] * sizes[-1][1])
