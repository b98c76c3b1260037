"""Panels of a figure that share one frame: grids and pictures drawn at their place, in pixels of the picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pointrend.visualize.overlays import Box
from pointrend.visualize.palettes import Picture

Extent = tuple[float, float, float, float]
"""Left, right, bottom, top, as imshow wants it for an image whose y axis points down."""


def extent_of(picture: Picture | None, box: Box | None) -> Extent:
    """Of the region: its box, the picture, or the unit square."""
    if box is not None:
        x1, y1, x2, y2 = (float(side) for side in box)
        if not (x2 > x1 and y2 > y1):
            raise ValueError(f"box: expected x1 < x2 and y1 < y2, got {tuple(box)}")
        return x1, x2, y2, y1
    return (0.0, 1.0, 1.0, 0.0) if picture is None else (0.0, picture.shape[1], picture.shape[0], 0.0)


def inside_of(extent: Extent, picture: Picture) -> Extent:
    """The part of the extent that lies in the picture; all of it where none does."""
    left, right = max(extent[0], 0.0), min(extent[1], float(picture.shape[1]))
    bottom, top = min(extent[2], float(picture.shape[0])), max(extent[3], 0.0)
    return (left, right, bottom, top) if left < right and top < bottom else extent


def show(axes: Axes, picture: Picture, extent: Extent, title: str, *, smooth: bool = False) -> None:
    """The picture at its place, without ticks; `smooth` for photographs that are shown smaller than they are."""
    # "none" keeps a grid's own cells in vector files, too; in pixels it is the nearest cell.
    axes.imshow(picture, extent=extent, interpolation="antialiased" if smooth else "none")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def around(box: Box, picture: Picture, margin: float = 0.12) -> Extent:
    """The box and a margin (a share of its longer side, at least 2 pixels) round it, as far as the picture goes; in
    whole pixels."""
    x1, y1, x2, y2 = box
    wider = max(margin * max(x2 - x1, y2 - y1), 2.0)
    low, high = (
        (math.floor(x1 - wider), math.floor(y1 - wider)),
        (math.ceil(x2 + wider), math.ceil(y2 + wider)),
    )
    return inside_of((low[0], high[0], high[1], low[1]), picture)


def at_pixels(grid: npt.NDArray[Any], box: Box, size: tuple[int, int]) -> npt.NDArray[Any]:
    """A grid (h, w) of cells over `box` as seen at each pixel's centre, (H, W) of `size`, without interpolation.

    `box` is in the pixels of `size` and covers them all.
    """
    rows, columns = (
        ((np.arange(count) + 0.5 - low) * cells / (high - low)).astype(np.int64).clip(0, cells - 1)
        for count, cells, low, high in zip(size, grid.shape, (box[1], box[0]), (box[3], box[2]), strict=True)
    )
    return grid[rows[:, None], columns[None]]


def frame(axes: Axes, extent: Extent, color: str = "#ffe14d") -> None:
    """A rectangle round a part of the panel's plane, light on dark so that it shows on any picture."""
    corner, wide, high = (extent[0], extent[3]), extent[1] - extent[0], extent[2] - extent[3]
    for edge, line in (("black", 2.8), (color, 1.4)):
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=edge, linewidth=line))
