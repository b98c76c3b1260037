"""Requests that wait for the network share it: those of one size are predicted together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic

import anyio

from pointrend.serve.backends import Backend, Found, ImageT

Waiting = tuple[ImageT, asyncio.Future[Found]]
"""An image, and what its result goes to."""


class BusyError(Exception):
    """Too much waits already; says so in words."""


class Batcher(Generic[ImageT, Found]):
    """One network, any number of requests; everything but the network runs in the event loop.

    While the network is at work, requests gather; the next batch is the first of them with those of the same size, up
    to the backend's `batch_size`. Nobody is made to wait for a batch to fill.

    Args:
        max_waiting: requests in all, with those being predicted.
        max_bytes: of their pixels.
    """

    def __init__(self, backend: Backend[ImageT, Found], *, max_waiting: int, max_bytes: int) -> None:
        self.backend, self.max_waiting, self.max_bytes = backend, max_waiting, max_bytes
        self.requests, self.bytes = 0, 0
        self.batches: list[int] = []
        """Sizes of the batches since somebody last took them away."""
        self._waiting: deque[Waiting[ImageT, Found]] = deque()
        self._wake = asyncio.Event()

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """Room for a request with so many bytes of pixels.

        Raises:
            BusyError: there is none.
        """
        if self.requests >= self.max_waiting or (self.requests and self.bytes + size > self.max_bytes):
            raise BusyError("many requests are waiting")
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        try:
            yield
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size

    async def predict(self, image: ImageT) -> Found:
        """The result of an image that the backend has read. Who is cancelled while waiting is not predicted.

        Raises:
            ValueError: it cannot be predicted, such as for want of memory.
        """
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        self._wake.set()
        try:
            return await future
        finally:
            future.cancel()

    async def run(self) -> None:
        """Predict what comes, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._next():
                self.batches.append(len(batch))
                await self._answer(batch)

    def _next(self) -> list[Waiting[ImageT, Found]]:
        """The first request and others of its size; the rest stays in its order."""
        batch: list[Waiting[ImageT, Found]] = []
        rest: deque[Waiting[ImageT, Found]] = deque()
        for image, future in self._waiting:
            fits = not batch or batch[0][0].shape == image.shape
            if future.done():
                continue
            chosen = batch if fits and len(batch) < self.backend.batch_size else rest
            chosen.append((image, future))
        self._waiting = rest
        return batch

    async def _answer(self, batch: list[Waiting[ImageT, Found]]) -> None:
        try:
            outcomes = await anyio.to_thread.run_sync(self.backend.predict, [image for image, _ in batch])
        except Exception as error:  # whoever asked gets it; the others go on
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, ValueError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
