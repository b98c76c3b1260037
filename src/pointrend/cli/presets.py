"""Networks that `pointrend train` builds by name; sized for small machines unless the backbone is a ResNet-50."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from pointrend.models.backbones import BackboneConfig
    from pointrend.models.inputs import Preprocessing
    from pointrend.models.instance import InstanceConfig
    from pointrend.models.semantic import SemanticConfig

PresetName = Literal[
    "semantic-fpn-mobilenet",
    "semantic-fpn-resnet18",
    "semantic-fpn-resnet50",
    "semantic-deeplab-mobilenet",
    "semantic-deeplab-resnet50",
    "instance-mobilenet",
    "instance-resnet18",
    "instance-resnet50",
]
PRESETS: tuple[str, ...] = get_args(PresetName)

BACKBONES = {"mobilenet": "mobilenet_v2", "resnet18": "resnet18", "resnet50": "resnet50"}


def task_of(preset: str) -> Literal["semantic", "instance"]:
    """What the preset segments."""
    return "instance" if preset.startswith("instance") else "semantic"


def semantic_config(
    preset: PresetName,
    class_names: tuple[str, ...],
    palette: tuple[tuple[int, int, int], ...],
    *,
    point_rend: bool,
    pretrained: bool,
) -> SemanticConfig:
    """The configuration of a semantic preset. Norms are frozen on a pretrained backbone and trained otherwise."""
    from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig

    deeplab, large = "deeplab" in preset, preset.endswith("50")
    rend = SemanticPointRendConfig(features=("res2",) if deeplab else ("p2",), residual=True)
    return SemanticConfig(
        class_names,
        palette,
        backbone=_backbone(preset, pretrained, output_stride=16 if deeplab else 32),
        preprocessing=_preprocessing(preset),
        decoder="deeplab" if deeplab else "fpn",
        fpn_channels=256 if large else 128,
        decoder_channels=256 if deeplab else 128,
        point_rend=rend if point_rend else None,
    )


def instance_config(
    preset: PresetName, class_names: tuple[str, ...], *, point_rend: bool, pretrained: bool, size: int
) -> InstanceConfig:
    """The configuration of an instance preset; without PointRend the paper's baseline, 4x conv with 28x28 masks."""
    from pointrend.models.box_head import BoxHeadConfig
    from pointrend.models.instance import InstanceConfig
    from pointrend.models.mask_heads.coarse import MaskConfig

    large = preset.endswith("50")
    return InstanceConfig(
        class_names,
        backbone=_backbone(preset, pretrained),
        preprocessing=_preprocessing(preset, short_edge=size, long_edge=2 * size),
        mask_head="pointrend" if point_rend else "conv28",
        fpn_channels=256 if large else 128,
        boxes=BoxHeadConfig() if large else BoxHeadConfig(width=512, samples=128),
        masks=MaskConfig(residual=True) if large else MaskConfig(residual=True, width=128, coarse_width=256),
    )


def _backbone(preset: str, pretrained: bool, output_stride: Literal[16, 32] = 32) -> BackboneConfig:
    from pointrend.models.backbones import BackboneConfig

    name: Any = BACKBONES[preset.rsplit("-", 1)[1]]
    return BackboneConfig(name, norm="frozen" if pretrained else "batch", output_stride=output_stride)


def _preprocessing(preset: str, short_edge: int | None = None, long_edge: int | None = None) -> Preprocessing:
    from pointrend.models.inputs import Preprocessing

    sizes = Preprocessing(short_edge=short_edge, long_edge=long_edge)
    if preset.endswith("mobilenet"):  # TensorFlow's MobileNetV2 wants pixels in -1..1
        return replace(sizes, mean=(127.5,) * 3, std=(127.5,) * 3)
    return sizes
