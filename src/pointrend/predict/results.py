"""What comes out of predicting a file: a prediction, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pointrend.results import Result


@dataclass(frozen=True)
class Prediction:
    """One image and what was found in it."""

    path: Path | str
    """Its file, or its address."""
    image: Tensor
    """(3, H, W) uint8 RGB, upright."""
    result: Result
    """In the pixels of `image`."""
    number: int
    """Its place among the images that were found, from 0."""


@dataclass(frozen=True)
class Failure:
    """A file without a prediction, and why."""

    path: Path | str
    reason: str


@dataclass(frozen=True)
class Report:
    """What a run over files did."""

    predicted: tuple[Path | str, ...]
    """Images with a prediction."""
    failures: tuple[Failure, ...]
    """The others."""
    out: Path
    """The folder that was written to."""
