"""PointRend's mask head (paper sections 3 and 4): coarse masks, rendered by subdivision.

Numbers as in Detectron2 ``projects/PointRend/point_rend/mask_head.py``.

Shapes: B images, R boxes of all images, K classes, C channels, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from pointrend.core import PointHead
from pointrend.core.fast_point_head import PredictInBoxes, predict_in_boxes
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import MaskConfig, PointsInBoxes, grid_loss, loss_at_labelled_points
from pointrend.models.mask_heads.coarse import CoarseMaskHead
from pointrend.models.mask_heads.rendering import RenderedMaskHead, loss_at_points
from pointrend.structures import InstanceMasks


class PointRendMaskHead(RenderedMaskHead, CoarseMaskHead):
    """Coarse masks, rendered by subdivision: the point head predicts where the mask is uncertain."""

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        num_classes: int,
        config: MaskConfig | None = None,
    ) -> None:
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
        predict_at = self.predictor(features, coarse, regions)
        sampling = self.config.sampling
        return {
            "mask_coarse": grid_loss(own, regions, matched, masks),
            "mask_points": self.config.point_loss_weight
            * loss_at_points(predict_at, own, sampling, regions, matched, masks, generator=generator),
        }

    def point_loss(
        self, features: Mapping[str, Tensor], regions: Regions, points: PointsInBoxes
    ) -> dict[str, Tensor]:
        """``mask_coarse`` and ``mask_points``: coarse logits and point head, both read at the labelled points.

        Ours: PointSup has no head for standard PointRend.
        """
        coarse = self.coarse_logits(features, regions)
        logits = self.predictor(features, coarse, regions)(points.coords)[:, 0]
        return {
            "mask_coarse": self.coarse_point_loss(regions.own(coarse), points),
            "mask_points": self.config.point_loss_weight * loss_at_labelled_points(logits, points),
        }

    def bind(self, features: Mapping[str, Tensor], regions: Regions) -> tuple[PredictInBoxes, Tensor]:
        """The point head in these boxes, and the coarse logits (R, K, 7, 7) that it sees."""
        coarse = self.exact_coarse_logits(features, regions)
        return self.predictor(features, coarse, regions), coarse

    def predictor(self, features: Mapping[str, Tensor], coarse: Tensor, regions: Regions) -> PredictInBoxes:
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
