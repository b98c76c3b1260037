"""Batches for the training loop: seeded draw by draw, from any update on, and in spite of a few broken pictures."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pointrend.data.loading import collate
from pointrend.structures import Sample
from pointrend.training.recipe import Recipe
from pointrend.training.sampler import Draw, PartSampler, Plan, derive_seed

Batch = tuple[list[Tensor], list[Any], list[Any]]
"""Pictures (3, h, w) uint8, their targets, and the samples they came from (for naming a bad one)."""


class Pictures(Protocol):
    """What is trained on: `Sample`s by index, random changes (by torch's generator) already made."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class TooManyBroken(ValueError):
    """More pictures could not be read than the training tolerates; names them."""


class Drawn(NamedTuple):
    """A sample, and what was wrong with the pictures that were drawn before it in its place."""

    sample: Sample
    broken: tuple[tuple[int, str], ...]


class SeededDraws(Dataset[Drawn]):
    """Pictures by draw: the random changes depend on (seed, number of the draw) alone.

    In place of a picture that cannot be read (ValueError or OSError) another one is drawn, which depends on nothing
    else either. After ten in a row the last error is raised.
    """

    ATTEMPTS = 10

    def __init__(self, pictures: Pictures, seed: int) -> None:
        self.pictures = pictures
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Drawn:
        number, index = draw
        broken: list[tuple[int, str]] = []
        while True:
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(derive_seed(self.seed, number, index))
                    return Drawn(self.pictures[index], tuple(broken))
            except (ValueError, OSError) as error:
                broken.append((index, str(error)))
                if len(broken) == self.ATTEMPTS:
                    raise TooManyBroken(
                        f"{len(broken)} pictures in a row cannot be read, the last: {error}"
                    ) from error
                index = derive_seed(self.seed, number, len(broken), -1) % len(self.pictures)


def _collate(drawn: list[Drawn]) -> tuple[Batch, list[tuple[int, str]]]:
    return collate([item.sample for item in drawn]), [note for item in drawn for note in item.broken]


def _leave_signals_to_the_training(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of a job; workers have to go on till the checkpoint is
    written. They end with the loader, or when they miss their parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class TrainingLoader:
    """The batches of a training, endless; the loop asks for those of its process, from the update it starts at.

    Args:
        pictures: what to train on.
        recipe: batch size, parts, seed and grouping.
        workers: processes that read pictures beside the training; what they read does not depend on them.
        wide: for each picture whether it is wider than tall; found out if not given, see `wide_pictures`.
        tolerate: different pictures that may be unreadable, in each process; 1 % of them, or 5, if not given. Each is
            named in a warning; another one takes its place.
    """

    def __init__(
        self,
        pictures: Pictures,
        recipe: Recipe,
        *,
        workers: int = 0,
        wide: Sequence[bool] | None = None,
        tolerate: int | None = None,
    ) -> None:
        self.pictures = pictures
        self.recipe = recipe
        self.workers = workers
        self.wide = None
        if recipe.group_by_aspect:
            self.wide = wide_pictures(pictures) if wide is None else wide
        self.tolerate = max(5, len(pictures) // 100) if tolerate is None else tolerate
        self.broken: dict[int, str] = {}
        """What was wrong with each picture that could not be read, by index."""

    def batches(self, first_update: int = 0, *, rank: int = 0, processes: int = 1) -> Iterator[Batch]:
        """The parts of this process, `recipe.accumulate` for each update, from `first_update` on.

        Raises:
            ValueError: if the pictures of an update cannot be shared out evenly, or there is none.
            TooManyBroken: while reading.
        """
        parts = processes * self.recipe.accumulate
        plan = Plan(len(self.pictures), self.recipe.batch_size, parts, self.recipe.seed, self.wide)
        loader: DataLoader[Any] = DataLoader(
            SeededDraws(self.pictures, self.recipe.seed),
            batch_sampler=PartSampler(plan, first_update=first_update, rank=rank, processes=processes),
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_leave_signals_to_the_training,
        )
        return self._watched(iter(loader))

    def _watched(self, parts: Iterator[tuple[Batch, list[tuple[int, str]]]]) -> Iterator[Batch]:
        for batch, broken in parts:
            for index, what in broken:
                if index not in self.broken:
                    self.broken[index] = what
                    warnings.warn(f"left out a picture that cannot be read: {what}", stacklevel=2)
            if len(self.broken) > self.tolerate:
                some = "\n  ".join(list(self.broken.values())[:10])
                raise TooManyBroken(
                    f"{len(self.broken)} of {len(self.pictures)} pictures cannot be read, more than the "
                    f"{self.tolerate} tolerated; mend or remove them:\n  {some}"
                )
            yield batch


def wide_pictures(pictures: Any) -> list[bool] | None:
    """Whether each picture is wider than tall, from a COCO file's sizes; None where that takes reading all."""
    if not hasattr(pictures, "file") or not hasattr(pictures, "image_ids"):
        return None
    known = pictures.file.pictures
    return [known[number].width >= known[number].height for number in pictures.image_ids]
