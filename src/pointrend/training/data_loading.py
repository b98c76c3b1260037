"""Batches for the training loop: seeded draw by draw, from any update on, and in spite of a few broken images; updates
that have nothing to learn from are noticed."""

from __future__ import annotations

import hashlib
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pointrend.data.image_io import Batch, collate
from pointrend.structures import IGNORE_LABEL, Dataset, InstanceTarget, Sample, Samples, SemanticTarget
from pointrend.training.recipe import Recipe


class TooManyBroken(ValueError):
    """More images could not be read than the training tolerates; names them."""


class Drawn(NamedTuple):
    """A sample, and what was wrong with the images that were drawn before it in its place."""

    sample: Sample
    broken: tuple[tuple[int, str], ...]


class SeededDraws(TorchDataset[Drawn]):
    """Images by draw: the random changes depend on (seed, number of the draw) alone.

    In place of an image that cannot be read (ValueError or OSError) another one is drawn, which depends on nothing
    else either. After ten in a row the last error is raised.
    """

    ATTEMPTS = 10

    def __init__(self, images: Samples, seed: int) -> None:
        self.images = images
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Drawn:
        number, index = draw
        broken: list[tuple[int, str]] = []
        while True:
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(derive_seed(self.seed, number, index))
                    return Drawn(self.images[index], tuple(broken))
            except (ValueError, OSError) as error:
                broken.append((index, str(error)))
                if len(broken) == self.ATTEMPTS:
                    raise TooManyBroken(
                        f"{len(broken)} images in a row cannot be read, the last: {error}"
                    ) from error
                index = derive_seed(self.seed, number, len(broken), -1) % len(self.images)


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
        images: what to train on.
        recipe: batch size, parts, seed and grouping.
        workers: processes that read images beside the training; what they read does not depend on them.
        tolerate: different images that may be unreadable, in each process; 1 % of them, or 5, if not given. Each is
            named in a warning; another one takes its place.
    """

    def __init__(
        self,
        images: Samples,
        recipe: Recipe,
        *,
        workers: int = 0,
        tolerate: int | None = None,
    ) -> None:
        self.images = images
        self.recipe = recipe
        self.workers = workers
        self.wide = wide_images(images) if recipe.group_by_aspect else None
        self.tolerate = max(5, len(images) // 100) if tolerate is None else tolerate
        self.broken: dict[int, str] = {}
        """What was wrong with each image that could not be read, by index."""

    def batches(
        self, first_update: int = 0, *, rank: int = 0, processes: int = 1
    ) -> Generator[Batch, None, None]:
        """The parts of this process, `recipe.accumulate` for each update, from `first_update` on.

        To be closed by who ends early: workers that nobody closes keep a failed process from ending.

        Raises:
            ValueError: if the images of an update cannot be shared out evenly, or there is none.
            TooManyBroken: while reading.
        """
        parts = processes * self.recipe.accumulate
        plan = Plan(len(self.images), self.recipe.batch_size, parts, self.recipe.seed, self.wide)
        loader: DataLoader[Any] = DataLoader(
            SeededDraws(self.images, self.recipe.seed),
            batch_sampler=plan.parts_from(first_update, rank=rank, processes=processes),
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_leave_signals_to_the_training,
        )
        return self._watched(iter(loader))

    def _watched(self, parts: Iterator[tuple[Batch, list[tuple[int, str]]]]) -> Generator[Batch, None, None]:
        for batch, broken in parts:
            for index, what in broken:
                if index not in self.broken:
                    self.broken[index] = what
                    warnings.warn(f"left out an image that cannot be read: {what}", stacklevel=2)
            if len(self.broken) > self.tolerate:
                some = "\n  ".join(list(self.broken.values())[:10])
                raise TooManyBroken(
                    f"{len(self.broken)} of {len(self.images)} images cannot be read, more than the "
                    f"{self.tolerate} tolerated; mend or remove them:\n  {some}"
                )
            yield batch


def wide_images(images: Samples) -> list[bool] | None:
    """Whether each image is wider than tall, from a COCO file's sizes; None where that takes reading all."""
    sizes = images.image_sizes if isinstance(images, Dataset) else ()
    return [width >= height for height, width in sizes] or None


class Draw(NamedTuple):
    """One image to train on."""

    number: int
    """Of the draw, from 0: what its random changes are seeded by."""
    image: int
    """Its index in the data set."""


def derive_seed(*parts: int) -> int:
    """A seed below 2**63 from several numbers; any other numbers give an unrelated one."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Plan:
    """The draws of a whole training.

    Args:
        size: images of the data set. batch_size: of each update. parts: that an update is cut into.
        wide: for each image whether it is wider than tall, to keep both kinds in parts of their own (Detectron2's
            aspect ratio grouping); None does not group.
    """

    size: int
    batch_size: int
    parts: int = 1
    seed: int = 0
    wide: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("the data set gave no batch: expected at least one image")
        if self.batch_size % self.parts:
            raise ValueError(
                f"batch size: expected a multiple of processes x accumulate = {self.parts}, got {self.batch_size}"
            )
        if self.wide is not None and len(self.wide) != self.size:
            raise ValueError(f"wide: expected {self.size} values, one an image, got {len(self.wide)}")

    def draw(self, number: int) -> Draw:
        """The n-th draw, from 0, without grouping."""
        return Draw(number, _order(self.seed, number // self.size, self.size)[number % self.size])

    def parts_from(self, update: int, *, rank: int = 0, processes: int = 1) -> Iterator[list[Draw]]:
        """The parts of one of these processes, one after the other, from this update on; endless."""
        return islice(self._parts(update), rank, None, processes)

    def _parts(self, update: int) -> Iterator[list[Draw]]:
        length = self.batch_size // self.parts
        if self.wide is None:
            number = update * self.batch_size
            while True:
                yield [self.draw(number + place) for place in range(length)]
                number += length
        yield from self._grouped(update * self.parts, length)

    def _grouped(self, skip: int, length: int) -> Iterator[list[Draw]]:
        """Parts of one kind. A position cannot be jumped to, but a million draws take a second to go through."""
        assert self.wide is not None
        waiting: dict[bool, list[Draw]] = {True: [], False: []}
        number = done = 0
        while True:
            draw = self.draw(number)
            number += 1
            kind = bool(self.wide[draw.image])
            waiting[kind].append(draw)
            if len(waiting[kind]) == length:
                if done >= skip:
                    yield waiting[kind]
                waiting[kind] = []
                done += 1


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


class TargetWatch:
    """Counts the updates without a target, and warns of the first one and in the end."""

    def __init__(self) -> None:
        self.missing = 0
        """Updates without a target so far."""

    def check(self, targets: Sequence[object], step: int) -> None:
        """Note whether the targets of an update (from 0) hold something to learn."""
        if any(has_target(target) for target in targets):
            return
        self.missing += 1
        if self.missing == 1:
            what = "an object" if isinstance(targets[0], InstanceTarget) else "a labelled pixel"
            warnings.warn(
                f"update {step + 1}: none of its images has {what} to learn from, so losses of 0 say nothing; "
                "`pointrend data check` looks for what is wrong",
                stacklevel=2,
            )

    def finish(self, updates: int) -> None:
        """Say how many of the updates had no target, where there were more than one."""
        if self.missing > 1:
            warnings.warn(
                f"{self.missing} of {updates} updates had no target: their losses of 0 say nothing",
                stacklevel=2,
            )


def has_target(target: object) -> bool:
    """Whether there is an object that is no crowd, or a labelled pixel."""
    if isinstance(target, InstanceTarget):
        return bool((~target.crowd).any())
    if isinstance(target, SemanticTarget):
        return bool((target.labels != IGNORE_LABEL).any())
    return True
