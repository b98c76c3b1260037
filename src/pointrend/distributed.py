"""This process among those that torchrun started: which it is, its share of the work, its device, its end.

    shard = join_processes()                       # alone without torchrun
    scores = evaluate_semantic(model, dataset)     # the same in every process, to the last digit as in one
    shutdown()

Trainings form the same group by accelerate; `Shard.current()` is right in either case.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
GRACE = 0.5
"""Seconds for gloo's threads to free what they hold, see `shutdown`."""

__all__ = [
    "RemoteError",
    "Shard",
    "defer_signal",
    "join_processes",
    "local_device",
    "main_process",
    "shutdown",
]


class RemoteError(ConnectionError):
    """Another process leaves the work that is shared, and says why; see `Shard.give_up`."""

    def __init__(self, process: int, reason: str) -> None:
        super().__init__(f"process {process} gave up: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class _GivenUp:
    """What a process that gives up sends in place of what the others wait for."""

    reason: str


@dataclass(frozen=True)
class Shard:
    """Which process of how many this is; alone by default."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard: expected an index from 0 to {self.count - 1}, got {self.index}")

    @classmethod
    def current(cls) -> Shard:
        """This process among those of `torch.distributed`, alone where that was not initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes what all have found."""
        return self.index == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def images(self, total: int) -> range:
        """The images of this process. Every n-th one: neighbours in a data set often cost alike."""
        return range(self.index, total, self.count)

    def gather(self, mine: T) -> list[T]:
        """What every process has, in their order, in every process; each of them must call it.

        The processes must trust each other: the values travel pickled. With the NCCL backend, set each process's
        own CUDA device first.

        Raises:
            RemoteError: in all of them but those that called `give_up` instead.
        """
        if self.count == 1:
            return [mine]
        found: list[T] = []
        for process, value in enumerate(self._exchange(mine)):
            if isinstance(value, _GivenUp):
                raise RemoteError(process, value.reason)
            found.append(value)
        return found

    def give_up(self, reason: str) -> None:
        """Call this in place of the next `gather` where this process cannot go on: the others stop waiting for it."""
        if self.count > 1:
            self._exchange(_GivenUp(reason))

    def _exchange(self, mine: T | _GivenUp) -> list[T | _GivenUp]:
        everything = [mine] * self.count
        with _exchanging():
            dist.all_gather_object(everything, mine)
            if dist.get_backend() == "gloo":
                # Its thread frees the tensors of the exchange, for which it needs the interpreter: a process that
                # ends right now would take that away under it and abort. A barrier frees nothing.
                dist.barrier()
        return everything


def shutdown() -> None:
    """End the process group, if there is one, in good order: call this before the process ends.

    gloo's threads free the tensors of an exchange a moment after it is over, and need the interpreter for it; a process
    that ends in that moment aborts. Nothing tells when they are done, so they are given time.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # what holds the group, such as the reducer of a model that is no longer used
        dist.destroy_process_group()
        gc.collect()
        time.sleep(GRACE)


_under_way = False
_postponed: Callable[[], object] | None = None


@contextmanager
def _exchanging() -> Iterator[None]:
    global _under_way, _postponed
    _under_way = True
    try:
        yield
    finally:
        _under_way = False
        act, _postponed = _postponed, None
        if act is not None:
            act()


def defer_signal(act: Callable[[], object]) -> None:
    """Call `act` now, or after the exchange between processes that is under way.

    For handlers of signals that raise: an exception in the middle of an exchange leaves the others waiting for ever.
    """
    global _postponed
    if _under_way:
        _postponed = act
    else:
        act()


def join_processes() -> Shard:
    """This process among those that torchrun started, alone otherwise; `shutdown` ends what this begins.

    Where nobody has formed the process group yet (accelerate does so for trainings), it is gloo's: what is exchanged is
    small, and the fastest process waits for the slowest, however long that takes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if "MASTER_ADDR" not in os.environ:
            raise ValueError(
                "WORLD_SIZE is set, but not MASTER_ADDR, where the processes meet: start them by torchrun; to predict "
                "in processes that need not meet, use pointrend predict --shard I/N"
            )
        dist.init_process_group("gloo", timeout=timedelta(days=30))
    return Shard.current()


def main_process() -> bool:
    """Whether this is the process that prints: the only one, or the first of torchrun's."""
    return int(os.environ.get("RANK", "0")) == 0


def local_device() -> str:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
