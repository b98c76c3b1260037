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

HIDDEN = ("learning_rate", "seconds")  # of what the training loop reports: not losses


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
    """A bar moved by the training loop's reports; shows the losses, each a running mean over about 20 updates."""
    means: dict[str, float] = {}

    def report(step: int, entry: Mapping[str, float]) -> None:
        for name, value in entry.items():
            if name not in HIDDEN:
                means[name] = value if name not in means else 0.95 * means[name] + 0.05 * value
        parts = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        note = (
            f"loss: {parts}" if len(means) < 3 else f"loss {sum(means.values()):.3f}"
        )  # a detector has six parts
        progress.update(task, completed=step, note=note)
        # Into a file or a pipe no bar is drawn: a line now and then says that things go on.
        if not progress.console.is_terminal and step % max(steps // 10, 1) == 0:
            progress.console.print(f"step {step} of {steps}, {note}", soft_wrap=True, highlight=False)

    with _bar("training") as progress:
        task = progress.add_task("training", total=steps, note="")
        yield report
