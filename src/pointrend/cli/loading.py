"""Models for commands: `pointrend.load` with a bar while something is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "bfloat16"]


def load_model(name_or_path: str | Path, *, optimize: Precision | None = None) -> Any:
    """`pointrend.load`, saying on the error stream what is being fetched; with `optimize` as of the model's method."""
    from pointrend.zoo import load

    with downloading(str(name_or_path)) as progress:
        model = load(name_or_path, progress=progress)
    return model if optimize is None else model.optimize(optimize)


def through_windows(model: Any, window: tuple[int, int] | None) -> Any:
    """The model, looking through overlapping windows of so many rows and columns if there are some."""
    if window is None:
        return model
    if model.kind != "semantic":
        raise ValueError("window: expected a semantic model; objects would be cut at the windows' edges")
    from pointrend.models.augmented import SlidingSemantic

    return SlidingSemantic(model, window)


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar moved by calls `progress(bytes so far, bytes in all or None)`; none appears before the first."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with ExitStack() as stack:
        bars: list[Progress] = []

        def report(done: int, total: int | None) -> None:
            if not bars:
                columns = TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn()
                bar = Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True))
                bars.append(stack.enter_context(bar))
                bar.add_task(name, total=total)
            bars[0].update(bars[0].task_ids[0], completed=done, total=total)

        yield report
