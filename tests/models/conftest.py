from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.structures import InstanceMasks, InstanceTarget


@pytest.fixture(scope="session")
def units(reference: Path) -> Callable[[str], Tensor]:
    """Inputs and outputs of Detectron2's functions by name."""
    path = reference / "detectron2" / "goldens" / "units.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    arrays = np.load(path)
    return lambda name: torch.from_numpy(arrays[name])


@pytest.fixture
def tiny_config() -> Callable[..., InstanceConfig]:
    """A detector of a fraction of a second, every candidate a detection."""

    def build(names=("disc", "square", "ring"), *, masks=None, **changes) -> InstanceConfig:
        return InstanceConfig(
            tuple(names),
            BackboneConfig("resnet18", "batch"),
            Preprocessing(short_edge=64, long_edge=128),
            fpn_channels=16,
            boxes=BoxHeadConfig(width=32, samples=32, score_threshold=0.0, max_detections=5),
            masks=MaskConfig(width=16, coarse_width=32, **{"mask_size": 56, **(masks or {})}),
            **changes,
        )

    return build


@pytest.fixture
def target() -> Callable[..., InstanceTarget]:
    """Boxes filled with their masks, on an image of some size."""

    def build(size, boxes, labels=None, crowd=None) -> InstanceTarget:
        masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[round(y1) : round(y2), round(x1) : round(x2)] = True
        count = len(boxes)
        return InstanceTarget(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels or [0] * count, dtype=torch.int64),
            InstanceMasks.from_dense(masks),
            torch.tensor(crowd or [False] * count, dtype=torch.bool),
        )

    return build
