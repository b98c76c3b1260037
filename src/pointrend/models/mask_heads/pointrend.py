"""PointRend's mask head (paper sections 3 and 4.1): coarse masks, rendered by subdivision.

The interface of all mask heads is in ``coarse_mask_head``. Numbers as in Detectron2
``projects/PointRend/point_rend/mask_head.py``.

Shapes: B images, R boxes of all images, K classes, C channels, P points, S side of the mask grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from pointrend.core import PointHead, SubdivisionStep, point_sample, point_sample_boxes
from pointrend.core.fast_point_head import FastPointHead, compute_dtype
from pointrend.core.selection import Generators
from pointrend.core.subdivision import PredictAt, Size
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.coarse import CoarseMaskHead, MaskConfig, grid_loss
from pointrend.models.mask_heads.rendering import (
    AdaptiveRefinement,
    MaskTrace,
    grid_sizes,
    in_pieces,
    loss_at_points,
    render_masks,
)
from pointrend.models.memory import fits_at_once
from pointrend.structures import InstanceMasks


class PointRendMaskHead(CoarseMaskHead):
    """Coarse masks, rendered by subdivision: the point head predicts where the mask is uncertain.

    Only the class of a box is ever upsampled, refined and pasted. This is exact, since classes do not feed
    back into each other; the original carries all of them along.
    """

    fast = True
    """Predict by ``core.projection``; False takes the textbook path, which gives the same masks more slowly.

    Under autocast the fast path's large products are in half precision, and what decides a mask is not."""

    adaptive_refinement: AdaptiveRefinement | None = None
    """Points to leave out at inference; None predicts all, as published."""

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        num_classes: int,
        config: MaskConfig | None = None,
    ) -> None:
        super().__init__(channels, strides, num_classes, config)
        unknown = [name for name in self.config.features if name not in channels]
        if unknown:
            raise ValueError(
                f"point head features: expected some of {sorted(channels)}, got {self.config.features}"
            )
        self.point_head = PointHead(
            sum(channels[name] for name in self.config.features),
            self.masks,
            width=self.config.width,
            depth=self.config.depth,
            coarse_each_layer=self.config.coarse_each_layer,
            residual=self.config.residual,
        )

    def loss(
        self,
        features: Mapping[str, Tensor],
        regions: Regions,
        matched: Tensor,
        masks: Sequence[InstanceMasks],
        *,
        generator: Generators = None,
    ) -> dict[str, Tensor]:
        """``mask_coarse`` as above, ``mask_points``: cross-entropy with soft labels, near the outline."""
        coarse = self.coarse_logits(features, regions)
        own = regions.own(coarse)
        return {
            "mask_coarse": grid_loss(own, regions, matched, masks),
            "mask_points": loss_at_points(
                self.predictor(features, coarse, regions),
                own,
                self.config.sampling,
                regions,
                matched,
                masks,
                generator=generator,
            ),
        }

    @torch.no_grad()
    def predict(self, features: Mapping[str, Tensor], regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class, S from the configuration."""
        if self.adaptive_refinement is None or self.adaptive_refinement.cells_per_pixel is None:
            return self._predict(features, regions, self._sizes())
        sizes, side = self._sizes(), self.config.mask_size
        needed = self.adaptive_refinement.steps(regions.boxes, self.config.start_size, sizes)
        masks = regions.boxes.new_empty((len(regions), side, side))
        for steps in needed.unique().tolist():
            here = torch.nonzero(needed == steps).squeeze(1)
            logits = self._predict(features, regions[here], sizes[:steps])[:, None]
            masks[here] = F.interpolate(logits, size=side, mode="bilinear", align_corners=False)[:, 0]
        return masks

    def _predict(self, features: Mapping[str, Tensor], regions: Regions, sizes: list[Size]) -> Tensor:
        """Mask logits of each box's class on the last of the grids."""
        at_once = self.boxes_at_once
        if not self.fast or not self.point_head.layers:
            parts = [self._render(features, part, None, sizes)[0] for part in regions.chunks(at_once)]
            return torch.cat(parts)
        coarse = self.exact_coarse_logits(features, regions)
        head = self.projected(features, coarse, regions)
        height, width = sizes[-1] if sizes else (self.config.start_size, self.config.start_size)
        masks = coarse.new_empty((len(regions), height, width))
        pieces = 1
        if coarse.device.type == "cpu":
            # Few boxes go in four parts too, one box in halves: a quarter of the memory, for a few calls.
            at_once = min(at_once, max(1, -(-len(regions) // 4)))
            pieces = 2 if len(regions) < 4 else 1
        for first in range(0, len(regions), at_once):
            part = masks[first : first + at_once]
            predict_at = in_pieces(partial(head, first=first), pieces)
            part.copy_(self._subdivide(predict_at, len(part), coarse.device, sizes)[0][:, 0])
        return masks

    @property
    def boxes_at_once(self) -> int:
        """Boxes rendered together: as many as a budget of memory holds, whatever the number of classes."""
        points = max(self.config.num_points, self.config.start_size**2)
        # Three hidden features, indices and weights for each point; two grids, their uncertainty and a copy.
        hidden = self.config.width * compute_dtype(self.point_head).itemsize
        box = points * (3 * hidden + 160) + 4 * 4 * self.config.mask_size**2
        return fits_at_once(box, self.point_head.predictor.weight.device)

    @torch.no_grad()
    def trace(self, features: Mapping[str, Tensor], regions: Regions) -> tuple[Tensor, MaskTrace]:
        """What :meth:`predict` returns, and how it came about; holds the grids of every step in memory."""
        steps: list[SubdivisionStep] = []
        logits, coarse, start = self._render(features, regions, steps, self._sizes())
        return logits, MaskTrace(coarse, start, steps)

    def _render(
        self,
        features: Mapping[str, Tensor],
        regions: Regions,
        steps: list[SubdivisionStep] | None,
        sizes: list[Size],
    ) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.exact_coarse_logits(features, regions)  # (R, K, 7, 7)
        predict_at = self.predictor(features, coarse, regions)
        logits, start = self._subdivide(predict_at, len(regions), coarse.device, sizes, steps)
        return logits[:, 0], coarse, start

    def _subdivide(
        self,
        predict_at: PredictAt,
        regions: int,
        device: torch.device,
        sizes: list[Size],
        steps: list[SubdivisionStep] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(R, 1, S, S) logits and the starting grid (R, 1, s, s)."""
        return render_masks(
            predict_at,
            regions,
            device,
            start=self.config.start_size,
            sizes=sizes,
            num_points=self.config.num_points,
            min_uncertainty=self.adaptive_refinement.min_uncertainty if self.adaptive_refinement else None,
            trace=steps,
        )

    def _sizes(self) -> list[Size]:
        return grid_sizes(self.config.start_size, self.config.mask_size)

    def projected(self, features: Mapping[str, Tensor], coarse: Tensor, regions: Regions) -> FastPointHead:
        """What :meth:`predictor` gives, fast: from points (r, P, 2) in some of the boxes to logits (r, 1, P)."""
        points = self.config.start_size**2 + sum(min(self.config.num_points, h * w) for h, w in self._sizes())
        return FastPointHead(
            self.point_head,
            [features[name] for name in self.config.features],
            [self.strides[name] for name in self.config.features],
            regions.boxes,
            regions.image_index,
            coarse,
            regions.channels(self.masks),
            expected_points=points,
        )

    def predictor(self, features: Mapping[str, Tensor], coarse: Tensor, regions: Regions) -> PredictAt:
        """The point head for each box's class: from points (R, P, 2) in the boxes to logits (R, 1, P)."""
        maps = [features[name] for name in self.config.features]
        strides = [self.strides[name] for name in self.config.features]
        rows = regions.channels(self.masks)

        def predict_at(points: Tensor) -> Tensor:
            fine = point_sample_boxes(maps, strides, regions.boxes, regions.image_index, points)  # (R, C, P)
            rough = point_sample(coarse, points, padding=self.point_head.coarse_padding)  # (R, K, P)
            logits: Tensor = self.point_head(fine, rough, rows)
            return logits

        return predict_at
