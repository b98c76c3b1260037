"""What several tests share: a fixed seed, and the folders of real data and of the originals' stored outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import DATA, REFERENCE


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _bfloat16_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with a unit for bfloat16, whatever this one has."""
    monkeypatch.setattr("pointrend.models.devices.cpu_features", lambda: frozenset({"avx512_bf16"}))


def _folder(path: Path, variable: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path} is not there; set {variable}")
    return path.resolve()


@pytest.fixture(scope="session")
def reference() -> Path:
    """Stored outputs of Detectron2 and MMSegmentation with deterministic weights."""
    return _folder(REFERENCE, "POINTREND_REFERENCE")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and metric samples."""
    return _folder(DATA, "POINTREND_DATA")
