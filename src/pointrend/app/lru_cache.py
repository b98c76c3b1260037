"""A dictionary that stays within a number of bytes: what was not used for longest goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, at most `most_bytes` and `most` of them together; safe to use from several threads.

    Args:
        size: bytes of a value.

    Raises:
        ValueError: a limit below 1.
    """

    def __init__(self, size: Callable[[T], int], *, most_bytes: int, most: int = 10_000) -> None:
        if most_bytes < 1 or most < 1:
            raise ValueError(
                f"expected room for at least one byte and one value, got {most_bytes} and {most}"
            )
        self.size, self.most_bytes, self.most = size, most_bytes, most
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """The value, which counts as used now; None where there is none (any more)."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: T) -> None:
        """Keep the value, and let go of others until it fits. One that is too large alone is not kept."""
        needed = self.size(value)
        with self._lock:
            self._drop(key)
            if needed > self.most_bytes:
                return
            self._values[key] = (value, needed)
            self._bytes += needed
            while self._bytes > self.most_bytes or len(self._values) > self.most:
                self._drop(next(iter(self._values)))

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Let go of every value whose key `wanted` names."""
        with self._lock:
            for key in [key for key in self._values if wanted(key)]:
                self._drop(key)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return self._bytes

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self._bytes -= self._values.pop(key)[1]
