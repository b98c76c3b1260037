"""What a training writes down as it goes: ``log.jsonl`` always, and boards that draw it, where they are wanted."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pointrend.io import write_png
from pointrend.training.recipe import Recipe

MEASURES = (
    "learning_rate",
    "gradient_norm",
    "seconds",
    "data_seconds",
    "memory_gib",
    "remaining_seconds",
)
"""What the entry of an update has beside its losses: the gradient's norm before it was clipped, seconds of the whole
update, of them those spent waiting for images, the most memory taken so far, and the seconds left at the mean speed
so far."""


class Log:
    """The recipe, then one JSON object a line, each written whole and flushed to the disk.

    A resumed training goes on in the same file, after a line {"resumed": step}. Without a folder nothing is written.
    """

    def __init__(
        self, folder: Path | None, recipe: Recipe, *, resumed: int = 0, boards: Sequence[Board] = ()
    ) -> None:
        self.folder = folder
        self.boards = tuple(boards)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if resumed:
            self.write({"resumed": resumed, "time": time.time()})
        else:
            (folder / "log.jsonl").write_text("")
            self.write({"recipe": asdict(recipe), "torch": torch.__version__, "time": time.time()})

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line, where numbers that are NaN or infinite are null; those with a "step" go to the boards too."""
        if self.folder is not None:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({k: _plain(v) for k, v in entry.items()}, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        numbers = {name: v for name, v in entry.items() if isinstance(v, (int, float)) and name != "step"}
        for board in self.boards if "step" in entry else ():
            board.numbers(entry["step"], numbers)

    def draw(self, step: int, images: Mapping[str, Image]) -> None:
        """Images by name, (H, W, 3) uint8: to the boards, and to ``images/NAME-0001000.png``."""
        for name, image in images.items():
            if self.folder is not None:
                write_png(image, self.folder / "images" / f"{name}-{step:07d}.png")
        for board in self.boards:
            board.images(step, images)

    def close(self) -> None:
        """Flush what boards hold back."""
        for board in self.boards:
            board.close()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Pace:
    """How fast updates go, evaluations and checkpoints between them included."""

    def __init__(self, done: int, steps: int) -> None:
        self.first, self.steps = done, steps
        self.started = time.perf_counter()

    def remaining(self, done: int) -> float:
        """Seconds left after so many updates."""
        mean = (time.perf_counter() - self.started) / max(1, done - self.first)
        return mean * (self.steps - done)


def peak_memory(device: torch.device) -> float:
    """The most memory taken so far, in GiB: of the GPU's by tensors, or of the machine's by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # type: ignore[import-untyped]

        return float(psutil.Process().memory_info().rss) / 2**30
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""


class Board(Protocol):
    """What the log needs of a board."""

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Losses, measures or scores after so many updates."""

    def images(self, step: int, images: Mapping[str, Image]) -> None:
        """Images by name."""

    def close(self) -> None:
        """Write what was held back."""


class TensorBoard:
    """Events in a folder; ``tensorboard --logdir`` shows them."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, Image]) -> None:
        for name, image in images.items():
            self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of a project at Weights & Biases; a resumed training goes on in the same run.

    Raises:
        ValueError: if the package is not installed.
    """

    def __init__(self, project: str, folder: Path, recipe: Recipe) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ValueError("Weights & Biases: the package is missing; pip install 'pointrend[wandb]'")
        import wandb  # type: ignore[import-not-found]

        self.wandb: Any = wandb
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "wandb-run.txt"
        name = known.read_text().strip() if known.is_file() else None
        self.run: Any = wandb.init(
            project=project, dir=str(folder), id=name, resume="allow", config=asdict(recipe)
        )
        known.write_text(self.run.id)
        # A checkpoint may lie before the last step that was logged, which W&B's own counter would refuse.
        self.run.define_metric("update")
        self.run.define_metric("*", step_metric="update")

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log({"update": step, **numbers})

    def images(self, step: int, images: Mapping[str, Image]) -> None:
        shown = {name: self.wandb.Image(image) for name, image in images.items()}
        self.run.log({"update": step, **shown})

    def close(self) -> None:
        self.run.finish()


def installed_boards(folder: Path | None) -> tuple[Board, ...]:
    """TensorBoard, where there is a folder and it is installed."""
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        return ()
    return (TensorBoard(folder / "tensorboard"),)
