"""The points of a prediction, drawn from the trace that `subdivide` keeps (the paper's figures 4, 5 and 9).

Nothing is computed a second time: each panel is a grid of the subdivision itself. Grids are shown cell by cell, without
interpolation, on the pixels that they cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pointrend.core.selection import PointSampling, sample_training_points, uncertainty_for
from pointrend.core.subdivision import SubdivisionStep
from pointrend.models.inputs import Preprocessing, resized_size
from pointrend.visualize.colors import Colors, RGBImage, as_palette, color_labels, step_colors
from pointrend.visualize.figures import Extent, extent_of, inside_of, new_figure, show
from pointrend.visualize.label_placement import Box
from pointrend.visualize.overlays import Drawable, as_image, enlarge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINT_COLOR = "#ff2a2a"
MANY_POINTS = 1500
DARK = 0.35
"""What is left of the image's brightness under dots."""


def color_logits(logits: torch.Tensor, palette: Colors | None = None) -> RGBImage:
    """Logits (C, H, W) as an image (H, W, 3): the best class in its colour, or for C = 1 the probability in
    grey.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits: expected one region (C, H, W), got {tuple(logits.shape)}")
    if logits.shape[0] > 1:
        return color_labels(logits.argmax(0), as_palette(palette, logits.shape[0]))
    grey = np.rint(logits[0].detach().float().sigmoid().cpu().numpy() * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def plot_steps(
    trace: Sequence[SubdivisionStep],
    *,
    image: Drawable | None = None,
    box: Box | None = None,
    region: int = 0,
    palette: Colors | None = None,
    title: str | None = None,
) -> Figure:
    """One column per subdivision step: what was upsampled, the points chosen on it and on the image, what
    came out.

    Args:
        image: the image, for a row that shows it with the chosen points; without it that row is left out.
        box: where the region lies in the image, in its pixels; the whole image if not given. It may reach
            beyond the image (`traced_box`: the network saw it padded), of which nothing is shown then. Without an
            image the axes are the region's unit square.
        region: which of the N regions of the trace (which box, or which image of the batch).
        palette: colours of the classes, for logits of more than one class.

    Raises:
        ValueError: the trace is empty (no step ran, or `subdivide` was called without `trace`), or lacks the
            region.
    """
    if not trace:
        raise ValueError("trace: no step to draw; pass `trace=[]` to subdivide or refine, and that list here")
    if not 0 <= region < len(trace[0].logits):
        raise ValueError(f"region: the trace has regions 0..{len(trace[0].logits) - 1}, got {region}")
    photo, extent, shown = _planes(image, box)
    rows = 2 if photo is None else 3
    aspect = abs((shown[2] - shown[3]) / (shown[1] - shown[0]))
    figure = new_figure(2.9 * len(trace), (2.9 * aspect + 0.28) * rows + 0.45)
    grid = figure.subplots(rows, len(trace), squeeze=False)
    for panels, step in zip(grid.T, trace, strict=True):
        draw_step(list(panels), step, extent, image=photo, shown=shown, region=region, palette=palette)
    for axes in grid.flat:
        axes.set(xlim=shown[:2], ylim=shown[2:])
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _planes(image: Drawable | None, box: Box | None) -> tuple[RGBImage | None, Extent, Extent]:
    """The image, what the region covers of its plane, and the part of that which is shown: without the padding."""
    photo = None if image is None else as_image(image)
    extent = extent_of(photo, box)
    return photo, extent, extent if photo is None else inside_of(extent, photo)


def draw_step(
    panels: Sequence[Axes],
    step: SubdivisionStep,
    extent: Extent,
    *,
    shown: Extent,
    image: RGBImage | None = None,
    region: int = 0,
    palette: Colors | None = None,
) -> None:
    """A panel each: what was upsampled, with the points chosen on it; the points on the image, if there is one; what
    was predicted. `extent`, `shown` as for `draw_points`.
    """
    size, count = f"{step.size[0]}×{step.size[1]}", step.index.shape[1]
    show(panels[0], color_logits(step.upsampled[region], palette), extent, f"upsampled to {size}")
    if image is not None:
        share = count / (step.size[0] * step.size[1])
        show(panels[1], image, extent_of(image, None), f"{count} points, {share:.0%} of the cells")
    for panel in panels[:-1]:
        draw_points(panel, step, extent, region, shown=shown)
    show(panels[-1], color_logits(step.logits[region], palette), extent, f"predicted there, {size}")


def draw_points(
    axes: Axes,
    step: SubdivisionStep,
    extent: Extent,
    region: int = 0,
    *,
    shown: Extent | None = None,
    inches: float = 2.7,
) -> None:
    """Dots at the chosen points, each a little smaller than its cell (but never too small to be seen).

    Args:
        extent: left, right, bottom, top of the region.
        shown: what of the plane the panel shows, where that is not the region; dots elsewhere are left out.
        inches: the panel's width.
    """
    left, right, bottom, top = extent
    shown = extent if shown is None else shown
    points = step.points[region].detach().cpu().numpy() * (right - left, bottom - top) + (left, top)
    x, y = points[:, 0], points[:, 1]
    here = (x >= shown[0]) & (x <= shown[1]) & (y >= shown[3]) & (y <= shown[2])
    smaller = min((right - left) / max(step.size[1], 1), (bottom - top) / max(step.size[0], 1))
    cell = inches * smaller / (shown[1] - shown[0])
    size = float(np.clip(72 * cell * 0.72, 0.9, 7.0)) ** 2
    # A vector file with tens of thousands of dots opens slowly; its pixels are drawn instead.
    many = int(here.sum()) > MANY_POINTS
    axes.scatter(x[here], y[here], s=size, c=POINT_COLOR, linewidths=0, rasterized=many)


def draw_chosen(
    image: Drawable,
    trace: Sequence[SubdivisionStep],
    *,
    box: Box | None = None,
    region: int = 0,
    scale: int = 4,
) -> RGBImage:
    """The darkened image, `scale` times as large, with a dot at every point of every step (H * scale, W * scale, 3).

    Colours go from yellow (first step, largest dots) to red (last step). `box` is where the region lies in the image,
    as for `plot_steps`.
    """
    photo = as_image(image)
    left, right, bottom, top = (scale * side for side in extent_of(photo, box))
    dots = []
    for step in trace:
        points = step.points[region].cpu().numpy() * (right - left, bottom - top) + (left, top)
        cell = min((right - left) / step.size[1], (bottom - top) / step.size[0])
        dots.append((points, np.full(len(points), np.clip(0.3 * cell, 0.8, 1.2 * scale))))
    return draw_dots(enlarge(photo, scale), dots)


def draw_dots(
    image: RGBImage, dots: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]
) -> RGBImage:
    """The darkened image (H, W, 3) with the dots of each step, the first yellow, the last red and on top.

    Args:
        dots: for each step the dots' centres (P, 2), (x, y), and their radii (P,), in pixels of the image.
    """
    height, width = image.shape[:2]
    canvas: RGBImage = np.rint(image * DARK).astype(np.uint8)
    for (centres, radii), color in zip(dots, step_colors(len(dots)), strict=True):
        pixels = np.floor(centres).astype(np.int64)
        for radius in np.unique(radii):
            x, y = pixels[radii == radius].T
            for dx, dy in disc(float(radius)):
                inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
                canvas[y[inside] + dy, x[inside] + dx] = color
    return canvas


def disc(radius: float) -> list[tuple[int, int]]:
    """Pixels (dx, dy) whose centres lie within `radius` of that of pixel (0, 0)."""
    reach = range(-int(radius), int(radius) + 1)
    return [(dx, dy) for dx in reach for dy in reach if dx * dx + dy * dy <= radius * radius]


def traced_box(image: Drawable, preprocessing: Preprocessing) -> Box:
    """What part of an image's plane the trace of a semantic `predict` covers, in the image's own pixels.

    The network sees the image resized, and padded on the right and at the bottom (alone in its batch): subdivision
    runs over the padding, too, so that the box reaches beyond the image.
    """
    height, width = as_image(image).shape[:2]
    rows, columns = resized_size(height, width, preprocessing)
    divisor = preprocessing.divisor
    padded_rows, padded_columns = -(-rows // divisor) * divisor, -(-columns // divisor) * divisor
    return 0.0, 0.0, width * padded_columns / columns, height * padded_rows / rows


def plot_uncertainty(
    image: Drawable,
    uncertainty: torch.Tensor | np.ndarray,
    *,
    box: Box | None = None,
) -> Figure:
    """The image and beside it the uncertainty map (H, W), with its scale.

    `box` is the part of the image it covers.
    """
    photo = as_image(image)
    extent = extent_of(photo, box)
    aspect = abs((extent[2] - extent[3]) / (extent[1] - extent[0]))
    figure = new_figure(10, 4.6 * aspect + 0.5)
    left, right = figure.subplots(1, 2)
    show(left, photo, (0, photo.shape[1], photo.shape[0], 0), "image")
    left.set(xlim=extent[:2], ylim=extent[2:])
    values = (
        uncertainty.detach().cpu().float().numpy() if isinstance(uncertainty, torch.Tensor) else uncertainty
    )
    shown = right.imshow(
        np.asarray(values, dtype=np.float64), cmap="plasma", extent=extent, interpolation="nearest"
    )
    right.set(title="uncertainty", xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, shrink=0.85)
    return figure


def training_choices(coarse: torch.Tensor, count: int = 196) -> dict[str, torch.Tensor]:
    """The paper's four ways to choose training points, on the same coarse logits (N, C, H, W) (figure 5, table 4).

    Args:
        count: points for each region, 14 x 14 as in the paper; must be a square for the regular grid.

    Returns:
        name -> points (N, count, 2) in the unit square, as `sample_training_points` draws them.
    """
    strategies = {
        "regular grid": PointSampling.regular(count),
        "uniform\nk = 1, β = 0": PointSampling.uniform(count),
        "mildly biased\nk = 3, β = 0.75": PointSampling.mildly_biased(count),
        "heavily biased\nk = 10, β = 1": PointSampling.heavily_biased(count),
    }
    measure = uncertainty_for(coarse.shape[1])
    return {
        name: sample_training_points(
            coarse, sampling, measure, generator=torch.Generator().manual_seed(0)
        ).cpu()
        for name, sampling in strategies.items()
    }


def plot_training_points(
    coarse: torch.Tensor,
    choices: Mapping[str, torch.Tensor],
    *,
    image: Drawable | None = None,
    box: Box | None = None,
    region: int = 0,
    palette: Colors | None = None,
) -> Figure:
    """Training points of several strategies on the same coarse prediction (paper figure 5).

    Args:
        coarse: logits (N, C, H, W).
        choices: name of the strategy -> its points (N, P, 2) in the unit square, see `training_choices`.
        image, box: for a second row, with the points on the image; as in `plot_steps`.
    """
    background = color_logits(coarse[region], palette)
    photo, extent, shown = _planes(image, box)
    ratio = coarse.shape[2] / coarse.shape[3] if photo is None else 1.0
    aspect = ratio * abs((shown[2] - shown[3]) / (shown[1] - shown[0]))
    columns, rows = max(len(choices), 1), 1 if photo is None else 2
    titles = max((name.count("\n") + 1 for name in choices), default=1)
    figure = new_figure(2.9 * columns, rows * (2.9 * aspect + 0.05) + 0.17 * titles + 0.1, tight=True)
    panels = figure.subplots(rows, columns, squeeze=False)
    for column, (name, points) in enumerate(choices.items()):
        unit = points[region].detach().cpu().numpy()
        where = unit * (extent[1] - extent[0], extent[2] - extent[3]) + (extent[0], extent[3])
        size = float(np.clip(1600 / max(len(unit), 1), 2.0, 9.0))
        for row, axes in enumerate(panels[:, column]):
            if row == 0 or photo is None:
                show(axes, background, extent, name)
            else:
                show(axes, photo, (0, photo.shape[1], photo.shape[0], 0), "")
            axes.set(xlim=shown[:2], ylim=shown[2:], aspect=ratio)
            axes.scatter(where[:, 0], where[:, 1], s=size, c=POINT_COLOR, edgecolors="white", linewidths=0.3)
    return figure
