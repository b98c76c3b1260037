"""Checkpoints to resume from: the state of a training in one file, written atomically.

A file holds weights, optimiser, loss scale, averaged weights, the number of updates done, torch's random state, and the
best score so far. The order of the images and all random choices of an update follow from its number (see
`training.data_loading`), so there is no state of the sampler or of workers to keep. Files are read with torch's
``weights_only``: they cannot run code.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pointrend.io import atomic_write
from pointrend.training.recipe import Recipe

FORMAT = "pointrend training 1"

# What may be another in a resumed training without making it another training.
FREE = frozenset(
    {"accumulate", "precision", "channels_last", "compile", "log_every", "evaluate_every", "save_every"}
    | {"draw_every", "state_every", "keep", "metric", "patience", "steps"}
)


class CheckpointError(OSError):
    """A checkpoint could not be written (no space, no permission); says which, and which one is the last good."""


@dataclass
class Training:
    """All that changes while a training runs."""

    model: nn.Module
    optimizer: Optimizer
    recipe: Recipe
    scaler: torch.amp.GradScaler | None = None
    """Of accelerate, with float16 only."""
    step: int = 0
    """Updates done."""
    best: float | None = None
    """Best score by the recipe's metric."""
    stale: int = 0
    """Evaluations since then."""
    average: AveragedModel | None = field(init=False)
    """The exponential moving average of the weights; None without one."""

    def __post_init__(self) -> None:
        self.average = None
        if self.recipe.average:
            average = get_ema_multi_avg_fn(self.recipe.average)
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
            self.average.n_averaged.fill_(
                1
            )  # it begins with the initial weights, not with those of the first update

    @property
    def class_names(self) -> list[str]:
        """Of the model; none where it does not name them."""
        return list(getattr(getattr(self.model, "config", None), "class_names", ()))

    @property
    def scored(self) -> nn.Module:
        """The model that is scored, drawn and saved: the averaged one, where there is one."""
        return self.model if self.average is None else self.average.module

    @torch.no_grad()
    def update_average(self) -> None:
        """Take in the weights as they are now; counts of batches are taken over as they are."""
        if self.average is None:
            return
        self.average.update_parameters(self.model)
        for mean, own in zip(self.average.module.buffers(), self.model.buffers(), strict=True):
            if not own.is_floating_point():
                mean.copy_(own)

    def keep_average(self) -> None:
        """Leave the averaged weights in the model for good."""
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())

    def content(self) -> dict[str, object]:
        """What a checkpoint holds: tensors, numbers, strings, lists and dictionaries."""
        return {
            "format": FORMAT,
            "recipe": json.dumps(asdict(self.recipe)),
            "class_names": self.class_names,
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.module.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
            "random": torch.get_rng_state(),
        }

    def load(self, content: Mapping[str, Any], source: str) -> None:
        """Go on where that checkpoint was written.

        Raises:
            ValueError: if it belongs to another recipe or another model; says what differs.
        """
        then, now = json.loads(content["recipe"]), json.loads(json.dumps(asdict(self.recipe)))
        differ = [
            f"{name}: {then.get(name)} then, {now[name]} now"
            for name in now
            if name not in FREE and then.get(name) != now[name]
        ]
        if differ:
            raise ValueError(
                f"{source}: this training was begun with another recipe, so it cannot be resumed with this one "
                f"({'; '.join(differ)}); take the same settings, or another output folder"
            )
        before = content.get("class_names", self.class_names)  # files of before had none
        if before != self.class_names:
            raise ValueError(
                f"{source}: this training was begun with other classes, or in another order: then "
                f"{', '.join(before)}, now {', '.join(self.class_names)}; take the same data, or another output folder"
            )
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{source}: this checkpoint is of another model ({error})") from error
        if self.average is not None:
            # Files from before torch's `AveragedModel` had no integers here; they are the model's own.
            self.average.module.load_state_dict({**content["model"], **content["average"]})
        if self.scaler is not None and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.step, self.best, self.stale = content["step"], content["best"], content["stale"]
        torch.set_rng_state(content["random"])

    def update_best(self, scores: Mapping[str, float]) -> bool:
        """Take note of an evaluation; whether it is the best so far by the recipe's metric.

        Raises:
            ValueError: if the metric is not among the scores.
        """
        metric = self.recipe.metric
        if metric is None:
            return False
        if metric not in scores:
            raise ValueError(f"metric: the evaluation gives {', '.join(scores)}, not {metric!r}")
        # NaN, where there was nothing to score, is no score to be beaten.
        better = not math.isnan(scores[metric]) and (self.best is None or scores[metric] > self.best)
        self.best, self.stale = (scores[metric], 0) if better else (self.best, self.stale + 1)
        return better

    @property
    def stalled(self) -> bool:
        """Whether the recipe's patience is at its end."""
        return 0 < self.recipe.patience <= self.stale


class Checkpoints:
    """The newest few checkpoints ``state-0001000.pt`` of a folder; none without one."""

    def __init__(self, folder: Path | None, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("state-*.pt")) if self.folder is not None else []

    def save(self, training: Training) -> None:
        """Write one, then delete those that are too many.

        Raises:
            CheckpointError: if it cannot be written; those before are untouched.
        """
        if self.folder is None:
            return
        path = self.folder / f"state-{training.step:07d}.pt"
        try:
            write_atomically(path, lambda file: torch.save(training.content(), file))
        except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
            good = self.paths()
            last = f"the last good one is {good[-1]}" if good else "there is none before it"
            raise CheckpointError(
                f"{path}: this checkpoint could not be written ({_reason(error)}); {last}. "
                "Make room, then resume the training"
            ) from error
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)

    def refuse_others(self) -> None:
        """Make sure that a new training finds no checkpoints, which it would mistake for its own.

        Raises:
            ValueError: if there are some.
        """
        if found := self.paths():
            raise ValueError(
                f"{self.folder}: has checkpoints of a training, up to {found[-1].name}; resume it (--resume), or take "
                "another folder, or delete them first"
            )

    def newest(self) -> tuple[dict[str, Any], Path] | None:
        """Content and path of the newest one that can be read; None if there is none.

        Raises:
            ValueError: if there are some, but none of them can be read.
        """
        problems = []
        for path in reversed(self.paths()):
            try:
                return _read(path), path
            except ValueError as error:
                problems.append(str(error))
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
        if problems:
            raise ValueError("no checkpoint can be read:\n  " + "\n  ".join(problems))
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a damaged file
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of a training ({FORMAT})")
    return content


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that appears under its name only when it is complete and on the disk."""
    with atomic_write(path, durable=True) as part, part.open("wb") as file:
        write(file)


def _reason(error: BaseException) -> str:
    """The OSError behind what torch raised, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
