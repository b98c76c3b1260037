"""What all mask heads share: their settings, their constructor and two methods.

A mask head predicts the logits of one class on a grid over each box. Numbers as in Detectron2
``projects/PointRend/point_rend/mask_head.py``.

Shapes: B images, R boxes of all images, K classes, C channels, S side of the mask grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pointrend.core import PointSampling, binary_point_loss
from pointrend.core.sampling import points_in_boxes
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.paste_masks import crop_batch
from pointrend.structures import InstanceMasks, LabelledPoints


@dataclass(frozen=True)
class MaskConfig:
    """Settings of the mask heads; defaults are those of all published PointRend models."""

    mask_size: int = 224
    """S of the rendered mask, any number: PointRend only."""
    coarse_size: int = 7
    num_points: int = 784
    """N, points predicted for each box in each subdivision step."""
    sampling: PointSampling = field(default_factory=PointSampling)
    """How training points are chosen."""
    class_agnostic: bool = False
    """One mask for each box instead of one for each class."""
    features: tuple[str, ...] = ("p2",)
    """Where the point head's fine features come from: "p2".."p5", "stem", "res2".."res5"."""
    width: int = 256
    """Channels of convolutions and of the point head."""
    coarse_width: int = 1024
    """Units of the coarse head's hidden layers."""
    depth: int = 3
    """Hidden layers of the point head."""
    point_width: int | None = None
    """Channels of PointRend's point head, if not ``width``."""
    coarse_each_layer: bool = True
    residual: bool = False
    """The point head predicts a correction instead of the logits; see :class:`pointrend.core.PointHead`."""
    coarse_probabilities: bool = False
    """The point head sees the coarse masks as probabilities, as the paper's text has it, instead of as logits."""
    point_loss_weight: float = 1.0
    """Of the loss at points, a mean over them. The text sums over the points of a box: 196 with 196 points."""
    train_on_predicted_boxes: bool = True
    """Train on the box predicted from each proposal rather than on the proposal."""

    def __post_init__(self) -> None:
        if min(self.mask_size, self.num_points, self.coarse_size) < 1 or not self.features:
            raise ValueError(f"mask head: expected positive sides and points and some features, got {self}")
        if self.sampling.strategy == "labelled":
            raise ValueError(
                "point sampling: 'labelled' is for semantic models; masks have no ignored pixels"
            )

    @property
    def start_size(self) -> int:
        """Side of the grid on which subdivision starts: the largest doubled coarse grid that N points cover.

        28 for 7 and N = 784. Detectron2's configuration says "start 7, 5 steps"; this is what it runs.
        """
        side = min(self.coarse_size, self.mask_size)
        while 4 * side**2 <= self.num_points and 2 * side <= self.mask_size:
            side *= 2
        return side


class MaskHead(nn.Module, ABC):
    """Masks of boxes.

    Args:
        channels: C of each map. strides: input pixels per cell of each map; by name, "p2" among them.
        num_classes: K.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        num_classes: int,
        config: MaskConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or MaskConfig()
        self.strides = dict(strides)
        self.masks = 1 if self.config.class_agnostic else num_classes
        unknown = [name for name in self.config.features if name not in channels]
        if unknown:
            raise ValueError(
                f"point head features: expected some of {sorted(channels)}, got {self.config.features}"
            )

    @abstractmethod
    def loss(
        self,
        features: Mapping[str, Tensor],
        regions: Regions,
        matched: Tensor,
        masks: Sequence[InstanceMasks],
        *,
        generator: Generators = None,
    ) -> dict[str, Tensor]:
        """Losses by name, scalars.

        Args:
            features: maps (B, C, H, W) of the backbone and its pyramid by name.
            regions: the boxes to train on, with their true classes. matched: (R,) their true objects.
            masks: the true objects' masks, for each image, in pixels of the network's input.
            generator: for heads that draw points; one, or one for each image.
        """

    @abstractmethod
    def point_loss(
        self, features: Mapping[str, Tensor], regions: Regions, points: PointsInBoxes
    ) -> dict[str, Tensor]:
        """Losses by name, scalars, where objects have labelled points in place of masks (PointSup).

        Means over all points, those included that do not count because they lie outside of the box.

        Args:
            features: as for :meth:`loss`.
            regions: the boxes to train on, with their true classes. points: of their true objects.
        """

    @abstractmethod
    def predict(self, features: Mapping[str, Tensor], regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class."""


@dataclass(frozen=True)
class PointsInBoxes:
    """P labelled points in each of R boxes."""

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
        return cls(coords, labels.masked_fill(outside, -1.0))


def loss_at_labelled_points(logits: Tensor, points: PointsInBoxes) -> Tensor:
    """Mean cross-entropy of logits (R, P) with the points' labels, over all points; a scalar."""
    return binary_point_loss(logits, points.labels, normalize="all")


def grid_loss(logits: Tensor, regions: Regions, matched: Tensor, masks: Sequence[InstanceMasks]) -> Tensor:
    """Mean cross-entropy of mask logits with the true masks, cropped to the boxes and cut at 0.5; a scalar.

    Args:
        logits: (R, S, S) or (R, 1, S, S), of each box's class.
        regions, matched, masks: as for :meth:`MaskHead.loss`.
    """
    targets = crop_batch(masks, regions, matched, logits.shape[-1])
    return binary_point_loss(logits.flatten(1), targets.flatten(1))
