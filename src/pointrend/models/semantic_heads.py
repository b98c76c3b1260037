"""Heads of semantic models: SemanticFPN (Kirillov et al., Panoptic Feature Pyramid Networks), DeepLabV3, and on top of
them PointRend's.

Shapes: B images, C classes, H W rows and columns of the finest level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from pointrend.core.point_rend import PointRend
from pointrend.core.selection import PointSampling, probability_margin_uncertainty
from pointrend.models.weight_init import msra_fill, normal_fill

DecoderNorm = Literal["GN", "BN"]
"""Group normalisation with 32 groups (Detectron2) or batch normalisation (MMSegmentation)."""


def conv_norm_relu(channels_in: int, channels_out: int, norm: DecoderNorm, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution without bias, a norm and a ReLU; He initialisation over the outputs."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    # 32 groups, or fewer where they would hold a single channel: torch refuses those on a map of one pixel.
    groups = math.gcd(32, max(1, channels_out // 2))
    layer = nn.GroupNorm(groups, channels_out) if norm == "GN" else nn.BatchNorm2d(channels_out)
    return nn.Sequential(conv, layer, nn.ReLU(inplace=True))


def _branch(stride: int, target: int, channels: int, width: int, norm: DecoderNorm) -> nn.Sequential:
    """From a level of one stride to the other: a convolution for each doubling or halving, and at least one."""
    doublings = round(math.log2(stride / target))
    layers: list[nn.Module] = []
    for number in range(max(1, abs(doublings))):
        step = 2 if doublings < 0 else 1
        layers.append(conv_norm_relu(channels if number == 0 else width, width, norm, step))
        if doublings > 0:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class SemanticFPNHead(nn.Module):
    """Brings every level to one stride by convolutions and bilinear doublings, sums, predicts.

    Args:
        strides: stride of each level by name, finest first: ``{"p2": 4, "p3": 8, ...}``. Without p2 the prediction
            has stride 8 (the paper's P3-P5).
        channels: of each level.
        num_classes: C.
        width: channels of the convolutions (128).
        norm: see :data:`DecoderNorm`.
        predictor_std: standard deviation of the last layer's first weights; None: He's, over the classes
            (Detectron2), which for few classes begins with large and wrong logits.
        stride: of the prediction; the finest level's if not given (as in the published models). Levels that are finer
            are halved by strided convolutions.

    Raises:
        ValueError: for another stride than that of a level.

    Detectron2 ``SemSegFPNHead``; MMSegmentation ``FPNHead``.
    """

    def __init__(
        self,
        strides: Mapping[str, int],
        channels: int,
        num_classes: int,
        *,
        width: int = 128,
        norm: DecoderNorm = "GN",
        predictor_std: float | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__()
        self.levels: Sequence[str] = tuple(strides)
        if stride is not None and stride not in strides.values():
            raise ValueError(
                f"coarse stride: expected that of a level, one of {sorted(strides.values())}, got {stride}"
            )
        self.stride = min(strides.values()) if stride is None else stride
        self.width = width
        self.branches = nn.ModuleDict()
        for level, own in strides.items():
            self.branches[level] = _branch(own, self.stride, channels, width, norm)
        self.predictor = nn.Conv2d(width, num_classes, 1)
        if predictor_std is None:
            msra_fill(self.predictor)
        else:
            normal_fill(self.predictor, predictor_std)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (B, channels, ...) -> logits (B, C, H, W) and the features (B, width, H, W) they come from."""
        total: Tensor | None = None
        for level in self.levels:
            branch = self.branches[level](features[level])
            if total is None:
                total = branch
                continue
            if branch.shape[-2:] != total.shape[-2:]:  # a map of 13 rows, doubled, against one of 25
                branch = F.interpolate(branch, size=total.shape[-2:], mode="bilinear", align_corners=False)
            total = total + branch
        assert total is not None
        return self.predictor(total), total


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
            ValueError: when training with one image: the pooled branch normalises over the batch alone.
        """
        deepest = features["res5"]
        if self.training and len(deepest) < 2:
            raise ValueError(
                "DeepLabV3 trains its batch norm on one pooled value per image: "
                "expected a batch of at least 2 images, got 1; use a larger batch"
            )
        last = self.conv(self.aspp(deepest))
        return self.predictor(last), last


@dataclass(frozen=True)
class SemanticPointRendConfig:
    """The point head of a semantic model and how it is used."""

    features: tuple[str, ...] = ("p2",)
    """Where fine features come from: "p2".."p5", "stem", "res2".."res5", "image" (the normalised pixels) and
    "coarse" (the coarse head's last features). The paper takes p2, or res2 for DeepLab."""
    width: int = 256
    depth: int = 3
    coarse_each_layer: bool = True
    residual: bool = False
    """Correct the interpolated coarse logits instead of predicting outright, see PointHead."""
    coarse_probabilities: bool = False
    """The point head sees the coarse prediction as probabilities, as the paper's text has it, instead of as logits."""
    positions: int = 0
    """Random directions of a positional encoding that the point head sees; 0: none."""
    uncertainty: Literal["logits", "probabilities"] = "logits"
    """What the margin of the two best classes is taken of; probabilities in the paper's text. They are ranked on
    (C, H, W) logits in memory."""
    sampling: PointSampling = field(default_factory=lambda: PointSampling(2048))
    """Points in training."""
    num_points: int = 8192
    """Points in each subdivision step."""
    subdivision_steps: int | None = None
    """Doublings of the coarse grid, as the published models count; what is missing to the image's size is then
    resized bilinearly. None: as many as needed, the last one exactly to the image's size."""
    full_resolution: bool = False
    """Where the network sees an image shrunk, subdivision goes on to the image's own size, with "image" and "stem" read
    from its own pixels; otherwise labels are interpolated from the network's size."""

    def build(self, channels: Mapping[str, int], num_classes: int) -> PointRend:
        """The module on maps with so many channels; ValueError for maps that there are not."""
        unknown = set(self.features) - set(channels)
        if unknown or not self.features:
            raise ValueError(f"point head features: expected some of {sorted(channels)}, got {self.features}")
        return PointRend(
            [channels[name] for name in self.features],
            num_classes,
            width=self.width,
            depth=self.depth,
            coarse_each_layer=self.coarse_each_layer,
            residual=self.residual,
            coarse_probabilities=self.coarse_probabilities,
            positions=self.positions,
            uncertainty=probability_margin_uncertainty if self.uncertainty == "probabilities" else None,
            sampling=self.sampling,
            num_points=self.num_points,
        )
