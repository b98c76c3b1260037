"""Scores as people read them: a table in the terminal, Markdown rows for the docs, JSON and per-class CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Evaluator",
    "Scores",
    "collect_scores",
    "gain",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_table",
]


@dataclass(frozen=True)
class Scores:
    """What one model reached on one data set."""

    name: str
    """Of the row in tables."""
    numbers: Mapping[str, float]
    """Score by name, as fractions (0..1); NaN where there was nothing to score."""
    per_class: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Column name -> one fraction per class."""
    class_names: tuple[str, ...] = ()
    images: int = 0
    seconds: float = 0.0
    """Spent in `predict`, all images together."""
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Name of a curve ("mask AP by size", "mIoU by width") -> its points (pixels, fraction), from left to right."""

    def __post_init__(self) -> None:
        for column, values in self.per_class.items():
            if len(values) != len(self.class_names):
                raise ValueError(
                    f"per_class {column!r}: expected a value for each of {len(self.class_names)} classes,"
                    f" got {len(values)}"
                )


class Evaluator(Protocol):
    """What every evaluator here can say about what it has counted."""

    def compute(self) -> Mapping[str, float]:
        """Score by name."""

    def per_class(self) -> Mapping[str, Sequence[float]]:
        """Column name -> one score per class."""

    def curves(self) -> Mapping[str, Sequence[tuple[float, float]]]:
        """Name -> points, as in `Scores`."""


def collect_scores(
    name: str, class_names: Sequence[str], evaluators: Iterable[Evaluator], images: int, seconds: float
) -> Scores:
    """What several evaluators of the same classes found, as one row. Curves of one name are joined."""
    numbers: dict[str, float] = {}
    per_class: dict[str, Sequence[float]] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for evaluator in evaluators:
        numbers.update(evaluator.compute())
        per_class.update(evaluator.per_class())
        for curve, points in evaluator.curves().items():
            curves[curve] = sorted([*curves.get(curve, []), *points])
    return Scores(name, numbers, per_class, tuple(class_names), images, seconds, curves)


def gain(before: Scores, after: Scores, *, name: str = "gain") -> Scores:
    """`after` minus `before`, number by number and class by class, as a row of its own."""
    shared = [key for key in before.numbers if key in after.numbers]
    numbers = {key: after.numbers[key] - before.numbers[key] for key in shared}
    per_class = {
        key: [b - a for a, b in zip(before.per_class[key], after.per_class[key], strict=True)]
        for key in before.per_class
        if key in after.per_class
    }
    return Scores(name, numbers, per_class, after.class_names, after.images, after.seconds - before.seconds)


def to_table(rows: Sequence[Scores], columns: Sequence[str] | None = None, *, title: str = "") -> Table:
    """A rich table in per cent, one row for each of `rows`; print it with `rich.print`."""
    from rich.table import Table

    columns = _columns(rows, columns)
    table = Table(title=title or None)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        table.add_row(row.name, *_cells(row, columns))
    return table


def to_markdown(rows: Sequence[Scores], columns: Sequence[str] | None = None, *, digits: int = 1) -> str:
    """A Markdown table in per cent, ready for the docs."""
    columns = _columns(rows, columns)
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for row in rows:
        lines.append(
            f"| {row.name.replace('|', chr(92) + '|')} | {' | '.join(_cells(row, columns, digits))} |"
        )
    return "\n".join(lines) + "\n"


def to_json(rows: Sequence[Scores]) -> str:
    """Everything at full precision; NaN becomes null, since JSON has no NaN."""
    return json.dumps([_plain(asdict(row)) for row in rows], indent=1, allow_nan=False) + "\n"


def to_csv(scores: Scores) -> str:
    """One line per class and one column per score, as fractions; empty where a class is absent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *scores.per_class])
    for number, name in enumerate(scores.class_names):
        values = [column[number] for column in scores.per_class.values()]
        writer.writerow([name, *("" if math.isnan(value) else repr(value) for value in values)])
    return text.getvalue()


def _columns(rows: Sequence[Scores], columns: Sequence[str] | None) -> list[str]:
    """The wanted columns, or all that any row has, in order of appearance."""
    if columns is not None:
        return list(columns)
    return list(dict.fromkeys(name for row in rows for name in row.numbers))


def _cells(row: Scores, columns: Sequence[str], digits: int = 1) -> list[str]:
    values = (row.numbers.get(column, math.nan) for column in columns)
    return ["–" if math.isnan(value) else f"{100 * value:.{digits}f}" for value in values]


def _plain(value: object) -> object:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
