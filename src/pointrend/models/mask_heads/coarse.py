"""The coarse prediction of a mask (paper section 4): 7x7 logits for each box.

Shapes: B images, R boxes of all images, K classes, C channels, S side of the mask grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core import point_sample_boxes, regular_grid
from pointrend.core.gather import sample_rows
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import Features, MaskConfig, MaskHead, Sizes
from pointrend.models.mask_heads.targets import MaskTargets
from pointrend.models.weight_init import msra_fill, normal_fill, xavier_fill


class CoarseHead(nn.Module):
    """A 14x14 sample of features -> K masks of 7x7: one strided convolution and two hidden layers.

    Args:
        channels: C of the features; if more than ``config.width``, a 1x1 convolution reduces them first.
        outputs: numbers predicted in all, K * 7 * 7.
        config: size of the coarse mask, twice as many samples a side go in; widths of the layers.
    """

    def __init__(self, channels: int, outputs: int, config: MaskConfig) -> None:
        super().__init__()
        self.coarse_size, width, hidden = config.coarse_size, config.width, config.coarse_width
        self.reduce_channels = nn.Conv2d(channels, width, 1) if channels > width else None
        channels = min(channels, width)
        self.reduce_size = nn.Conv2d(channels, width, 2, stride=2)
        self.fc1 = nn.Linear(width * self.coarse_size**2, hidden)
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
        side = 2 * self.coarse_size
        grid = regular_grid(side, side, regions=regions.boxes.shape[0], device=regions.boxes.device)
        boxes, images = regions.boxes, regions.image_index
        eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if eager and features.is_contiguous(memory_format=torch.channels_last):
            table = features.permute(0, 2, 3, 1).flatten(0, 2)
            size = (features.shape[2], features.shape[3])
            rows = sample_rows(table, size, stride, boxes, images, grid)
            return rows.view(len(regions), side, side, features.shape[1]).permute(0, 3, 1, 2)
        return point_sample_boxes([features], [stride], boxes, images, grid).unflatten(2, (side, side))

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, 14, 14) -> (R, outputs) float32."""
        pooled = pooled.to(self.fc1.weight.dtype)
        hidden = pooled if self.reduce_channels is None else F.relu(self.reduce_channels(pooled))
        hidden = F.relu(self.reduce_size(hidden)).flatten(1)
        hidden = F.relu(self.fc2(F.relu(self.fc1(hidden))))
        outputs: Tensor = self.prediction(hidden)
        return outputs.float()


class CoarseMaskHead(MaskHead):
    """The coarse prediction alone: 7x7 logits over each box, all there is to paste."""

    def __init__(self, channels: Sizes, strides: Sizes, num_classes: int, config: MaskConfig) -> None:
        super().__init__(channels, strides, num_classes, config)
        outputs = self.masks * self.config.coarse_size**2
        self.coarse_head = CoarseHead(channels["p2"], outputs, self.config)

    def coarse_logits(self, features: Features, regions: Regions) -> Tensor:
        """(R, K, 7, 7) logits, K = 1 where class-agnostic."""
        size = self.config.coarse_size
        pooled = self.coarse_head.pool(features["p2"], self.strides["p2"], regions)
        return self.coarse_head(pooled).unflatten(1, (self.masks, size, size))

    def exact_coarse_logits(self, features: Features, regions: Regions) -> Tensor:
        """:meth:`coarse_logits` in the head's own precision also under autocast: cheap, and masks hang on them."""
        with torch.autocast(regions.boxes.device.type, enabled=False):
            return self.coarse_logits(features, regions)

    def loss(
        self, features: Features, targets: MaskTargets, *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """``mask_coarse``: cross-entropy of each box's class."""
        own = targets.regions.own(self.coarse_logits(features, targets.regions))
        return {"mask_coarse": self.coarse_loss(own, targets)}

    @staticmethod
    def coarse_loss(own: Tensor, targets: MaskTargets) -> Tensor:
        """A scalar from (R, 1, 7, 7) logits of each box's class.

        At labelled points, logits go on beyond the outermost centres ("border"): fading to 0 there, as PointSup's 28x28
        masks do in their last 1/56, would take in a seventh of each side here.
        """
        return targets.grid_loss(own, padding="border")

    @torch.no_grad()
    def predict(self, features: Features, regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class; here S is 7."""
        return regions.own(self.exact_coarse_logits(features, regions))[:, 0]
