"""Exported files (`.onnx`, OpenVINO's `.xml`) as models for `Predictor`, `pointrend predict` and `pointrend eval`.

They predict and nothing else: what shows points, trains or changes a network needs the checkpoint that was exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pointrend.preprocessing import Preprocessing
from pointrend.results import InstanceResult, Result, SemanticResult
from pointrend.runtime import InstanceModel, SemanticModel, load
from pointrend.runtime.model import Instances
from pointrend.structures import RGB, InstanceMasks


@dataclass(frozen=True)
class ExportedConfig:
    """What the file says about itself."""

    class_names: tuple[str, ...]
    palette: tuple[RGB, ...]
    preprocessing: Preprocessing
    file: str
    """Name, size and time: what tells one file from another."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class ExportedSegmenter:
    """A file of `pointrend export`, run by onnxruntime or OpenVINO on the device that these choose.

    Raises:
        FileNotFoundError, ValueError, ImportError: as of :func:`pointrend.runtime.load`.
    """

    task: Literal["semantic", "instance"]

    def __init__(self, path: str | Path) -> None:
        self.runtime = load(path)
        stat = Path(path).stat()
        self.task = "instance" if isinstance(self.runtime, InstanceModel) else "semantic"
        self.config = ExportedConfig(
            self.runtime.class_names,
            tuple((int(r), int(g), int(b)) for r, g, b in self.runtime.palette),
            self.runtime.preprocessing,
            f"{Path(path).name} {stat.st_size} {stat.st_mtime_ns}",
        )
        self.origin: dict[str, object] = {"licence": self.runtime.metadata.get("licence", "")}
        self.device = torch.device("cpu")

    def predict(self, images: Sequence[Tensor]) -> list[Result]:
        """A result for each image uint8 (3, H, W) RGB, one after the other."""
        return [self._predict(image) for image in images]

    def to(self, device: torch.device | str) -> ExportedSegmenter:
        """Itself: its runtime chose a device when the file was opened."""
        return self

    def eval(self) -> ExportedSegmenter:
        """Itself."""
        return self

    def optimize(self, *options: object, **more: object) -> ExportedSegmenter:
        """ValueError: an exported file has its precision already."""
        raise ValueError("optimize: expected a checkpoint; an exported file is run as it was written")

    def _predict(self, image: Tensor) -> Result:
        pixels, runtime = image.permute(1, 2, 0).contiguous().cpu().numpy(), self.runtime
        found = runtime.find(pixels) if isinstance(runtime, InstanceModel) else runtime.predict(pixels)
        return as_result(runtime, found)


def as_result(model: SemanticModel | InstanceModel, found: np.ndarray | Instances) -> Result:
    """What a file's runtime gave, a label map or objects, as a result in torch."""
    if not isinstance(found, Instances):
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in model.palette)
        return SemanticResult(torch.from_numpy(found), model.class_names, palette)
    windows = [torch.from_numpy(window) for window in found.windows]
    offsets = torch.tensor(found.offsets, dtype=torch.int64).reshape(-1, 2)
    return InstanceResult(
        torch.from_numpy(found.boxes),
        torch.from_numpy(found.labels),
        torch.from_numpy(found.scores),
        InstanceMasks(windows, offsets, found.image_size),
        model.class_names,
    )
