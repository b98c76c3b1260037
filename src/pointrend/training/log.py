"""What a training writes down as it goes: ``log.jsonl`` always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pointrend.training.recipe import Recipe


class Log:
    """The recipe, then one JSON object a line, each written whole and flushed to the disk.

    A resumed training goes on in the same file, after a line {"resumed": step}. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, recipe: Recipe, *, resumed: int = 0) -> None:
        self.path: Path | None = None
        self.board: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        if resumed:
            self.write({"resumed": resumed, "time": time.time()})
        else:
            self.path.write_text("")
            self.write({"recipe": asdict(recipe), "torch": torch.__version__, "time": time.time()})
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line; numbers with a "step" go to TensorBoard too."""
        if self.path is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self.board is not None and "step" in entry:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self.board is not None:
            self.board.close()
