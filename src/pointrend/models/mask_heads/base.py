"""What all mask heads share: their settings, their constructor and two methods.

A mask head predicts the logits of one class on a grid over each box. Numbers as in Detectron2
``projects/PointRend/point_rend/mask_head.py``.

Shapes: B images, R boxes of all images, K classes, C channels, S side of the mask grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from pointrend.core import PointSampling
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.targets import MaskTargets

Sizes = Mapping[str, int]
"""Channels or strides of maps by name."""
Features = Mapping[str, Tensor]
"""Maps (B, C, H, W) of the backbone and its pyramid by name."""


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
    """The point head predicts a correction instead of the logits; see :class:`~pointrend.core.point_head.PointHead`."""
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

    def __init__(self, channels: Sizes, strides: Sizes, num_classes: int, config: MaskConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = dict(strides)
        self.masks = 1 if self.config.class_agnostic else num_classes
        unknown = [name for name in self.config.features if name not in channels]
        if unknown:
            raise ValueError(
                f"point head features: expected some of {sorted(channels)}, got {self.config.features}"
            )

    @abstractmethod
    def loss(
        self, features: Features, targets: MaskTargets, *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """Losses by name, scalars.

        Args:
            targets: the boxes to train on, and what is known of their objects.
            generator: for heads that draw points; one, or one for each image.
        """

    @abstractmethod
    def predict(self, features: Features, regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class."""
