"""Scores as curves: AP by the size of objects, mIoU and boundary IoU by the width of the band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from pointrend.visualize.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pointrend.evaluation.report import Scores

STYLES = ("-", "--", "-.", ":")  # so that a line under another one shows
X_LABELS = {"size": "square root of the object's area, pixels", "width": "width of the band, pixels"}


def plot_scores(rows: Sequence[Scores], *, width: float = 5.0) -> Figure:
    """A panel for each curve that any row has, a line for each row; in per cent, the pixels on a logarithmic axis.

    Points without a value (no object of that size) are left out.

    Args:
        rows: with `curves`.
        width: of a panel, in inches.

    Raises:
        ValueError: no row has a curve.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.curves))
    if not names:
        raise ValueError(
            "expected scores with curves, got none; evaluate instances with size_edges, or label maps with widths"
        )
    figure = new_figure(width * len(names), 0.8 * width, dpi=120)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        seen: set[float] = set()
        for row, style in zip(rows, cycle(STYLES), strict=False):
            points = [(x, 100 * y) for x, y in row.curves.get(name, ()) if not math.isnan(y)]
            if points:
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=row.name)
                seen.update(x for x, _ in points)
        axes.set_title(name, fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(seen), [f"{x:g}" for x in sorted(seen)])
        axes.set_xlabel(X_LABELS.get(name.rsplit(" ", 1)[-1], "pixels"))
        axes.set_ylabel("per cent")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure
