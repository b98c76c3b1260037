"""Progress bars on the terminal's error stream, so that the output itself stays clean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

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

from pointrend.evaluation.options import Precision

if TYPE_CHECKING:
    from pointrend.evaluation.report import Scores
    from pointrend.models.base import Pretrained
    from pointrend.models.semantic_model import SemanticModel
    from pointrend.results import Model


def announce(text: str) -> None:
    """One line on the error stream, at once, of the first process: what takes the next seconds. Call it before torch is
    imported, which alone may take longer than people wait for a sign of life.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"pointrend: {text}", file=sys.stderr, flush=True)


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
def counting(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar moved by calls `progress(done, total)`; a total of None is not known yet."""
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
    from pointrend.training.loggers import MEASURES

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


SHOWN = {
    "instance": (
        *("Cityscapes AP", "Cityscapes AP50", "box AP", "mask AP"),
        *("mask AP50", "mask AP75", "mask AP75-95", "boundary AP"),
    ),
    "semantic": ("mIoU", "category mIoU", "mIoU@1px", "mIoU@3px", "mIoU@5px", "boundary IoU"),
}


def show(rows: list[Scores], task: str, title: str) -> None:
    """Print the scores that fit into a terminal; a file of scores has all of them."""
    from rich.console import Console

    from pointrend.evaluation.report import to_table

    Console().print(to_table(rows, shown(rows, task), title=title))


def shown(rows: list[Scores], task: str) -> list[str] | None:
    """The columns for people; None, which means all, if the rows have none of these."""
    return [name for name in SHOWN[task] if any(name in row.numbers for row in rows)] or None


def load_model(
    name_or_path: str | Path,
    *,
    optimize: Precision | None = None,
    class_names: Sequence[str] = (),
    names_if_none: Sequence[str] = (),
    output_stride: Literal[8, 16, 32] | None = None,
    full_resolution: bool = False,
) -> Pretrained:
    """`pointrend.load`, saying on the error stream what is being fetched; with `optimize` as of the model's method.

    class_names: names of the model's classes, or one file of them, instead of its own.
    names_if_none: the same, for a model that has none, if there are as many.
    output_stride: of a DeepLabV3's deepest maps, instead of that which it was trained at.
    full_resolution: the network sees images in their own size, whatever it was trained at.
    """
    from pointrend.checkpoints.class_names import name_classes, read_names
    from pointrend.distributed import main_process
    from pointrend.structures import are_numbered
    from pointrend.zoo import load

    names = read_names(class_names) if class_names else ()
    others = read_names(names_if_none) if names_if_none else ()
    with downloading(str(name_or_path)) as progress:
        model = load(name_or_path, progress=progress)
    if names:
        name_classes(model, names)
    elif (
        are_numbered(own := model.config.class_names)
        and len(others) == len(own)
        and {*others}.isdisjoint(own)
    ):
        name_classes(model, others)  # nothing else can be meant
    elif are_numbered(own) and main_process():
        print(
            f"{name_or_path}: the file does not name its {len(model.config.class_names)} classes, so they are class 0, "
            "class 1, ..; name them by --class-names",
            file=sys.stderr,
        )
    if output_stride is not None:
        from pointrend.models.semantic import SemanticSegmenter

        if not isinstance(model, SemanticSegmenter):
            raise ValueError("output_stride: expected a semantic model of ours (DeepLabV3)")
        model = model.with_output_stride(output_stride)
    if full_resolution:
        own_size = replace(model.config.preprocessing, short_edge=None, long_edge=None)
        model.config = replace(model.config, preprocessing=own_size)
    return model if optimize is None else model.optimize(optimize)


def with_sliding_windows(model: Pretrained, window: tuple[int, int] | None) -> Model:
    """The model, looking through overlapping windows of so many rows and columns if there are some."""
    if window is None:
        return model
    if model.task != "semantic":
        raise ValueError("window: expected a semantic model; objects would be cut at the windows' edges")
    from pointrend.models.tta import SlidingSemantic

    return SlidingSemantic(cast("SemanticModel", model), window)


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
