"""One evaluation shared between processes: each takes every n-th picture, and all end with the whole result.

torch.distributed.init_process_group("gloo")   # torchrun sets what it needs
scores = evaluate_semantic(model, dataset)     # the same in every process, to the last digit as in one
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")

__all__ = ["Shard"]


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

    def pictures(self, total: int) -> range:
        """The pictures of this process. Every n-th one: neighbours in a data set often cost alike."""
        return range(self.index, total, self.count)

    def gather(self, mine: T) -> list[T]:
        """What every process has, in their order, in every process; each of them must call it.

        The processes must trust each other: the values travel pickled. With the NCCL backend, set each process's
        own CUDA device first.
        """
        if self.count == 1:
            return [mine]
        everything: list[Any] = [None] * self.count
        dist.all_gather_object(everything, mine)
        return everything
