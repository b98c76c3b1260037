"""PointRend's mask head (paper sections 3 and 4): coarse masks, rendered by subdivision.

:class:`RenderedMaskHead` is the rendering, whichever head predicts the points; Implicit PointRend has it too.
Numbers as in Detectron2 ``projects/PointRend/point_rend/mask_head.py``.

Shapes: R boxes of all images, K classes, P points, s side of the starting grid, S side of the mask.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core import (
    PointHead,
    SubdivisionStep,
    binary_uncertainty,
    regular_grid,
    subdivide,
    subdivision_sizes,
)
from pointrend.core.fast_point_head import PredictInBoxes, compute_dtype, predict_in_boxes
from pointrend.core.selection import Generators
from pointrend.core.subdivision import PredictAt, Size
from pointrend.models.boxes import Regions
from pointrend.models.devices import fits_at_once
from pointrend.models.mask_heads.base import Features, MaskConfig, MaskHead, Sizes
from pointrend.models.mask_heads.coarse import CoarseMaskHead
from pointrend.models.mask_heads.targets import MaskTargets


@dataclass(frozen=True)
class MaskTrace:
    """How masks came about, for images and tests."""

    coarse: Tensor
    """(R, K, 7, 7) coarse logits."""
    start: Tensor
    """(R, 1, s, s) logits of each box's class on the starting grid, every cell predicted."""
    steps: list[SubdivisionStep]
    """What each subdivision step did, for one channel: the box's class."""


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


class RenderedMaskHead(MaskHead):
    """A mask head whose masks are rendered: every cell of a small grid is predicted, then it is subdivided.

    Only the class of a box is ever upsampled, refined and pasted. This is exact, since classes do not feed back into
    each other; the original carries all of them along.
    """

    adaptive_refinement: AdaptiveRefinement | None = None
    """Points to leave out at inference; None predicts all, as published."""

    @abstractmethod
    def bind(self, features: Features, regions: Regions) -> tuple[PredictInBoxes, Tensor]:
        """The point head in these boxes, and the coarse logits (R, K, s, s) that it sees."""

    @property
    def start_size(self) -> int:
        """Side of the grid on which every cell is predicted."""
        return self.config.start_size

    @property
    def sizes(self) -> list[Size]:
        """The grids of the subdivision steps."""
        start, size = self.start_size, self.config.mask_size
        return subdivision_sizes((start, start), (size, size)) if start < size else []

    @torch.no_grad()
    def predict(self, features: Features, regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class, S from the configuration."""
        adaptive, sizes, size = self.adaptive_refinement, self.sizes, self.config.mask_size
        if adaptive is None or adaptive.cells_per_pixel is None:
            return self.render(features, regions, sizes)
        needed = adaptive.steps(regions.boxes, self.start_size, sizes)
        masks = regions.boxes.new_empty((len(regions), size, size))
        for steps in needed.unique().tolist():
            here = torch.nonzero(needed == steps).squeeze(1)
            logits = self.render(features, regions[here], sizes[:steps])[:, None]
            masks[here] = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0]
        return masks

    @torch.no_grad()
    def trace(self, features: Features, regions: Regions) -> tuple[Tensor, MaskTrace]:
        """What :meth:`predict` returns, and how it came about; holds the grids of every step in memory."""
        steps: list[SubdivisionStep] = []
        predict_at, coarse = self.bind(features, regions)
        logits, start = self._subdivide(predict_at, regions.boxes, self.sizes, steps)
        return logits[:, 0], MaskTrace(coarse, start, steps)

    def render(self, features: Features, regions: Regions, sizes: Sequence[Size]) -> Tensor:
        """Mask logits (R, *sizes[-1]) of each box's class; on the starting grid if there is no step."""
        predict_at, coarse = self.bind(features, regions)
        if torch.compiler.is_compiling():
            return self._subdivide(predict_at, regions.boxes, sizes)[0][:, 0]
        at_once, pieces = self.boxes_at_once, 1
        if coarse.device.type == "cpu":
            # Few boxes go in four parts too, one box in halves: a quarter of the memory, for a few calls.
            at_once = min(at_once, max(1, -(-len(regions) // 4)))
            pieces = 2 if len(regions) < 4 else 1
        size = sizes[-1] if sizes else (self.start_size, self.start_size)
        masks = coarse.new_empty((len(regions), *size))
        for first in range(0, len(regions), at_once):
            part = masks[first : first + at_once]
            here = in_pieces(partial(predict_at, first=first), pieces)
            part.copy_(self._subdivide(here, regions.boxes[first : first + at_once], sizes)[0][:, 0])
        return masks

    def _subdivide(
        self,
        predict_at: PredictAt,
        boxes: Tensor,
        sizes: Sequence[Size],
        trace: list[SubdivisionStep] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(R, 1, S, S) logits and the starting grid (R, 1, s, s), every cell of which is predicted."""
        side = self.start_size
        grid = regular_grid(side, side, regions=boxes.shape[0], device=boxes.device)
        start = predict_at(grid).unflatten(2, (side, side))
        logits = subdivide(
            start,
            predict_at,
            sizes=sizes,
            num_points=self.config.num_points,
            uncertainty=binary_uncertainty,
            min_uncertainty=self.adaptive_refinement.min_uncertainty if self.adaptive_refinement else None,
            trace=trace,
        )
        return logits, start

    @property
    def boxes_at_once(self) -> int:
        """Boxes rendered together: as many as a budget of memory holds, whatever the number of classes."""
        points = max(self.config.num_points, self.start_size**2)
        # Three hidden features, indices and weights for each point; two grids, their uncertainty and a copy.
        parameter = next(self.parameters())
        hidden = (self.config.point_width or self.config.width) * compute_dtype(parameter).itemsize
        box = points * (3 * hidden + 160) + 4 * 4 * self.config.mask_size**2
        return fits_at_once(box, parameter.device)


def in_pieces(predict_at: PredictAt, pieces: int) -> PredictAt:
    """The same logits (R, 1, P), predicted for one piece of the points after the other."""
    if pieces == 1:
        return predict_at
    return lambda points: torch.cat([predict_at(piece) for piece in points.chunk(pieces, dim=1)], dim=2)


class PointRendMaskHead(RenderedMaskHead, CoarseMaskHead):
    """Coarse masks, rendered by subdivision: the point head predicts where the mask is uncertain."""

    def __init__(self, channels: Sizes, strides: Sizes, num_classes: int, config: MaskConfig) -> None:
        super().__init__(channels, strides, num_classes, config)
        self.point_head = PointHead(
            sum(channels[name] for name in self.config.features),
            self.masks,
            width=self.config.point_width or self.config.width,
            depth=self.config.depth,
            coarse_each_layer=self.config.coarse_each_layer,
            residual=self.config.residual,
            coarse_activation="sigmoid" if self.config.coarse_probabilities else None,
        )

    def loss(
        self, features: Features, targets: MaskTargets, *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """``mask_coarse``, and ``mask_points``: cross-entropy near the outline, or at the labelled points.

        The latter is ours: PointSup has no head for standard PointRend.
        """
        regions = targets.regions
        coarse = self.coarse_logits(features, regions)
        own = regions.own(coarse)
        predict_at = self.predictor(features, coarse, regions)
        mask_coarse = self.coarse_loss(own, targets)
        mask_points = targets.point_loss(predict_at, own, self.config.sampling, generator=generator)
        return {"mask_coarse": mask_coarse, "mask_points": self.config.point_loss_weight * mask_points}

    def bind(self, features: Features, regions: Regions) -> tuple[PredictInBoxes, Tensor]:
        """The point head in these boxes, and the coarse logits (R, K, 7, 7) that it sees."""
        coarse = self.exact_coarse_logits(features, regions)
        return self.predictor(features, coarse, regions), coarse

    def predictor(self, features: Features, coarse: Tensor, regions: Regions) -> PredictInBoxes:
        """The point head for each box's class: from points (r, P, 2) in some of the boxes to logits (r, 1, P)."""
        points = self.start_size**2 + sum(min(self.config.num_points, h * w) for h, w in self.sizes)
        return predict_in_boxes(
            self.point_head,
            [features[name] for name in self.config.features],
            [self.strides[name] for name in self.config.features],
            regions.boxes,
            regions.image_index,
            coarse,
            regions.channels(self.masks),
            expected_points=points,
        )
