"""Every trained parameter takes part in every update: else DistributedDataParallel waits for its gradient for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import InstanceMasks, InstanceTarget, SemanticTarget

IMAGES = [torch.zeros(3, 40, 48, dtype=torch.uint8)] * 2


def without_gradient(model: nn.Module, targets: list) -> list[str]:
    sum(model.train().loss(IMAGES, targets).values()).backward()  # type: ignore[operator]
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("head", ["pointrend", "coarse", "conv28", "implicit"])
def test_a_detector_without_objects_has_gradients_everywhere(head: str) -> None:
    config = InstanceConfig(
        ("a", "b"),
        BackboneConfig("resnet18"),
        mask_head=head,  # type: ignore[arg-type]
        fpn_channels=8,
        boxes=BoxHeadConfig(width=16, samples=8),
        masks=MaskConfig(width=8, coarse_width=16),
    )
    none = torch.zeros(0, dtype=torch.int64)
    masks = InstanceMasks([], none.reshape(0, 2), (40, 48))
    target = InstanceTarget(torch.zeros(0, 4), none, masks, none.bool())
    assert without_gradient(InstanceSegmenter(config), [target] * 2) == []


@pytest.mark.parametrize("head", ["fpn", "deeplab"])
def test_images_without_a_labelled_pixel_give_gradients_everywhere(head: str) -> None:
    features = ("p2",) if head == "fpn" else ("res2",)
    config = SemanticConfig(
        ("a", "b"),
        backbone=BackboneConfig("resnet18", output_stride=32 if head == "fpn" else 16),
        decoder=head,  # type: ignore[arg-type]
        fpn_channels=8,
        decoder_channels=8,
        point_rend=SemanticPointRendConfig(features=features, width=8),
    )
    target = SemanticTarget(torch.full((40, 48), 255, dtype=torch.uint8))
    assert without_gradient(SemanticSegmenter(config), [target] * 2) == []
    assert without_gradient(SemanticSegmenter(replace(config, point_rend=None)), [target] * 2) == []
