"""Every head and decoder, tiny: `export` itself compares the file with the model, boxes or not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from pointrend.models.attached import attach
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.preprocessing import Preprocessing

pytestmark = pytest.mark.slow

BACKBONE = BackboneConfig("resnet18", "batch")
INSTANCE = InstanceConfig(
    ("disc", "square", "ring"),
    BACKBONE,
    Preprocessing(short_edge=64, long_edge=256, channel_order="BGR"),
    fpn_channels=16,
    boxes=BoxHeadConfig(width=32, score_threshold=0.0, max_detections=12),
    masks=MaskConfig(width=16, coarse_width=32, mask_size=56),
)
SEMANTIC = SemanticConfig(
    ("road", "sky", "person"),
    backbone=BACKBONE,
    fpn_channels=16,
    decoder_channels=16,
    point_rend=SemanticPointRendConfig(width=16, num_points=200),
)
POINTS = SEMANTIC.point_rend


def lively(model: nn.Module) -> nn.Module:
    """With weights that give scores and labels apart from one another."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) or getattr(module, "kernel_size", None) == (1, 1):
            nn.init.normal_(module.weight, std=2 * module.weight[0].numel() ** -0.5)
    return model.eval()


@pytest.mark.parametrize("head", ["pointrend", "coarse", "conv28", "implicit"])
def test_mask_heads(exporting, tmp_path, head) -> None:
    exporting(lively(InstanceSegmenter(replace(INSTANCE, mask_head=head))), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"residual": True},
        {"class_agnostic": True},
        {"coarse_probabilities": True},
        {"coarse_each_layer": False},
    ],
    ids=str,
)
def test_point_heads(exporting, tmp_path, changes) -> None:
    config = replace(INSTANCE, masks=replace(INSTANCE.masks, **changes))
    exporting(lively(InstanceSegmenter(config)), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "config",
    [
        replace(SEMANTIC, point_rend=None),
        replace(SEMANTIC, point_rend=replace(POINTS, subdivision_steps=1)),
        replace(SEMANTIC, point_rend=replace(POINTS, uncertainty="probabilities")),
        replace(SEMANTIC, decoder="deeplab", point_rend=replace(POINTS, features=("res2",))),
        replace(SEMANTIC, preprocessing=Preprocessing(short_edge=96, resize="cv2", divisor=64)),
    ],
    ids=["without points", "one step", "probabilities", "deeplab", "resized"],
)
def test_semantic_networks(exporting, tmp_path, config) -> None:
    exporting(lively(SemanticSegmenter(config)), tmp_path / "model.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_attached_network(exporting, tmp_path, suffix) -> None:
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    rend = SemanticPointRendConfig(features=(), width=16, residual=True, num_points=200, positions=8)
    exporting(lively(attach(network, classes=3, point_rend=rend)), tmp_path / f"model{suffix}")


def test_torch_export(exporting, tmp_path) -> None:
    exporting(lively(SemanticSegmenter(SEMANTIC)), tmp_path / "model.pt2")
    assert torch.export.load(tmp_path / "model.pt2").module() is not None
