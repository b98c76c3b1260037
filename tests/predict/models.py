"""Models that need no weights, and files to show them, good and broken; rows that a job has written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks


@dataclass
class Config:
    class_names: tuple[str, ...] = ("dark", "bright")
    palette: tuple[tuple[int, int, int], ...] = ((10, 20, 30), (200, 210, 220))


@dataclass
class Threshold:
    """A semantic model that calls pixels bright or dark; remembers the sizes of its batches."""

    config: Config = field(default_factory=Config)
    batches: list[int] = field(default_factory=list)

    def predict(self, images: Sequence[Tensor]) -> list[SemanticResult]:
        self.batches.append(len(images))
        if len({image.shape for image in images}) > 1:
            raise AssertionError("images of different sizes in one batch")
        labels = [(image.float().mean(0) > 127).to(torch.uint8) for image in images]
        return [SemanticResult(label, self.config.class_names, self.config.palette) for label in labels]


@dataclass
class Finder:
    """An instance model that finds the bright region, if there is one."""

    config: Config = field(default_factory=Config)

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        return [self._find(image) for image in images]

    def _find(self, image: Tensor) -> InstanceResult:
        bright = image.float().mean(0) > 127
        masks = InstanceMasks.from_dense(bright[None] if bright.any() else bright[None][:0])
        count = len(masks)
        x, y = masks.offsets[0].tolist() if count else (0, 0)
        box = [x, y, x + masks.windows[0].shape[1], y + masks.windows[0].shape[0]] if count else [0.0] * 4
        return InstanceResult(
            torch.tensor([box] * count, dtype=torch.float32).reshape(-1, 4),
            torch.ones(count, dtype=torch.int64),
            torch.full((count,), 0.75),
            masks,
            self.config.class_names,
        )


class Counting(Finder):
    """Remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        assert len({image.shape for image in images}) == 1
        self.batches.append(len(images))
        return super().predict(images)


class Broken(Finder):
    """Fails at the second image, as no image of the user's is to blame for."""

    seen = 0

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        self.seen += 1
        if self.seen == 2:
            raise KeyError("a bug")
        return super().predict(images)


def make_image(path: Path, size: tuple[int, int] = (24, 16), mode: str = "RGB", bright: bool = True) -> Path:
    """An image of this (width, height) with a bright rectangle at x 4..11, y 2..9."""
    array = np.full((size[1], size[0]), 20, dtype=np.uint8)
    if bright:
        array[2:10, 4:12] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path)
    return path


def corrupt(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\nthis is no image")
    return path


def shapes(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    """Of all parts, by image."""
    found: list[dict[str, Any]] = []
    for path in out.glob("part-*"):
        if path.suffix == ".parquet":
            found += pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        else:
            found += map(json.loads, path.read_text().splitlines())
    return sorted(found, key=lambda row: row["image"])
