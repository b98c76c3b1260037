"""The coarse prediction of a mask, and what all mask heads share: settings and two methods.

All mask heads (this, ``mask_head``, ``conv_mask_head``, ``implicit``) predict the logits of one class on a grid over
each box. They share ``loss(features, regions, matched, masks)`` and ``predict(features, regions)``; ``features`` are
maps (B, C, H, W) of the backbone and its pyramid by name. Numbers as in Detectron2
``projects/PointRend/point_rend/mask_head.py``.

Shapes: B images, R boxes of all images, K classes, C channels, S side of the mask grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core import PointSampling, binary_point_loss, point_sample_boxes, regular_grid
from pointrend.core.gather import sample_rows
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.paste_masks import crop_batch
from pointrend.models.weight_init import msra_fill, normal_fill, xavier_fill
from pointrend.structures import InstanceMasks


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
    coarse_each_layer: bool = True
    residual: bool = False
    """The point head predicts a correction instead of the logits; see :class:`pointrend.core.PointHead`."""
    train_on_predicted_boxes: bool = True
    """Train on the box predicted from each proposal rather than on the proposal."""

    def __post_init__(self) -> None:
        if min(self.mask_size, self.num_points, self.coarse_size) < 1 or not self.features:
            raise ValueError(f"mask head: expected positive sides and points and some features, got {self}")

    @property
    def start_size(self) -> int:
        """Side of the grid on which subdivision starts: the largest doubled coarse grid that N points cover.

        28 for 7 and N = 784. Detectron2's configuration says "start 7, 5 steps"; this is what it runs.
        """
        side = min(self.coarse_size, self.mask_size)
        while 4 * side**2 <= self.num_points and 2 * side <= self.mask_size:
            side *= 2
        return side


class CoarseHead(nn.Module):
    """A 14x14 sample of features -> K masks of 7x7: one strided convolution and two hidden layers.

    Args:
        channels: C of the features; if more than ``width``, a 1x1 convolution reduces them first.
        outputs: numbers predicted in all, K * 7 * 7.
        mask_size: of the coarse mask; twice as many samples a side go in.
    """

    def __init__(
        self, channels: int, outputs: int, *, mask_size: int = 7, width: int = 256, hidden: int = 1024
    ) -> None:
        super().__init__()
        self.mask_size = mask_size
        self.reduce_channels = nn.Conv2d(channels, width, 1) if channels > width else None
        channels = min(channels, width)
        self.reduce_size = nn.Conv2d(channels, width, 2, stride=2)
        self.fc1 = nn.Linear(width * mask_size**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.prediction = nn.Linear(hidden, outputs)
        for conv in (self.reduce_channels, self.reduce_size):
            if conv is not None:
                msra_fill(conv)
        for layer in (self.fc1, self.fc2):
            xavier_fill(layer)
        normal_fill(self.prediction, 0.001)

    def pool(self, features: Tensor, stride: int, regions: Regions) -> Tensor:
        """(R, C, 14, 14): the map (B, C, H, W) sampled once at each centre of a regular grid in each box.

        Not RoIAlign: what lies outside of the map counts as zero instead of repeating the border.
        """
        side = 2 * self.mask_size
        grid = regular_grid(side, side, regions=len(regions), device=regions.boxes.device)
        boxes, images = regions.boxes, regions.image_index
        if not torch.is_grad_enabled() and features.is_contiguous(memory_format=torch.channels_last):
            table = features.permute(0, 2, 3, 1).flatten(0, 2)
            size = (features.shape[2], features.shape[3])
            rows = sample_rows(table, size, stride, boxes, images, grid)
            return rows.view(len(regions), side, side, -1).permute(0, 3, 1, 2)
        return point_sample_boxes([features], [stride], boxes, images, grid).unflatten(2, (side, side))

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, 14, 14) -> (R, outputs) float32."""
        hidden = pooled if self.reduce_channels is None else F.relu(self.reduce_channels(pooled))
        hidden = F.relu(self.reduce_size(hidden)).flatten(1)
        hidden = F.relu(self.fc2(F.relu(self.fc1(hidden))))
        outputs: Tensor = self.prediction(hidden)
        return outputs.float()


class CoarseMaskHead(nn.Module):
    """The coarse prediction alone: 7x7 logits over each box, all there is to paste.

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
        self.coarse_head = CoarseHead(
            channels["p2"],
            self.masks * self.config.coarse_size**2,
            mask_size=self.config.coarse_size,
            width=self.config.width,
            hidden=self.config.coarse_width,
        )

    def coarse_logits(self, features: Mapping[str, Tensor], regions: Regions) -> Tensor:
        """(R, K, 7, 7) logits, K = 1 where class-agnostic."""
        pooled = self.coarse_head.pool(features["p2"], self.strides["p2"], regions)
        side = self.config.coarse_size
        return self.coarse_head(pooled).view(len(regions), self.masks, side, side)

    def exact_coarse_logits(self, features: Mapping[str, Tensor], regions: Regions) -> Tensor:
        """:meth:`coarse_logits` in the head's own precision also under autocast: cheap, and masks hang on them."""
        with torch.autocast(regions.boxes.device.type, enabled=False):
            pooled = self.coarse_head.pool(features["p2"], self.strides["p2"], regions)
            outputs = self.coarse_head(pooled.to(self.coarse_head.fc1.weight.dtype))
        return outputs.view(len(regions), self.masks, self.config.coarse_size, self.config.coarse_size)

    def loss(
        self,
        features: Mapping[str, Tensor],
        regions: Regions,
        matched: Tensor,
        masks: Sequence[InstanceMasks],
        *,
        generator: Generators = None,
    ) -> dict[str, Tensor]:
        """``mask_coarse``: cross-entropy of each box's class with its true mask, cropped and cut at 0.5.

        Args:
            regions: the boxes to train on, with their true classes. matched: (R,) their true objects.
            masks: the true objects' masks, for each image, in pixels of the network's input.
            generator: for heads that draw points; one, or one for each image.
        """
        own = regions.own(self.coarse_logits(features, regions))
        return {"mask_coarse": grid_loss(own, regions, matched, masks)}

    @torch.no_grad()
    def predict(self, features: Mapping[str, Tensor], regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class; here S is 7."""
        return regions.own(self.exact_coarse_logits(features, regions))[:, 0]


def grid_loss(logits: Tensor, regions: Regions, matched: Tensor, masks: Sequence[InstanceMasks]) -> Tensor:
    """Mean cross-entropy of mask logits with the true masks, cropped to the boxes and cut at 0.5; a scalar.

    Args:
        logits: (R, S, S) or (R, 1, S, S), of each box's class.
        regions, matched, masks: as for :meth:`CoarseMaskHead.loss`.
    """
    targets = crop_batch(masks, regions, matched, logits.shape[-1])
    return binary_point_loss(logits.flatten(1), targets.flatten(1))
