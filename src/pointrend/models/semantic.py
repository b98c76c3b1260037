"""Semantic segmentation with PointRend: the whole image is one region.

    image -> backbone (+ FPN) -> coarse logits at stride 4, 8 or 16 -> subdivision with the point head -> labels

Shapes: B images, C classes, H W rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pointrend.core.losses import Normalize
from pointrend.core.point_rend import PointRend
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import choose_config, in_own_precision, prepared_backbone
from pointrend.models.feature_maps import FeaturePyramid
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic_heads import (
    DecoderNorm,
    DeepLabV3Head,
    SemanticFPNHead,
    SemanticPointRendConfig,
)
from pointrend.models.semantic_model import LabelMapConfig, SemanticModel


@dataclass(frozen=True)
class SemanticConfig(LabelMapConfig):
    """Everything that is needed to build a :class:`SemanticSegmenter`."""

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    decoder: Literal["fpn", "deeplab"] = "fpn"
    levels: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    """Pyramid levels that the coarse head sees; ("p3", "p4", "p5") predicts at stride 8."""
    coarse_stride: int | None = None
    """Pixels per cell of the coarse logits of "fpn"; None: the finest level's. 8 with all four levels leaves outlines
    to the points (docs/results.md)."""
    fpn_channels: int = 256
    decoder_channels: int = 128
    """Channels of the coarse head; 256 in DeepLabV3."""
    decoder_norm: DecoderNorm = "GN"
    predictor_std: float | None = None
    """Standard deviation of the coarse head's last layer before training; None: as in Detectron2."""
    rates: tuple[int, ...] = (6, 12, 18)
    """Dilations of DeepLab's ASPP."""
    freeze_stages: int = 0
    """First stages of the backbone that are not trained; 2 = stem and res2."""
    loss_normalize: Normalize = "valid"
    """Mean over labelled pixels and points, or over all ("all", MMSegmentation)."""
    point_rend: SemanticPointRendConfig | None = field(default_factory=SemanticPointRendConfig)
    """None: the coarse prediction, interpolated."""


class SemanticSegmenter(SemanticModel):
    """A backbone, a decoder (SemanticFPN or DeepLabV3) and PointRend on top of them.

    Args:
        config: everything; or, for the usual network, ``classes`` and ``backbone``.
        classes: names of the classes, or how many there are.
        backbone: "resnet50" if not given.
        pretrained: fill the backbone with ImageNet weights: torchvision's (True), or those that
            `pointrend.zoo.fill_backbone` finds under this name or path.

    >>> SemanticSegmenter(classes=("background", "person"), backbone="resnet18").config.num_classes
    2
    """

    config: SemanticConfig

    def __init__(
        self,
        config: SemanticConfig | None = None,
        *,
        classes: Sequence[str] | int | None = None,
        backbone: str | None = None,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        config = choose_config(SemanticConfig, config, classes, backbone)
        if config.num_classes < 2:
            raise ValueError(
                f"class_names: expected at least two exclusive classes, got {config.class_names}"
            )
        self.config = config
        self.backbone = prepared_backbone(config, pretrained)
        channels = {"image": 3, **self.backbone.channels}
        self.fpn: nn.Module | None = None
        self.decoder: SemanticFPNHead | DeepLabV3Head
        levels = ("p2", "p3", "p4", "p5")
        fine = config.point_rend.features if config.point_rend is not None else ()
        if config.decoder == "fpn" or set(fine) & set(levels):
            self.fpn = FeaturePyramid(self.backbone.channels, channels=config.fpn_channels)
            channels |= dict.fromkeys(levels, config.fpn_channels)
        if config.decoder == "fpn":
            strides = {level: self.backbone.strides[f"res{level[1:]}"] for level in levels}
            unknown = set(config.levels) - set(strides)
            if unknown or not config.levels:
                raise ValueError(f"levels: expected some of {levels}, got {config.levels}")
            self.decoder = SemanticFPNHead(
                {level: strides[level] for level in config.levels},
                config.fpn_channels,
                config.num_classes,
                width=config.decoder_channels,
                norm=config.decoder_norm,
                predictor_std=config.predictor_std,
                stride=config.coarse_stride,
            )
        else:
            if config.coarse_stride is not None:
                raise ValueError(
                    f"coarse_stride: expected None, got {config.coarse_stride}: DeepLabV3 predicts at its "
                    "backbone's output_stride"
                )
            self.decoder = DeepLabV3Head(
                channels["res5"], config.num_classes, rates=config.rates, width=config.decoder_channels
            )
        channels["coarse"] = config.decoder_channels
        self.point_rend: PointRend | None = None
        if config.point_rend is not None:
            self.point_rend = config.point_rend.build(channels, config.num_classes)

    def with_output_stride(self, stride: Literal[8, 16, 32]) -> SemanticSegmenter:
        """The same weights in a network whose deepest maps have another stride, in evaluation mode.

        A DeepLabV3 that was trained at 16 predicts better, and slower, at 8 (paper, Table 6): res4 and res5 are dilated
        instead of strided, and ASPP looks as far in pixels as before.

        Raises:
            ValueError: for SemanticFPN, whose pyramid has fixed strides.
        """
        if self.config.decoder != "deeplab":
            raise ValueError(
                "output_stride: SemanticFPN has a pyramid of fixed strides; this is for DeepLabV3"
            )
        before = self.config.backbone.output_stride
        doublings = int(math.log2(before / stride))
        rend = self.config.point_rend
        if rend is not None and rend.subdivision_steps is not None:
            steps = max(0, rend.subdivision_steps - doublings)
            rend = replace(rend, subdivision_steps=steps)
        config = replace(
            self.config,
            backbone=replace(self.config.backbone, output_stride=stride),
            rates=tuple(max(1, int(rate * before / stride)) for rate in self.config.rates),
            point_rend=rend,
        )
        other = SemanticSegmenter(config).to(self.device)
        other.load_state_dict(self.state_dict())
        other.origin = dict(self.origin)
        return other.eval()

    @in_own_precision
    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> maps by name: "image", "stem", "res2".., and with an FPN "p2".."p5"."""
        maps: dict[str, Tensor] = {"image": batch, **self.backbone(batch)}
        if self.fpn is not None:
            maps |= self.fpn(maps)
        return maps

    @in_own_precision
    def coarse(self, maps: dict[str, Tensor]) -> Tensor:
        """Coarse logits (B, C, h, w) float32; adds the head's last features to ``maps`` as "coarse"."""
        logits, maps["coarse"] = self.decoder(maps)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    @property
    def device(self) -> torch.device:
        return self.decoder.predictor.weight.device

    @property
    def layers_at_points(self) -> dict[str, tuple[nn.Module | None, int]]:
        return {**super().layers_at_points, "stem": (self.backbone.get_submodule("stem"), 2)}

    @property
    def _channels_per_pixel(self) -> float:
        return self.config.fpn_channels / 16 if self.fpn is not None else 0.0
