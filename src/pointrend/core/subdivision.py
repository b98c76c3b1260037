"""The one subdivision loop, for boxes and whole images alike (paper section 3.1, figure 4).

Shapes: N regions, C classes, P points, H W rows and columns of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pointrend.core.sampling import cell_centers
from pointrend.core.selection import Uncertainty, most_uncertain_cells, uncertain_cells

Size = tuple[int, int]
"""Rows and columns of a grid."""

PredictAt = Callable[[Tensor], Tensor]
"""Predicts at points: (N, P, 2) in the unit squares of the regions -> logits (N, C, P)."""


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
        (N, C, *sizes[-1]) logits; ``logits`` itself if there is no step.
    """
    for size in sizes:
        upsampled = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        values = uncertainty(upsampled)
        if min_uncertainty is None:
            index = most_uncertain_cells(values, num_points)  # (N, P)
        else:
            index = uncertain_cells(values, num_points, min_uncertainty)
        points = cell_centers(index, *size)  # (N, P, 2)
        logits = put_back(upsampled, index, predict_at(points))
        if trace is not None:
            trace.append(SubdivisionStep(size, upsampled, index, points, logits))
    return logits


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
    return [*sizes, (int(output[0]), int(output[1]))]


def share_predicted(sizes: Sequence[Size], num_points: int) -> float:
    """Point predictions in all steps together over the cells of the last grid: what subdivision saves."""
    if not sizes:
        return 0.0
    return sum(min(num_points, rows * columns) for rows, columns in sizes) / (sizes[-1][0] * sizes[-1][1])
