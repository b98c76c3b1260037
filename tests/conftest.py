"""What several tests share: a fixed seed, and the folders of real data and of the originals' stored outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _bfloat16_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with a unit for bfloat16, whatever this one has."""
    monkeypatch.setattr("pointrend.models.devices.cpu_features", lambda: frozenset({"avx512_bf16"}))


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT / default)
    if not folder.is_dir():
        pytest.skip(f"{variable} names no folder and {default} is not beside the checkout")
    return folder.resolve()


@pytest.fixture(scope="session")
def reference() -> Path:
    """Stored outputs of Detectron2 and MMSegmentation with deterministic weights."""
    return _folder("POINTREND_REFERENCE", "../shared/reference")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and metric samples."""
    return _folder("POINTREND_DATA", "../shared/data")
