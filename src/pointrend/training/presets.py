"""Trainings for small machines by name: sized for a laptop unless the backbone is a ResNet-50."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pointrend.data.transforms import instance_training_transforms, training_transforms
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig
from pointrend.structures import numbered_names
from pointrend.training.config import TrainingConfig
from pointrend.training.options import PresetName
from pointrend.training.recipe import Recipe

BACKBONES = {"mobilenet": "mobilenet_v2", "resnet18": "resnet18", "resnet50": "resnet50"}
CROP = (256, 320)
SIZE = 320


def preset(name: PresetName, *, pretrained: bool = False) -> TrainingConfig:
    """The training of this name; its crops are 256 x 320, its short edge 320 pixels.

    Args:
        name: task, network and backbone.
        pretrained: the backbone will be filled: its norms are frozen and it learns at half the rate.
    """
    task = "instance" if name.startswith("instance") else "semantic"
    network = _instance(name, pretrained) if task == "instance" else _semantic(name, pretrained)
    transforms = (
        instance_training_transforms((SIZE,), 2 * SIZE) if task == "instance" else training_transforms(CROP)
    )
    recipe = Recipe(
        steps=1000,
        batch_size=8,
        optimizer="adamw",
        learning_rate=2e-4 if task == "instance" else 6e-4,
        backbone_factor=0.5 if pretrained else 1.0,
        warmup_steps=20,
        clip_gradient=10.0,
        state_every=500,
    )
    return TrainingConfig(name, "any", network, tuple(transforms.steps), recipe)


def _semantic(name: str, pretrained: bool) -> SemanticConfig:
    deeplab, large = "deeplab" in name, name.endswith("50")
    return SemanticConfig(
        numbered_names(2),
        backbone=_backbone(name, pretrained, output_stride=16 if deeplab else 32),
        preprocessing=_preprocessing(name),
        decoder="deeplab" if deeplab else "fpn",
        fpn_channels=256 if large else 128,
        decoder_channels=256 if deeplab else 128,
        point_rend=SemanticPointRendConfig(features=("res2",) if deeplab else ("p2",), residual=True),
    )


def _instance(name: str, pretrained: bool) -> InstanceConfig:
    large = name.endswith("50")
    return InstanceConfig(
        numbered_names(1),
        backbone=_backbone(name, pretrained),
        preprocessing=replace(_preprocessing(name), short_edge=SIZE, long_edge=2 * SIZE),
        fpn_channels=256 if large else 128,
        boxes=BoxHeadConfig() if large else BoxHeadConfig(width=512, samples=128),
        masks=MaskConfig(residual=True) if large else MaskConfig(residual=True, width=128, coarse_width=256),
    )


def _backbone(name: str, pretrained: bool, output_stride: Literal[16, 32] = 32) -> BackboneConfig:
    network = BACKBONES[name.rsplit("-", 1)[1]]
    return BackboneConfig(network, norm="frozen" if pretrained else "batch", output_stride=output_stride)


def _preprocessing(name: str) -> Preprocessing:
    if name.endswith("mobilenet"):  # TensorFlow's MobileNetV2 wants pixels in -1..1
        return Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3)
    return Preprocessing()
