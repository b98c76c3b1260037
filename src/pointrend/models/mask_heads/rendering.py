"""Masks rendered by subdivision, whichever head predicts the points: PointRend's and Implicit PointRend's.

Shapes: R boxes of all images, K classes, P points, s side of the starting grid, S side of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pointrend.core import (
    PointSampling,
    SubdivisionStep,
    binary_point_loss,
    binary_uncertainty,
    points_in_image,
    regular_grid,
    sample_training_points,
    subdivide,
    subdivision_sizes,
)
from pointrend.core.selection import Generators
from pointrend.core.subdivision import PredictAt, Size
from pointrend.models.boxes import Regions
from pointrend.models.paste_masks import sample_batch
from pointrend.structures import InstanceMasks


@dataclass(frozen=True)
class MaskTrace:
    """How masks came about, for images and tests."""

    coarse: Tensor
    """(R, K, 7, 7) coarse logits."""
    start: Tensor
    """(R, 1, s, s) logits of each box's class on the starting grid, every cell predicted."""
    steps: list[SubdivisionStep]
    """What each subdivision step did, for one channel: the box's class."""


def grid_sizes(start: int, side: int) -> list[Size]:
    """The grids of the subdivision steps from a starting side to the mask's; none if it starts there."""
    return subdivision_sizes((start, start), (side, side)) if start < side else []


def in_pieces(predict_at: PredictAt, pieces: int) -> PredictAt:
    """The same logits (R, 1, P), predicted for one piece of the points after the other."""
    if pieces == 1:
        return predict_at
    return lambda points: torch.cat([predict_at(piece) for piece in points.chunk(pieces, dim=1)], dim=2)


def render_masks(
    predict_at: PredictAt,
    regions: int,
    device: torch.device,
    *,
    start: int,
    sizes: Sequence[Size],
    num_points: int,
    min_uncertainty: float | None = None,
    trace: list[SubdivisionStep] | None = None,
) -> tuple[Tensor, Tensor]:
    """(R, 1, S, S) logits and the starting grid (R, 1, s, s), every cell of which is predicted.

    Args:
        predict_at: from points (R, P, 2) in the boxes to logits (R, 1, P).
        regions: R. device: of the points.
        start: s. sizes, num_points, min_uncertainty, trace: of :func:`pointrend.core.subdivide`.
    """
    grid = regular_grid(start, start, regions=regions, device=device)
    first = predict_at(grid).unflatten(2, (start, start))
    logits = subdivide(
        first,
        predict_at,
        sizes=sizes,
        num_points=num_points,
        uncertainty=binary_uncertainty,
        min_uncertainty=min_uncertainty,
        trace=trace,
    )
    return logits, first


def loss_at_points(
    predict_at: PredictAt,
    guide: Tensor,
    sampling: PointSampling,
    regions: Regions,
    matched: Tensor,
    masks: Sequence[InstanceMasks],
    *,
    generator: Generators = None,
) -> Tensor:
    """Mean cross-entropy with soft labels at points drawn in each box, a scalar.

    Args:
        predict_at: from points (R, P, 2) in the boxes to logits (R, 1, P).
        guide: (R, 1, H, W) logits; their uncertainty says where points are preferred.
        sampling: how points are drawn.
        regions, matched, masks, generator: as for :meth:`~pointrend.models.mask_heads.coarse.CoarseMaskHead.loss`.
    """
    points = sample_training_points(
        guide, sampling, binary_uncertainty, generator=regions.generators(generator)
    )  # (R, P, 2)
    logits = predict_at(points)[:, 0]  # (R, P)
    labels = sample_batch(masks, regions, matched, points_in_image(points, regions.boxes))
    return binary_point_loss(logits, labels)


@dataclass(frozen=True)
class AdaptiveRefinement:
    """What a mask head saves; docs/performance.md has what each costs and gains.

    model.mask_head.adaptive_refinement = AdaptiveRefinement(cells_per_pixel=1, min_uncertainty=-4)
    """

    cells_per_pixel: float | None = None
    """Stop subdividing a box when its grid has so many cells for each pixel of its longer side, in pixels of the
    network's input; the rest is interpolated. A box of 40 pixels needs no 224x224 cells. None: subdivide fully."""
    min_uncertainty: float | None = None
    """Leave cells alone whose uncertainty (minus the distance of the logit from 0) is not above this negative number,
    also where the budget of points would reach them. At -4, the probability is below 0.018 or above
    0.982. None: spend the budget."""

    def __post_init__(self) -> None:
        for name, sign in (("cells_per_pixel", 1), ("min_uncertainty", -1)):
            value = getattr(self, name)
            if value is not None and not sign * value > 0:
                word = "positive" if sign > 0 else "negative"
                raise ValueError(f"{name}: expected a {word} number or None, got {value}")

    def steps(self, boxes: Tensor, start: int, sizes: Sequence[Size]) -> Tensor:
        """(R,) int64: how many of the steps to ``sizes``, from a grid of ``start`` cells a side, each box needs."""
        if self.cells_per_pixel is None or not sizes:
            return torch.full((len(boxes),), len(sizes), device=boxes.device)
        longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
        sides = boxes.new_tensor([start, *(size[0] for size in sizes[:-1])])
        return (sides < self.cells_per_pixel * longer[:, None]).sum(1)
