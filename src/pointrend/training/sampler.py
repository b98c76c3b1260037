"""Which picture is trained on when: a function of the seed and the number of the update, and of nothing else.

So the position of a training is one number, a checkpoint need hold no more, and neither workers nor the number of
processes change what is seen. The n-th draw is the ``n mod size``-th picture of epoch ``n // size``, each epoch in an
order of its own; updates take ``batch_size`` draws each, across the ends of epochs.

Letters: an update is cut into parts, ``accumulate`` for each process; process r takes parts r, r + processes, ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One picture to train on."""

    number: int
    """Of the draw, from 0: what its random changes are seeded by."""
    picture: int
    """Its index in the data set."""


def derive_seed(*parts: int) -> int:
    """A seed below 2**63 from several numbers; any other numbers give an unrelated one."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Plan:
    """The draws of a whole training.

    Args:
        size: pictures of the data set. batch_size: of each update. parts: that an update is cut into.
        wide: for each picture whether it is wider than tall, to keep both kinds in parts of their own (Detectron2's
            aspect ratio grouping); None does not group.
    """

    size: int
    batch_size: int
    parts: int = 1
    seed: int = 0
    wide: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("the data set gave no batch: expected at least one picture")
        if self.batch_size % self.parts:
            raise ValueError(
                f"batch size: expected a multiple of processes x accumulate = {self.parts}, got {self.batch_size}"
            )
        if self.wide is not None and len(self.wide) != self.size:
            raise ValueError(f"wide: expected {self.size} values, one a picture, got {len(self.wide)}")

    def draw(self, number: int) -> Draw:
        """The n-th draw, from 0, without grouping."""
        return Draw(number, _order(self.seed, number // self.size, self.size)[number % self.size])

    def parts_from(self, update: int) -> Iterator[list[Draw]]:
        """All parts, one after the other, from the first one of this update; endless."""
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
            kind = bool(self.wide[draw.picture])
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


class PartSampler(Sampler[list[Draw]]):
    """The parts of one process, from some update on, as a batch sampler of a `DataLoader`."""

    def __init__(self, plan: Plan, *, first_update: int = 0, rank: int = 0, processes: int = 1) -> None:
        self.plan = plan
        self.first_update = first_update
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[list[Draw]]:
        for number, part in enumerate(self.plan.parts_from(self.first_update)):
            if number % self.processes == self.rank:
                yield part
