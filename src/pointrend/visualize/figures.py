"""What all figures are made of; a result as a figure with a legend, what `Result.plot(image)` shows; scores as curves.

matplotlib is imported when the first figure is made: drawing on images needs Pillow and NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pointrend.io import atomic_write
from pointrend.results import InstanceResult, Result, SemanticResult
from pointrend.visualize.colors import Colors, RGBImage, css_color
from pointrend.visualize.label_placement import Box
from pointrend.visualize.overlays import Drawable, class_legend, draw_instances, draw_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pointrend.evaluation.report import Scores


MAX_HEIGHT = 50.0
"""Inches. An image of 1x200 pixels would otherwise ask for a figure of gigabytes."""
STYLES = ("-", "--", "-.", ":")  # so that a line under another one shows
X_LABELS = {"size": "square root of the object's area, pixels", "width": "width of the band, pixels"}
Extent = tuple[float, float, float, float]
"""Left, right, bottom, top, as imshow wants it for an image whose y axis points down."""


def plot_instances(
    image: Drawable,
    result: InstanceResult,
    *,
    min_score: float = 0.0,
    color_by: Literal["class", "instance"] = "class",
    boxes: bool = False,
    width: float = 8.0,
) -> Figure:
    """`draw_instances` in a figure `width` inches wide, with a legend of the classes if they have the colours.

    The image keeps its own pixels: `figure.savefig(path, dpi=...)` scales the text, not the masks.
    """
    drawn = draw_instances(image, result, min_score=min_score, color_by=color_by, boxes=boxes)
    names, colors = class_legend(result, min_score) if color_by == "class" else ([], ())
    return _figure(drawn, names, colors, width)


def plot_semantic(
    image: Drawable, result: SemanticResult, *, opacity: float = 0.55, width: float = 8.0
) -> Figure:
    """`draw_labels` in a figure `width` inches wide, with a legend of the classes found."""
    drawn = draw_labels(image, result.labels, result.palette, opacity=opacity)
    return _figure(drawn, *class_legend(result), width)


def plot_result(result: Result, image: Drawable | None = None, **options: Any) -> Figure:
    """`plot_instances` or `plot_semantic`, whichever fits.

    Args:
        image: a path, or an image as for `as_image`; the result's own if not given.

    Raises:
        ValueError: the result has no image of its own and none is given.
    """
    shown = image if image is not None else result.image
    if shown is None:
        raise ValueError(
            "image: this result does not hold its image; pass a path, tensor, array or Pillow image"
        )
    if isinstance(result, SemanticResult):
        return plot_semantic(shown, result, **options)
    return plot_instances(shown, result, **options)


def _figure(image: RGBImage, names: Sequence[str], colors: Colors, width: float) -> Figure:
    figure = new_figure(width, width * image.shape[0] / image.shape[1] + 0.4, dpi=120)
    axes = figure.subplots()
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    add_class_legend(figure, names, colors, columns=6)
    return figure


def new_figure(width: float, height: float, *, tight: bool = False, dpi: int = 110) -> Figure:
    """An empty figure of this size in inches, its height kept within 1 and `MAX_HEIGHT`, its panels laid out to fit;
    `tight` leaves next to no space between them.
    """
    from matplotlib.figure import Figure

    spaces = {"w_pad": 0.03, "h_pad": 0.03, "wspace": 0.0, "hspace": 0.0} if tight else {}
    size = (width, min(max(height, 1.0), MAX_HEIGHT))
    figure = Figure(figsize=size, dpi=dpi)
    figure.set_layout_engine("constrained", **spaces)
    return figure


def add_class_legend(figure: Figure, names: Sequence[str], colors: Colors, *, columns: int) -> None:
    """A square of each colour and its name, in rows of `columns` under the panels; nothing without names."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=css_color(color), edgecolor="#444444", label=name)
        for name, color in zip(names, colors, strict=False)
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(names), columns),
            fontsize=8,
            frameon=False,
        )


FORMATS = ("png", "svg")


def save_figure(figure: Figure, path: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write `path` with each format's suffix in place of its own; returns the files. Folders are made.

    Grids and images stay in their own cells and pixels in SVG, so that it can be magnified.
    """
    from matplotlib import rc_context

    files = [Path(path).with_suffix(f".{kind}") for kind in formats]
    for file, kind in zip(files, formats, strict=True):
        # A fixed salt and no date: figures that are kept under version control change when their content does.
        with rc_context({"svg.hashsalt": "pointrend"}), atomic_write(file) as unfinished:
            figure.savefig(
                unfinished, format=kind, dpi=figure.dpi, metadata={"Date": None} if kind == "svg" else None
            )
    return files


def extent_of(image: RGBImage | None, box: Box | None) -> Extent:
    """Of the region: its box, the image, or the unit square."""
    if box is not None:
        x1, y1, x2, y2 = (float(side) for side in box)
        if not (x2 > x1 and y2 > y1):
            raise ValueError(f"box: expected x1 < x2 and y1 < y2, got {tuple(box)}")
        return x1, x2, y2, y1
    return (0.0, 1.0, 1.0, 0.0) if image is None else (0.0, image.shape[1], image.shape[0], 0.0)


def inside_of(extent: Extent, image: RGBImage) -> Extent:
    """The part of the extent that lies in the image; all of it where none does."""
    left, right = max(extent[0], 0.0), min(extent[1], float(image.shape[1]))
    bottom, top = min(extent[2], float(image.shape[0])), max(extent[3], 0.0)
    return (left, right, bottom, top) if left < right and top < bottom else extent


def show(axes: Axes, image: RGBImage, extent: Extent, title: str, *, smooth: bool = False) -> None:
    """The image at its place, without ticks; `smooth` for photographs that are shown smaller than they are."""
    # "none" keeps a grid's own cells in vector files, too; in pixels it is the nearest cell.
    axes.imshow(image, extent=extent, interpolation="antialiased" if smooth else "none")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def around(box: Box, image: RGBImage, margin: float = 0.12) -> Extent:
    """The box and a margin (a share of its longer side, at least 2 pixels) round it, as far as the image goes; in
    whole pixels."""
    x1, y1, x2, y2 = box
    wider = max(margin * max(x2 - x1, y2 - y1), 2.0)
    low, high = (
        (math.floor(x1 - wider), math.floor(y1 - wider)),
        (math.ceil(x2 + wider), math.ceil(y2 + wider)),
    )
    return inside_of((low[0], high[0], high[1], low[1]), image)


def at_pixels(grid: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """A grid (h, w) of cells over `box` as seen at each pixel's centre, (H, W) of `size`, without interpolation.

    `box` is in the pixels of `size` and covers them all.
    """
    rows, columns = (
        ((np.arange(count) + 0.5 - low) * cells / (high - low)).astype(np.int64).clip(0, cells - 1)
        for count, cells, low, high in zip(size, grid.shape, (box[1], box[0]), (box[3], box[2]), strict=True)
    )
    return grid[rows[:, None], columns[None]]


def frame(axes: Axes, extent: Extent, color: str = "#ffe14d") -> None:
    """A rectangle round a part of the panel's plane, light on dark so that it shows on any image."""
    from matplotlib.patches import Rectangle

    corner, wide, high = (extent[0], extent[3]), extent[1] - extent[0], extent[2] - extent[3]
    for edge, line in (("black", 2.8), (color, 1.4)):
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=edge, linewidth=line))


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
