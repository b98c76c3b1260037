"""What a training logs: ``log.jsonl`` always, TensorBoard and Weights & Biases through accelerate's trackers."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from accelerate.utils import is_tensorboard_available

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
    """The recipe, then one JSON object a line, each written at once and flushed to the disk.

    A resumed training goes on in the same file, after a line {"resumed": step}. Without a folder nothing is written.
    """

    def __init__(
        self,
        folder: Path | None,
        recipe: Recipe,
        *,
        resumed: int = 0,
        trackers: Sequence[GeneralTracker] = (),
    ) -> None:
        self.folder = folder
        self.trackers = tuple(trackers)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if resumed:
            self.write({"resumed": resumed, "time": time.time()})
        else:
            (folder / "log.jsonl").write_text("")
            self.write({"recipe": asdict(recipe), "torch": torch.__version__, "time": time.time()})

    def write(self, entry: Mapping[str, object]) -> None:
        """One line, where numbers that are NaN or infinite are null; those with a "step" go to the trackers too."""
        if self.folder is not None:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({k: _plain(v) for k, v in entry.items()}, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        numbers = {name: v for name, v in entry.items() if isinstance(v, (int, float)) and name != "step"}
        for tracker in self.trackers if "step" in entry else ():
            tracker.log(numbers, step=entry["step"])

    def draw(self, step: int, images: Mapping[str, Image]) -> None:
        """Images by name, (H, W, 3) uint8: to the trackers, and to ``images/NAME-0001000.png``."""
        for name, image in images.items():
            if self.folder is not None:
                write_png(image, self.folder / "images" / f"{name}-{step:07d}.png")
        for tracker in self.trackers:
            tracker.log_images({name: [image] for name, image in images.items()}, step=step)

    def close(self) -> None:
        """Let the trackers write what they hold back."""
        for tracker in self.trackers:
            tracker.finish()


def _plain(value: object) -> object:
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


Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""


class _TensorBoard(TensorBoardTracker):
    def log_images(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        stacked = {name: np.stack(images) for name, images in values.items()}
        super().log_images(stacked, step, dataformats="NHWC", **options)


class _WeightsAndBiases(WandBTracker):
    """A resumed training goes on in the same run."""

    def __init__(self, project: str, folder: Path, recipe: Recipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.known = folder / "wandb-run.txt"
        run = self.known.read_text().strip() if self.known.is_file() else None
        super().__init__(project, dir=str(folder), id=run, resume="allow", config=asdict(recipe))

    def begin(self) -> None:
        """After the run has begun."""
        self.known.write_text(self.run.id)
        # A checkpoint may lie before the last step that was logged, which W&B's own counter would refuse.
        self.run.define_metric("update")
        self.run.define_metric("*", step_metric="update")

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        super().log({"update": step, **values}, **options)


def open_trackers(
    folder: Path | None, recipe: Recipe, *, wandb: str | None = None
) -> tuple[GeneralTracker, ...]:
    """TensorBoard in the folder, where it is installed, and the project of Weights & Biases, if one is named.

    Call it after the processes have been joined (`processes.create_accelerator`), in the first of them.

    Raises:
        ValueError: Weights & Biases is asked for and not installed, or there is no folder.
    """
    found: list[GeneralTracker] = []
    if folder is not None and is_tensorboard_available():
        found.append(_TensorBoard("tensorboard", str(folder)))
    if wandb is not None:
        require_wandb()
        if folder is None:
            raise ValueError("wandb: expected an output folder, which remembers the run")
        found.append(_WeightsAndBiases(wandb, folder, recipe))
    for tracker in found:
        if hasattr(tracker, "start"):  # accelerate's older versions start when they are made
            tracker.start()
        if isinstance(tracker, _WeightsAndBiases):
            tracker.begin()
    return tuple(found)


def require_wandb() -> None:
    """Raise a ValueError that says what to install, where Weights & Biases is missing."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError("Weights & Biases: the package is missing; pip install 'pointrend[wandb]'")
