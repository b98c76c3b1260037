"""The coarse semantic head of DeepLabV3: atrous spatial pyramid pooling on the last stage (arXiv 1706.05587).

Letters: B images, C classes, H W rows and columns of the stage (stride 16 or 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from pointrend.models.semantic_fpn import conv_norm_relu


class DeepLabV3Head(nn.Module):
    """torchvision's ASPP on res5, a 3x3 convolution and the classifier.

    Args:
        channels: of res5.
        num_classes: C.
        rates: dilations of the three 3x3 branches; 6, 12, 18 at output stride 16 and the double at 8.
        width: channels of every convolution (256).
    """

    def __init__(
        self, channels: int, num_classes: int, *, rates: Sequence[int] = (6, 12, 18), width: int = 256
    ) -> None:
        super().__init__()
        self.width = width
        self.aspp = ASPP(channels, list(rates), width)
        self.conv = conv_norm_relu(width, width, "BN")
        self.predictor = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """``features["res5"]`` (B, channels, H, W) -> logits (B, C, H, W) and the features (B, width, H, W) before.

        Raises:
            ValueError: when training with one picture: the pooled branch normalises over the batch alone.
        """
        deepest = features["res5"]
        if self.training and len(deepest) < 2:
            raise ValueError(
                "DeepLabV3 trains its batch norm on one pooled value per picture: "
                "expected a batch of at least 2 pictures, got 1; use a larger batch"
            )
        last = self.conv(self.aspp(deepest))
        return self.predictor(last), last
