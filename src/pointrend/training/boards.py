"""Where a training can be watched: TensorBoard where it is installed, Weights & Biases where it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pointrend.training.recipe import Recipe

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""


class Board(Protocol):
    """What the log needs of a board."""

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Losses, measures or scores after so many updates."""

    def pictures(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures by name."""

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

    def pictures(self, step: int, pictures: Mapping[str, Picture]) -> None:
        for name, picture in pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")

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

    def pictures(self, step: int, pictures: Mapping[str, Picture]) -> None:
        shown = {name: self.wandb.Image(picture) for name, picture in pictures.items()}
        self.run.log({"update": step, **shown})

    def close(self) -> None:
        self.run.finish()


def installed_boards(folder: Path | None) -> tuple[Board, ...]:
    """TensorBoard, where there is a folder and it is installed."""
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        return ()
    return (TensorBoard(folder / "tensorboard"),)
