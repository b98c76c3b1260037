from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pointrend.core import PointSampling

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # its scripts import one another
from frozen_labels import LEVELS, Heads


@pytest.mark.parametrize("strategy", ["biased", "labelled"])
def test_heads_learn_from_single_pixels_and_padding_is_cut(strategy: str) -> None:
    torch.manual_seed(0)
    model = Heads(8, 3, PointSampling(50, strategy=strategy))  # type: ignore[arg-type]
    maps = {
        level: torch.randn(2, 8, 64 // s, 64 // s) for level, s in zip(LEVELS, (4, 8, 16, 16), strict=True)
    }
    labels = torch.full((2, 48, 40), 255)
    assert model(maps, (48, 40))[0].shape == (2, 3, 12, 10)
    labels[:, 5, 7] = 1
    model.loss(maps, labels).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    gradients = [parameter.grad.clone() for parameter in model.coarse.parameters()]
    model.zero_grad()
    labels[:, 20, 20] = 2
    model.loss(maps, labels).backward()
    assert any((one != two.grad).any() for one, two in zip(gradients, model.coarse.parameters(), strict=True))
