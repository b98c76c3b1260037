"""What masks are learnt from: true masks, or a few labelled points of each object (PointSup, arXiv 2104.06404).

Shapes: R boxes of all images, P points, S side of a mask grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pointrend.core import (
    PointSampling,
    binary_point_loss,
    binary_uncertainty,
    point_sample,
    points_in_image,
    sample_training_points,
)
from pointrend.core.sampling import points_in_boxes
from pointrend.core.selection import Generators
from pointrend.core.subdivision import PredictAt
from pointrend.models.boxes import Regions
from pointrend.models.paste_masks import crop_masks
from pointrend.structures import InstanceMasks, LabelledPoints


@dataclass(frozen=True)
class MaskTargets(ABC):
    """What is known of the true objects of R boxes."""

    regions: Regions
    """The boxes to train on, with their true classes."""

    @abstractmethod
    def grid_loss(self, logits: Tensor, *, padding: str = "zeros") -> Tensor:
        """Mean cross-entropy of mask logits (R, 1, S, S) of each box's class; a scalar.

        Args:
            padding: what logits are beyond the outermost centres, where they are read at points; of `point_sample`.
        """

    @abstractmethod
    def point_loss(
        self, predict_at: PredictAt, guide: Tensor, sampling: PointSampling, *, generator: Generators = None
    ) -> Tensor:
        """Mean cross-entropy of the point head at points of each box; a scalar.

        Args:
            predict_at: from points (R, P, 2) in the boxes to logits (R, 1, P).
            guide: (R, 1, H, W) logits; their uncertainty says where points are preferred.
            sampling: how points are drawn, where they are not given.
            generator: for points that are drawn; one, or one for each image.
        """


@dataclass(frozen=True)
class TrueMasks(MaskTargets):
    """Masks of the true objects."""

    matched: Tensor
    """(R,) int64: each box's object in its image."""
    masks: Sequence[InstanceMasks]
    """Of the true objects of each image, in pixels of the network's input."""

    def grid_loss(self, logits: Tensor, *, padding: str = "zeros") -> Tensor:
        """Against the true masks, cropped to the boxes and cut at 0.5."""
        return binary_point_loss(logits.flatten(1), self.cropped(logits.shape[-1]).flatten(1))

    def point_loss(
        self, predict_at: PredictAt, guide: Tensor, sampling: PointSampling, *, generator: Generators = None
    ) -> Tensor:
        """At points drawn in each box, with bilinear samples of the true masks as labels."""
        drawing = self.regions.generators(generator)
        points = sample_training_points(guide, sampling, binary_uncertainty, generator=drawing)  # (R, P, 2)
        logits = predict_at(points)[:, 0]  # (R, P)
        return binary_point_loss(logits, self.sampled(points_in_image(points, self.regions.boxes)))

    def cropped(self, side: int) -> Tensor:
        """Hard targets (R, side, side), see :func:`~pointrend.models.paste_masks.crop_masks`."""
        return torch.cat([crop_masks(*part, side) for part in self._by_image(self.regions.boxes)])

    def sampled(self, points: Tensor) -> Tensor:
        """Soft labels (R, P) at points (R, P, 2), pixels of the network's input."""
        return torch.cat([masks.sample(index, own) for masks, index, own in self._by_image(points)])

    def _by_image(self, values: Tensor) -> zip[tuple[InstanceMasks, Tensor, Tensor]]:
        """The masks of each image, and what belongs to its boxes of ``matched`` and of values (R, ...)."""
        split, images = self.regions.split, len(self.masks)
        return zip(self.masks, split(self.matched, images), split(values, images), strict=True)


@dataclass(frozen=True)
class PointsInBoxes(MaskTargets):
    """P labelled points in each of R boxes. Losses are means over all points, those that do not count included."""

    coords: Tensor
    """(R, P, 2) float32 in the unit squares of the boxes."""
    labels: Tensor
    """(R, P) 1 on the box's object, 0 beside it, -1 where it does not count."""

    @classmethod
    def of(cls, points: Sequence[LabelledPoints], regions: Regions, matched: Tensor) -> PointsInBoxes:
        """The points of each box's object, without those strictly outside of the box.

        Args:
            points: of the true objects, for each image, in pixels of the network's input; as many of each object.
            regions: the boxes. matched: (R,) their true objects.
        """
        count = max(own.labels.shape[1] for own in points)
        coords = regions.boxes.new_zeros((len(regions), count, 2))
        labels = regions.boxes.new_full((len(regions), count), -1.0)
        for image, own in enumerate(points):
            here = torch.nonzero(regions.image_index == image).squeeze(1)
            if len(here):
                coords = coords.index_copy(0, here, own.coords[matched[here]])
                labels = labels.index_copy(0, here, own.labels[matched[here]])
        coords = points_in_boxes(coords, regions.boxes)
        outside = ((coords < 0) | (coords > 1)).any(2)
        return cls(regions, coords, labels.masked_fill(outside, -1.0))

    def grid_loss(self, logits: Tensor, *, padding: str = "zeros") -> Tensor:
        """The grid is read bilinearly at the points."""
        return self._loss(point_sample(logits, self.coords, padding=padding))

    def point_loss(
        self, predict_at: PredictAt, guide: Tensor, sampling: PointSampling, *, generator: Generators = None
    ) -> Tensor:
        """At the labelled points: none are drawn."""
        return self._loss(predict_at(self.coords))

    def _loss(self, logits: Tensor) -> Tensor:
        """Of logits (R, 1, P) at the points."""
        return binary_point_loss(logits[:, 0], self.labels, normalize="all")
