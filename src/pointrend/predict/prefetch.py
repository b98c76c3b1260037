"""Doing things before they are needed, and after they were asked for, in threads, a bounded number at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    function: Callable[[T], R], items: Iterable[T], *, depth: int, threads: int = 2
) -> Iterator[tuple[T, Future[R]]]:
    """Each item with the future of `function(item)`, in order; at most `depth` results wait to be taken."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > depth:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


class BackgroundWorker:
    """Runs calls in one thread, in their order, while the caller goes on; a context manager.

    At most `depth` calls wait. What a call raises is raised at a later call or at the end of the block.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.waiting: deque[Future[None]] = deque()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __call__(self, function: Callable[[T], None], item: T) -> None:
        """Run `function(item)` when the calls before it are done."""
        while len(self.waiting) >= self.depth:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(function, item))

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self.waiting and kind is None:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)
