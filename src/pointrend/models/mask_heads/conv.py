"""The 4x conv mask head of Mask R-CNN: the baseline that the paper compares with (section 4, Table 2).

As Detectron2's ``MaskRCNNConvUpsampleHead``.

Shapes: B images, R boxes of all images, K classes, C channels, S side of the mask grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core.selection import Generators
from pointrend.models.box_head import POOLED, pool_regions
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import Features, MaskConfig, MaskHead, Sizes
from pointrend.models.mask_heads.targets import MaskTargets
from pointrend.models.weight_init import msra_fill, normal_fill


class ConvMaskHead(MaskHead):
    """The 4x conv baseline of Mask R-CNN: RoIAlign, four 3x3 convolutions, one upsampling by 2.

    Args: as for :class:`~pointrend.models.mask_heads.base.MaskHead`, "p2".."p5" among the maps.
        mask_size: S of the mask, even: 28 (from 14x14 features) or 224 (from 112x112, the costly head of Table 2).
    """

    def __init__(
        self, channels: Sizes, strides: Sizes, num_classes: int, config: MaskConfig, *, mask_size: int = 28
    ) -> None:
        super().__init__(channels, strides, num_classes, config)
        if mask_size < 2 or mask_size % 2:
            raise ValueError(f"mask_size: expected an even number of cells (28 or 224), got {mask_size}")
        self.mask_size = mask_size
        width = self.config.width
        self.convs = nn.ModuleList(
            nn.Conv2d(channels["p2"] if i == 0 else width, width, 3, padding=1) for i in range(4)
        )
        self.deconv = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.predictor = nn.Conv2d(width, self.masks, 1)
        for layer in (*self.convs, self.deconv):
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            msra_fill(layer)
        normal_fill(self.predictor, 0.001)

    def pool(self, features: Features, regions: Regions) -> Tensor:
        """(R, C, S/2, S/2) from the pyramid level that suits each box."""
        maps, strides = [features[level] for level in POOLED], [self.strides[level] for level in POOLED]
        return pool_regions(maps, strides, regions.boxes, regions.image_index, self.mask_size // 2)

    def hidden(self, pooled: Tensor) -> Tensor:
        """(R, C, S/2, S/2) -> (R, width, S, S)."""
        pooled = pooled.to(self.predictor.weight.dtype)
        for conv in self.convs:
            pooled = F.relu(conv(pooled))
        return F.relu(self.deconv(pooled))

    def forward(self, pooled: Tensor) -> Tensor:
        """Mask logits (R, K, S, S) of all classes."""
        logits: Tensor = self.predictor(self.hidden(pooled))
        return logits.float()

    def _logits(self, features: Features, regions: Regions) -> Tensor:
        """(R, S, S) for each box's class: the other rows of the last layer are not computed."""
        hidden = self.hidden(self.pool(features, regions))
        rows = regions.channels(self.masks)
        assert self.predictor.bias is not None
        weight = self.predictor.weight[rows].flatten(1)[:, None]  # (R, 1, width)
        logits = torch.bmm(weight, hidden.flatten(2)).float() + self.predictor.bias[rows][:, None, None]
        return logits.view(hidden.shape[0], *hidden.shape[2:])

    def loss(
        self, features: Features, targets: MaskTargets, *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """``mask``: cross-entropy of each box's class (at labelled points as ``MaskRCNNConvUpsamplePointSupHead``)."""
        return {"mask": targets.grid_loss(self._logits(features, targets.regions)[:, None])}

    @torch.no_grad()
    def predict(self, features: Features, regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class."""
        if torch.compiler.is_compiling():
            return self._logits(features, regions)
        # 64 boxes at 28x28 take 50 MB a layer; at 224x224 one box takes as much.
        at_once = max(1, 64 * 28**2 // self.mask_size**2)
        return torch.cat([self._logits(features, part) for part in regions.chunks(at_once)])
