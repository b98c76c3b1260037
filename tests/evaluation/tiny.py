"""Tiny models and images for tests of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import pointrend
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticPointRendConfig

SIZE = (40, 50)


def semantic_model(file: Path, names: tuple[str, ...] = ("sky", "road"), seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = pointrend.SemanticConfig(
        names,
        backbone=BackboneConfig("resnet18"),
        fpn_channels=8,
        decoder_channels=16,
        point_rend=SemanticPointRendConfig(width=8, num_points=32),
    )
    pointrend.save(pointrend.SemanticSegmenter(config), file)
    return str(file)


def instance_model(file: Path, names: tuple[str, ...] = ("cat", "oven"), head: Any = "pointrend") -> str:
    torch.manual_seed(0)
    config = pointrend.InstanceConfig(
        names,
        BackboneConfig("resnet18", "batch"),
        Preprocessing(short_edge=64, long_edge=128),
        mask_head=head,
        fpn_channels=8,
        boxes=BoxHeadConfig(width=16, score_threshold=0.0, max_detections=4),
        masks=MaskConfig(width=8, coarse_width=16, mask_size=28, num_points=49),
    )
    pointrend.save(pointrend.InstanceSegmenter(config), file)
    return str(file)


def photo(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
