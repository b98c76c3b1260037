"""Predictions side by side, magnified where they differ most (the paper's figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pointrend.masks.export import label_map
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import class_name
from pointrend.visualize.colors import Colors, RGBImage, as_labels, as_palette
from pointrend.visualize.figures import add_class_legend, frame, new_figure
from pointrend.visualize.overlays import (
    Drawable,
    as_image,
    draw_instances,
    draw_labels,
    enlarge,
    present_classes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LabelMap = torch.Tensor | np.ndarray  # (H, W)
SMALL = 720  # pixels; images with a long side below half of it are shown magnified
MARKS = ("#ffffff", "#ffe14d", "#7df9ff", "#ff9df5")  # frames of the first, second, ... window


class Window(NamedTuple):
    """A rectangle of pixels: rows top..bottom and columns left..right, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    def crop(self, image: RGBImage) -> RGBImage:
        """What the window shows of the image."""
        return image[self.top : self.bottom, self.left : self.right]

    @classmethod
    def around(cls, x: int, y: int, side: int, size: tuple[int, int]) -> Window:
        """`side` pixels a side with (x, y) in the middle, moved (and cut if it must) into an image of `size` (H, W).

        Raises ValueError where (x, y) is outside of the image.
        """
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise ValueError(f"expected a pixel (x, y) inside {size[1]}x{size[0]}, got ({x}, {y})")
        rows, columns = min(side, size[0]), min(side, size[1])
        top, left = (
            min(max(y - rows // 2, 0), size[0] - rows),
            min(max(x - columns // 2, 0), size[1] - columns),
        )
        return cls(top, left, top + rows, left + columns)

    def scaled(self, factor: int) -> Window:
        """The same part of an image `factor` times as large."""
        return Window(*(factor * side for side in self))


def largest_differences(
    before: LabelMap, after: LabelMap, *, truth: LabelMap | None = None, size: int = 64, count: int = 1
) -> list[Window]:
    """The `count` windows, `size` pixels a side and not overlapping, in which two label maps (H, W) differ
    most.

    With `truth` (255 ignored) a pixel counts +1 where `after` mended it and -1 where it broke it, so the
    windows show what was gained; without, every changed pixel counts. Fewer windows come back where nothing
    more differs; one (the first, at the top left) where nothing differs at all. Windows are cut to maps
    smaller than `size`.
    """
    first, second = as_labels(before), as_labels(after)
    if first.shape != second.shape:
        raise ValueError(f"label maps: expected one size, got {first.shape} and {second.shape}")
    score = (first != second).astype(np.float64)
    if truth is not None:
        target = as_labels(truth)
        score = ((second == target).astype(np.float64) - (first == target)) * (target != 255)
    rows, columns = min(size, score.shape[0]), min(size, score.shape[1])
    windows: list[Window] = []
    while len(windows) < count:
        sums = _window_sums(score, rows, columns)
        for other in windows:  # no window that would overlap one already chosen
            sums[
                max(0, other.top - rows + 1) : other.bottom, max(0, other.left - columns + 1) : other.right
            ] = -np.inf
        top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
        if windows and sums[top, left] <= 0:
            break
        windows.append(Window(int(top), int(left), int(top) + rows, int(left) + columns))
    return windows


def side_by_side(
    panels: Mapping[str, RGBImage],
    *,
    windows: Sequence[Window] = (),
    names: Sequence[str] = (),
    colors: Colors | None = None,
    title: str | None = None,
    width: float = 3.0,
) -> Figure:
    """Images of one size in a row under their names; below each, its `windows` magnified without
    interpolation.

    Args:
        panels: title -> image (H, W, 3). A newline in a title is kept (a second line for a score, say).
        names, colors: a legend of classes under it all; no legend without names.
        width: of a panel, in inches.
    """
    if not panels:
        raise ValueError("panels: expected at least one image, got none")
    sizes = {image.shape[:2] for image in panels.values()}
    if len(sizes) > 1:
        raise ValueError(f"panels: expected images of one size, got {sorted(sizes)}")
    ((rows, columns),) = sizes
    heights = [rows / columns] + [(w.bottom - w.top) / max(w.right - w.left, 1) for w in windows]
    height = width * sum(heights) + 0.45 + (0.35 if names else 0) + (0.3 if title else 0)
    figure = new_figure(width * len(panels), height, tight=True, dpi=120)
    grid = figure.subplots(1 + len(windows), len(panels), squeeze=False, height_ratios=heights)
    for column, (name, image) in enumerate(panels.items()):
        grid[0, column].imshow(image, interpolation="antialiased")
        grid[0, column].set_title(name, fontsize=10)
        for row, window in enumerate(windows):
            top, left, bottom, right = (side - 0.5 for side in window)
            frame(grid[0, column], (left, right, bottom, top), MARKS[row % len(MARKS)])
            grid[row + 1, column].imshow(window.crop(image), interpolation="nearest")
            for spine in grid[row + 1, column].spines.values():
                spine.set(edgecolor="#444444", linewidth=1.0)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    add_class_legend(figure, names, as_palette(colors, len(names)), columns=3 * len(panels))
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def compare_results(
    image: Drawable,
    results: Mapping[str, InstanceResult | SemanticResult],
    *,
    between: tuple[str, str] | None = None,
    windows: Sequence[Window] | None = None,
    min_score: float = 0.5,
    width: float = 3.6,
) -> Figure:
    """Predictions of one image, each drawn on it, side by side; below, magnified where two of them differ most.

    Args:
        image: uint8 RGB; shown larger, smoothly, where the masks are those of an image so many times as large
            (`variants` renders them so).
        results: name -> prediction.
        between: the two that the magnified windows tell apart; the first and the last if not given.
        windows: what to magnify, in pixels of the masks; two places of the largest difference if not given.
        min_score: objects with a lower score are not drawn.
        width: of a panel, in inches.

    Raises:
        ValueError: there is no result, or their sizes differ, or are no multiple of the image's.
    """
    if not results:
        raise ValueError("results: expected at least one prediction, got none")
    large = _as_large_as(as_image(image), list(results.values()))
    if windows is None:
        first, last = (
            label_map(results[name], min_score=min_score, nothing=-1)
            for name in between or (next(iter(results)), list(results)[-1])
        )
        side = max(24, min(large.shape[:2]) // 5)
        windows = largest_differences(first, last, size=side, count=2)
    present = sorted({label for result in results.values() for label in present_classes(result, min_score)})
    some = next(iter(results.values()))
    palette = some.palette if isinstance(some, SemanticResult) else None
    scale = max(1, SMALL // max(large.shape[:2]))  # thin lines on small images, too
    return side_by_side(
        {name: _drawn(large, result, scale, min_score) for name, result in results.items()},
        windows=[window.scaled(scale) for window in windows],
        names=[class_name(some.class_names, label) for label in present],
        colors=as_palette(palette, max(present, default=-1) + 1)[present],
        width=width,
    )


def _drawn(
    image: RGBImage, result: InstanceResult | SemanticResult, scale: int, min_score: float
) -> RGBImage:
    """The prediction on the image, each pixel of both `scale` times as large; lines are one pixel of the outcome."""
    if isinstance(result, InstanceResult):
        drawn = draw_instances(image, result, min_score=min_score, captions=False)
        return enlarge(drawn, scale)
    return draw_labels(enlarge(image, scale), enlarge(as_labels(result.labels), scale), result.palette)


def _as_large_as(image: RGBImage, results: Sequence[InstanceResult | SemanticResult]) -> RGBImage:
    """The image magnified smoothly to the size of the masks, all of which have the same."""
    sizes = {tuple(r.labels.shape if isinstance(r, SemanticResult) else r.masks.image_size) for r in results}
    rows, columns = image.shape[:2]
    if len(sizes) > 1 or any(h % rows or w % columns or h // rows != w // columns for h, w in sizes):
        raise ValueError(
            f"results: expected one size, a multiple of the image's {(rows, columns)}, got {sorted(sizes)}"
        )
    ((height, width),) = sizes
    if (height, width) == (rows, columns):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _window_sums(score: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Sum of `score` over every window of rows x columns, by the window's top left pixel (a summed-area
    table).
    """
    table = np.pad(score.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums: npt.NDArray[np.float64] = (
        table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    )
    return sums
