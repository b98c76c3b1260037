"""A job's images predicted by Ray Data, on this computer or a cluster: `pointrend predict --engine ray`.

The driver finds the images and writes the parts; workers read, predict and return rows. A worker that dies is replaced,
and what it was at is done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

from pointrend.predict.job import Clock, JobOptions, predict_tasks
from pointrend.predict.predictor import Predictor
from pointrend.predict.rows import Row, arrow_table, pyarrow
from pointrend.predict.tasks import Task

BLOCK = 64
"""Images that a worker is given at once, and that are done again if it dies."""


class RayEngine:
    """What `run_job` takes as `predict`.

    Args:
        workers: processes, each with its own model; on GPUs one each.
        address: of a running cluster ("auto", "ray://host:10001"); one is started here, and ended, if not given.

    Raises:
        ImportError: Ray is not installed; says how to install it.
        ValueError: less than one worker.
        ConnectionError: no cluster answers at the address.
    """

    def __init__(self, workers: int = 1, address: str | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected 1 or more, got {workers}")
        self.workers, self.address, self.ray = workers, address, _ray()

    def __call__(
        self,
        predictor: Predictor,
        tasks: Iterable[tuple[Task, int | None]],
        options: JobOptions,
        clock: Clock,
    ) -> Iterator[Callable[[], Row]]:
        """What makes the row of each image, in any order, see `predict_tasks`."""
        ray = self.ray
        started = not ray.is_initialized()
        if started:
            self._start()
        try:
            gpus = 1 if predictor.device.type == "cuda" else 0
            try:
                arguments = ray.put(_settings(predictor)), options
            except TypeError as error:  # such as an exported file's session
                raise ValueError("engine: this model cannot be sent to Ray's workers; use shards") from error
            ray.data.DataContext.get_current().enable_progress_bars = False
            blocks = [
                ray.put(block) for block in _blocks(tasks)
            ]  # in Ray's memory, which may spill to the disk
            if not blocks:
                return
            rows = ray.data.from_arrow_refs(blocks).map_batches(
                _Worker,
                fn_constructor_args=arguments,
                batch_size=BLOCK,
                batch_format="pyarrow",
                num_gpus=gpus,
                compute=ray.data.ActorPoolStrategy(size=self.workers),
            )
            found = rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
            for table in clock.timed("predict", found):
                for row in table.to_pylist():
                    yield partial(_row, row)
        finally:
            if started:
                ray.shutdown()

    def _start(self) -> None:
        try:
            if self.address is None:
                self.ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False)
            else:
                self.ray.init(self.address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise ConnectionError(f"address: no Ray cluster at {self.address} ({error})") from error


class _Worker:
    """A model in a process of Ray's."""

    def __init__(self, settings: Any, options: JobOptions) -> None:
        import ray

        found = ray.get(settings) if isinstance(settings, ray.ObjectRef) else settings
        self.predictor, self.options = Predictor(**found), options

    def __call__(self, table: Any) -> Any:
        """Rows of a block of tasks; failures and images that are done, too."""
        tasks = (
            (Task(row["image"], json.loads(row["id"]), row["version"]), row["done"])
            for row in table.to_pylist()
        )
        rows = [make() for make in predict_tasks(self.predictor, tasks, self.options, Clock())]
        found = arrow_table([_FULL | row | {"id": json.dumps(row["id"])} for row in rows])
        arrow = pyarrow()
        for name, kind in (("error", arrow.string()), ("skipped", arrow.bool_())):
            found = found.append_column(name, arrow.array([row.get(name) for row in rows], kind))
        return found


_FULL: Row = dict.fromkeys(
    ("version", "height", "width", "boxes", "labels", "class_names", "scores", "masks"), None
)


def _row(row: Row) -> Row:
    """A row as `Loaded.row` makes it: without the columns that it does not have."""
    return {name: value for name, value in row.items() if value is not None} | {"id": json.loads(row["id"])}


def _blocks(tasks: Iterable[tuple[Task, int | None]]) -> Iterator[object]:
    arrow, iterator = pyarrow(), iter(tasks)
    while block := list(islice(iterator, BLOCK)):
        yield arrow.table(
            {
                "image": arrow.array([task.image for task, _ in block], arrow.string()),
                "id": arrow.array([json.dumps(task.id) for task, _ in block], arrow.string()),
                "version": arrow.array([task.version for task, _ in block], arrow.string()),
                "done": arrow.array([done for _, done in block], arrow.int64()),
            }
        )


def _settings(predictor: Predictor) -> dict[str, object]:
    """What builds the same predictor in another process; the model travels in the CPU's memory."""
    model = predictor.model.to("cpu") if hasattr(predictor.model, "to") else predictor.model
    return {
        "model": model,
        "device": predictor.device.type,
        "batch_size": predictor.batch_size,
        "max_pixels": predictor.max_pixels,
        "min_score": predictor.min_score,
        "classes": predictor.classes,
    }


def _ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "--engine ray needs Ray Data; install it with: pip install 'pointrend[ray]'"
        ) from error
    return ray
