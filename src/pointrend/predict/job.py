"""Millions of images: a row for each, in parts that appear as they are done, in memory that does not grow with images.

    predictor = Predictor(pointrend.load("model.safetensors"), batch_size=8)
    summary = run_job(predictor, find_tasks(["s3://bucket/images/"]), "s3://bucket/out", JobOptions("parquet"))

The same call again predicts what is new or has changed, and what failed. Shards share the work without knowing of each
other; several may run on one computer or on many.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from pointrend.data.image_io import local_path
from pointrend.data.remote import ATTEMPTS, is_url, retried
from pointrend.distributed import Shard
from pointrend.models.devices import peak_memory
from pointrend.predict.inputs import Source, choose_ids
from pointrend.predict.parts import Parts, digest
from pointrend.predict.predictor import WAITING, Predictor
from pointrend.predict.prefetch import BackgroundWorker, prefetch
from pointrend.predict.results import Failure, Prediction
from pointrend.predict.resume import fingerprint
from pointrend.predict.rows import PartFormat, Row, result_columns
from pointrend.predict.tasks import Task, version

T = TypeVar("T")
LOG = logging.getLogger(__name__)
WINDOW = 8
"""Batches' worth of images that wait for others of their size."""
WINDOW_BYTES = 2**29
"""Of these images: further ones are predicted in smaller batches."""


@dataclass(frozen=True)
class JobOptions:
    """How a job runs. What it finds depends on none of this."""

    format: PartFormat = "jsonl"
    """Of the parts: "jsonl" (a JSON object a line), "parquet", or "coco" (each part a COCO file)."""
    part_size: int = 1000
    """Images in a part."""
    shard: Shard = field(default_factory=Shard)
    """The share of the images that this process predicts."""
    fresh: bool = False
    """Start over."""
    readers: int = 4
    """Images read at the same time; more of them hide the latency of a store."""
    attempts: int = ATTEMPTS
    """For an object whose store does not answer."""

    def __post_init__(self) -> None:
        if self.readers < 1 or self.attempts < 1:
            raise ValueError(
                f"expected at least one reader and one attempt, got {self.readers} and {self.attempts}"
            )


@dataclass(frozen=True)
class Summary:
    """What one run of a job did."""

    images: int
    """With a row of this run."""
    skipped: int
    """Done by earlier runs."""
    failures: int
    parts: int
    """Files that this run has written."""
    stopped: bool
    """Before all images were done, by a signal."""
    seconds: float
    seconds_by_step: dict[str, float]
    """Waiting for images to be read, predicting, and (beside these, in a thread) writing."""
    images_per_second: float
    peak_memory_mb: float
    """Of this process."""
    out: str
    shard: str

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Loaded:
    """An image that was read, or why not."""

    task: Task
    version: str = ""
    image: Tensor | None = None
    """(3, H, W) uint8; None where it is done, or failed."""
    reason: str | None = None

    def row(self, outcome: Prediction | Failure | None) -> Row:
        """What is written of it; None where an earlier run has done it."""
        own: Row = {"image": self.task.image, "id": self.task.id}
        if outcome is None:
            return own | {"skipped": True}
        if isinstance(outcome, Failure):
            return own | {"error": outcome.reason}
        return own | {"version": self.version} | result_columns(outcome.result)


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "predict": 0.0, "write": 0.0}

    def timed(self, step: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time that each takes to come counts for the step."""
        iterator = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds[step] += time.perf_counter() - begun
            yield item


def run_job(
    predictor: Predictor,
    tasks: Iterable[Task],
    out: str | Path,
    options: JobOptions | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    predict: PredictTasks | None = None,
) -> Summary:
    """Predict the images of the shard that are not done, and write their rows below `out`, a folder or an address.

    Args:
        stop: asked between batches; where it says True the last part is written and the run ends.
        predict: predicts elsewhere, see `ray_engine`; by default `predict_tasks`, here.

    Raises:
        ValueError: the folder has a job with another model or other settings, or it runs already.
        OSError: `out` cannot be written.
        ImportError: a package for a store or a format is missing; says how to install it.
    """
    options, begun, clock = options or JobOptions(), time.monotonic(), Clock()
    classes = predictor.model.config.class_names
    ids = choose_ids([], predictor.model).categories
    parts = Parts(
        out,
        options.format,
        {
            "model": fingerprint(predictor.model),
            "min_score": predictor.min_score,
            "classes": predictor.classes,
        },
        shard=options.shard,
        size=options.part_size,
        categories=[{"id": number, "name": name} for number, name in zip(ids, classes, strict=True)],
        fresh=options.fresh,
    )
    counts: Counter[str] = Counter()

    def add(make: Callable[[], Row]) -> None:
        started = time.perf_counter()
        row = make()
        if "skipped" in row:
            counts["skipped"] += 1
        else:
            counts["failures" if "error" in row else "images"] += 1
            parts.add(row)
        clock.seconds["write"] += time.perf_counter() - started

    stopped = False
    with parts, BackgroundWorker(WAITING) as worker:
        mine = ((task, parts.digest(task.key)) for task in tasks if parts.mine(task.key))
        for make in (predict or predict_tasks)(predictor, mine, options, clock):
            worker(add, make)
            stopped = stop()
            if stopped:
                LOG.warning("stopped by a signal: writing the last part")
                break
    seconds = time.monotonic() - begun
    summary = Summary(
        images=counts["images"],
        skipped=counts["skipped"],
        failures=counts["failures"],
        parts=len(parts.written),
        stopped=stopped,
        seconds=round(seconds, 3),
        seconds_by_step={step: round(value, 3) for step, value in clock.seconds.items()},
        images_per_second=round(counts["images"] / max(seconds, 1e-9), 3),
        peak_memory_mb=round(peak_memory() / 2**20, 1),
        out=str(out),
        shard=f"{options.shard.index}/{options.shard.count}",
    )
    parts.summarize(summary.to_dict())
    return summary


def predict_tasks(
    predictor: Predictor, tasks: Iterable[tuple[Task, int | None]], options: JobOptions, clock: Clock
) -> Iterator[Callable[[], Row]]:
    """What makes the row of each image, in any order: images of one size share a batch.

    Args:
        tasks: with the digest of the version that is done, see `Parts.digest`.
    """

    def load(task: Task, done: int | None) -> Loaded:
        try:
            now = retried(lambda: version(task), options.attempts)
            if digest(now) == done:
                return Loaded(task)
            source = task.image if is_url(task.image) else local_path(task.image)
            return Loaded(task, now, retried(lambda: predictor.read(source), options.attempts))
        except (ValueError, ConnectionError) as error:
            return Loaded(task, reason=str(error).removeprefix(f"{task.image}: "))

    depth = max(options.readers, predictor.batch_size) + WAITING
    reads = prefetch(lambda item: load(*item), tasks, depth=depth, threads=options.readers)
    waiting = _Waiting(predictor.batch_size)
    for loaded in clock.timed("read", (future.result() for _, future in reads)):
        if loaded.image is None:
            outcome = None if loaded.reason is None else Failure(loaded.task.image, loaded.reason)
            yield partial(loaded.row, outcome)
        else:
            for batch in waiting.add(loaded):
                yield from _predicted(predictor, batch, clock)
    for batch in waiting.rest():
        yield from _predicted(predictor, batch, clock)


def _predicted(predictor: Predictor, batch: list[Loaded], clock: Clock) -> Iterator[Callable[[], Row]]:
    images: list[tuple[int, Source, Tensor]]
    images = [(n, one.task.image, one.image) for n, one in enumerate(batch) if one.image is not None]
    for one, outcome in zip(batch, clock.timed("predict", predictor.predict_batch(images)), strict=True):
        yield partial(one.row, outcome)


class _Waiting:
    """Images that wait for others of their size."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.count, self.bytes = batch_size, 0, 0
        self.by_size: dict[tuple[int, ...], list[Loaded]] = {}

    def add(self, loaded: Loaded) -> Iterator[list[Loaded]]:
        """Batches that are to be predicted now: a full one, or the longest where too much waits."""
        assert loaded.image is not None
        size = tuple(loaded.image.shape)
        self.by_size.setdefault(size, []).append(loaded)
        self.count, self.bytes = self.count + 1, self.bytes + loaded.image.numel()
        if len(self.by_size[size]) == self.batch_size:
            yield self._take(size)
        while self.count > WINDOW * self.batch_size or self.bytes > WINDOW_BYTES:
            yield self._take(max(self.by_size, key=lambda one: len(self.by_size[one])))

    def rest(self) -> Iterator[list[Loaded]]:
        """All batches that are left."""
        while self.by_size:
            yield self._take(next(iter(self.by_size)))

    def _take(self, size: tuple[int, ...]) -> list[Loaded]:
        batch = self.by_size.pop(size)
        self.count, self.bytes = self.count - len(batch), self.bytes - len(batch) * math.prod(size)
        return batch


PredictTasks = Callable[
    [Predictor, Iterable[tuple[Task, int | None]], JobOptions, Clock], Iterator[Callable[[], Row]]
]
"""Such as `predict_tasks`."""
