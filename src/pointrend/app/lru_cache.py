"""A least-recently-used cache that is bounded by the size of its values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Values by key, of which the least recently used are dropped; safe to use from several threads.

    Args:
        capacity: sum of the sizes of all values, at most.
        size: of a value; every value counts 1 if not given.

    Raises:
        ValueError: a capacity below 1.
    """

    def __init__(self, capacity: int, size: Callable[[V], int] = lambda value: 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.capacity, self.used = capacity, 0
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None where there is none (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> list[K]:
        """Store the value; returns the keys dropped to make room. A value larger than the capacity is not stored."""
        with self._lock:
            self._drop(key)
            if self._size(value) > self.capacity:
                return []
            self._values[key] = value
            self.used += self._size(value)
            dropped = []
            while self.used > self.capacity:
                dropped.append(next(iter(self._values)))
                self._drop(dropped[-1])
            return dropped

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        """Drop every value whose key `unwanted` returns True for."""
        with self._lock:
            for key in [key for key in self._values if unwanted(key)]:
                self._drop(key)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def _drop(self, key: K) -> None:
        if key in self._values:
            self.used -= self._size(self._values.pop(key))
