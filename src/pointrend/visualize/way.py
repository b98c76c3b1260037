"""Figures of an `Explanation`: the whole way of a prediction (the paper's figures 4, 6, 7 and 9), for both tasks."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pointrend.core.subdivision import SubdivisionStep
from pointrend.structures import InstanceResult
from pointrend.visualize.compare import Window, largest_differences, side_by_side
from pointrend.visualize.explanation import Explanation
from pointrend.visualize.features import color_features, crop_features
from pointrend.visualize.overlays import Mask, draw_instances, draw_labels, fill_mask, instance_colors
from pointrend.visualize.palettes import Picture, color_labels, heatmap
from pointrend.visualize.panels import Extent, around, at_pixels, extent_of, frame, inside_of, show
from pointrend.visualize.points import color_logits, draw_points
from pointrend.visualize.sizes import bounded

PANEL = 2.7  # inches
EMPTY = "#e8e8e8"


def plot_way(explanation: Explanation, *, window: Window | None = None) -> Figure:
    """Everything in one figure.

    Above: the picture, what the model says of it, and how uncertain it is. Below, a column for each resolution: what
    was upsampled with the points chosen on it, the same points on the picture, what was predicted, and for an object
    its mask. The first column has what comes before the subdivision: features, coarse prediction, the starting grid.

    Args:
        window: of a whole picture, the part that the columns show; where the steps change most if not given.
    """
    view = view_of(explanation, window)
    aspect = (view[2] - view[3]) / (view[1] - view[0])
    columns, rows = 1 + len(explanation.steps), 3 if explanation.semantic else 4
    width = PANEL * max(columns, 3)
    picture_aspect = explanation.image.shape[0] / explanation.image.shape[1]
    heights = width / 3 * picture_aspect + 0.3, rows * (PANEL * aspect + 0.3)
    figure = Figure(figsize=(width + 0.3, bounded(sum(heights) + 0.35)), dpi=110, layout="constrained")
    figure.suptitle(f"PointRend: {explanation.title}", fontsize=12)
    parts = figure.add_gridspec(2, 1, height_ratios=heights)
    above, below = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    _overview(explanation, view, above.subplots(1, 3))
    grid = below.subplots(rows, columns, squeeze=False)
    _before(explanation, list(grid[:, 0]))
    for step, panels in zip(explanation.steps, grid[:, 1:].T, strict=True):
        _step(explanation, step, view, list(panels))
    if not explanation.semantic:
        pictures = _covered(explanation, *_closeup(explanation))
        for picture, panel, logits in zip(pictures, grid[3], explanation.grids, strict=True):
            show(panel, picture, view, f"mask at {_size(logits)}")
    for panel in grid.flat:
        panel.set(xlim=view[:2], ylim=view[2:], facecolor=EMPTY)
    return figure


def plot_resolutions(explanation: Explanation, *, window: Window | None = None) -> Figure:
    """The prediction at each resolution: an object's mask on the picture (figures 6 and 7), a whole picture's arg max
    without interpolation (figure 9). Below, magnified, where the first and the last differ most.

    Args:
        window: what to magnify of a whole picture, in its pixels.
    """
    if not explanation.semantic:
        large, masks = _closeup(explanation)
        pictures = _covered(explanation, large, masks)
        side = max(16, min(masks[0].shape) // 4)
        windows = largest_differences(masks[0], masks[-1], size=side, count=2)
        names = [_size(logits) for logits in explanation.grids]
        return side_by_side(dict(zip(names, pictures, strict=True)), windows=windows)
    size = explanation.image.shape[:2]
    scale = max(1, round(720 / max(size)))
    labels = [
        at_pixels(
            logits.argmax(0).numpy(), _scaled(explanation.box, scale), (scale * size[0], scale * size[1])
        )
        for logits in explanation.grids
    ]
    panels = {
        _size(logits): color_labels(label, explanation.palette)
        for logits, label in zip(explanation.grids, labels, strict=True)
    }
    shown = (window or _most_changed(explanation)).scaled(scale)
    return side_by_side(
        panels, windows=[shown], names=explanation.result.class_names, colors=explanation.palette
    )


def plot_features(explanation: Explanation) -> Figure:
    """The picture, and the feature maps that the point head looks at, their principal components as colours."""
    view = extent_of(explanation.image, None)
    if not explanation.semantic:
        view = around(explanation.box, explanation.image)
    aspect = (view[2] - view[3]) / (view[1] - view[0])
    count = 1 + len(explanation.features)
    figure = Figure(figsize=(3.2 * count, bounded(3.2 * aspect + 0.3)), dpi=110, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    show(panels[0], explanation.image, extent_of(explanation.image, None), "picture")
    for panel, name in zip(panels[1:], explanation.features, strict=True):
        _features(explanation, name, panel)
    for panel in panels:
        panel.set(xlim=view[:2], ylim=view[2:])
    return figure


def draw_result(explanation: Explanation) -> Picture:
    """What the model says, on the picture; of an instance model the one object, without its name."""
    result = explanation.result
    if isinstance(result, InstanceResult):
        return draw_instances(explanation.image, result, tags=False)
    return draw_labels(explanation.image, result.labels, result.palette)


def view_of(explanation: Explanation, window: Window | None = None) -> Extent:
    """The part of the picture that an object's figures show, or a whole picture's `window` (by default where the steps
    change most).
    """
    if not explanation.semantic:
        return around(explanation.box, explanation.image)
    top, left, bottom, right = window or _most_changed(explanation)
    return float(left), float(right), float(bottom), float(top)


def _most_changed(explanation: Explanation) -> Window:
    """Where the coarse arg max and the final labels of a whole picture differ most: a quarter of its short side."""
    size = explanation.image.shape[:2]
    coarse = at_pixels(explanation.start.argmax(0).numpy(), explanation.box, size)
    final = at_pixels(explanation.grids[-1].argmax(0).numpy(), explanation.box, size)
    return largest_differences(coarse, final, size=max(24, min(size) // 4))[0]


def _overview(explanation: Explanation, view: Extent, panels: list[Axes]) -> None:
    picture, result = explanation.image, explanation.result
    show(panels[0], picture, extent_of(picture, None), "picture", smooth=True)
    frame(panels[0], view)
    show(panels[1], draw_result(explanation), extent_of(picture, None), "prediction", smooth=True)
    uncertainty = result.uncertainty
    assert uncertainty is not None
    if isinstance(result, InstanceResult):
        extent = extent_of(None, explanation.box)
        show(panels[2], heatmap(uncertainty[0], 0, 1), extent, "uncertainty of the mask")
        panels[2].set(xlim=view[:2], ylim=view[2:], facecolor=EMPTY)
    else:
        show(panels[2], heatmap(uncertainty, 0, 1), extent_of(picture, None), "uncertainty")
        frame(panels[2], view)


def _before(explanation: Explanation, panels: list[Axes]) -> None:
    """The first column: features, coarse prediction, starting grid."""
    extent = extent_of(None, explanation.box)
    name = next(iter(explanation.features))
    if explanation.semantic:
        _features(explanation, name, panels[0])
        show(panels[1], explanation.image, extent_of(explanation.image, None), "picture")
        panels[0].set_ylabel("upsampled, points", fontsize=9)
        panels[1].set_ylabel("points on the picture", fontsize=9)
        panels[2].set_ylabel("arg max", fontsize=9)
        show(
            panels[2], _logits(explanation, explanation.start), extent, f"coarse, {_size(explanation.start)}"
        )
        return
    if explanation.coarse is None:
        panels[0].set_title("no coarse prediction", fontsize=9)
        panels[0].set(xticks=[], yticks=[])
    else:
        show(panels[0], color_logits(explanation.coarse), extent, f"coarse, {_size(explanation.coarse)}")
    _features(explanation, name, panels[1])
    show(
        panels[2],
        color_logits(explanation.start),
        extent,
        f"{_size(explanation.start)}, every cell predicted",
    )
    for panel, text in zip(
        panels, ("upsampled, points", "points on the picture", "predicted", "mask"), strict=True
    ):
        panel.set_ylabel(text, fontsize=9)


def _step(explanation: Explanation, step: SubdivisionStep, view: Extent, panels: list[Axes]) -> None:
    extent, size = extent_of(None, explanation.box), f"{step.size[0]}×{step.size[1]}"
    count = step.index.shape[1]
    share = count / (step.size[0] * step.size[1])
    show(panels[0], _logits(explanation, step.upsampled[0]), extent, f"upsampled to {size}")
    show(
        panels[1],
        explanation.image,
        extent_of(explanation.image, None),
        f"{count} points, {share:.0%} of the cells",
    )
    for panel in panels[:2]:
        draw_points(panel, step, extent, shown=view, inches=PANEL)
    show(panels[2], _logits(explanation, step.logits[0]), extent, f"predicted there, {size}")


def _features(explanation: Explanation, name: str, panel: Axes) -> None:
    maps = explanation.features[name]
    inside = inside_of(extent_of(None, explanation.box), explanation.image)  # without the padding
    box = (inside[0], inside[3], inside[1], inside[2])
    cells, covered = crop_features(maps, explanation.plane, box)
    title = f"features {name}, {maps.shape[0]} channels, {maps.shape[1]}×{maps.shape[2]}"
    show(panel, color_features(cells), extent_of(None, covered), title)


def _closeup(explanation: Explanation, longest: int = 480) -> tuple[Picture, list[Mask]]:
    """The part of the picture round the object, magnified smoothly, and the object's mask there at each resolution."""
    left, right, bottom, top = (int(side) for side in around(explanation.box, explanation.image))
    crop = Image.fromarray(explanation.image[top:bottom, left:right])
    scale = max(1, round(longest / max(crop.size)))
    large = crop.resize((scale * crop.width, scale * crop.height), Image.Resampling.BICUBIC)
    masks = [
        mask[scale * top : scale * bottom, scale * left : scale * right].numpy()
        for mask in explanation.masks(scale)
    ]
    return np.asarray(large), masks


def _covered(explanation: Explanation, large: Picture, masks: list[Mask]) -> list[Picture]:
    """The magnified picture under each of the masks."""
    assert isinstance(explanation.result, InstanceResult)
    (color,) = instance_colors(explanation.result)
    pictures = [large.copy() for _ in masks]
    for picture, mask in zip(pictures, masks, strict=True):
        fill_mask(picture, mask, (0, 0), color, 0.45, 2)
    return pictures


def _logits(explanation: Explanation, logits: torch.Tensor) -> Picture:
    return color_logits(logits, explanation.palette or None)


def _scaled(box: tuple[float, float, float, float], scale: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return scale * x1, scale * y1, scale * x2, scale * y2


def _size(logits: torch.Tensor) -> str:
    return f"{logits.shape[1]}×{logits.shape[2]}"
