"""Progress bars on the terminal's error stream, so that the output itself stays clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pointrend.training.log import MEASURES


def _bar(what: str) -> Progress:
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar moved by calls `progress(done, total)`."""
    with _bar(what) as progress:
        task = progress.add_task(what, total=total, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training(steps: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A bar moved by the training loop's reports, with losses and times as running means over about 20 updates."""
    means: dict[str, float] = {}

    def report(step: int, entry: Mapping[str, float]) -> None:
        for name, value in entry.items():
            means[name] = value if name not in means else 0.95 * means[name] + 0.05 * value
        note = describe_update(means, entry)
        progress.update(task, completed=step, note=note, left=duration(entry["remaining_seconds"]))
        # Into a file or a pipe no bar is drawn: a line now and then says that things go on.
        if not progress.console.is_terminal and step % max(steps // 10, 1) == 0:
            left = duration(entry["remaining_seconds"])
            progress.console.print(
                f"step {step} of {steps}, {note}, {left} left", soft_wrap=True, highlight=False
            )

    # The note comes last: where a terminal is narrow, its end is cut off.
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]} left", table_column=Column(no_wrap=True, min_width=13)),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=steps, note="", left="?")
        yield report


def describe_update(means: Mapping[str, float], entry: Mapping[str, float]) -> str:
    """One line: "loss 1.230, lr 0.01, data 0.02 s + compute 0.30 s, 4.1 GiB (coarse 0.80, points 0.43)"."""
    losses = {name: value for name, value in means.items() if name not in MEASURES}
    parts = ", ".join(f"{name} {value:.2f}" for name, value in losses.items())
    work = means["seconds"] - means["data_seconds"]
    return (
        f"loss {sum(losses.values()):.3f}, lr {entry['learning_rate']:.2g}, data {means['data_seconds']:.2f} s + "
        f"compute {work:.2f} s, {entry['memory_gib']:.1f} GiB ({parts})"
    )


def duration(seconds: float) -> str:
    """Such as "1:02:03" or "4:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
