"""Figures of an `Explanation`: every step of a prediction (the paper's figures 4, 6, 7 and 9), for both tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from pointrend.results import InstanceResult
from pointrend.visualize.colors import RGBImage, color_labels, heatmap
from pointrend.visualize.comparison import Window, largest_differences, side_by_side
from pointrend.visualize.explain import Explanation
from pointrend.visualize.figures import (
    Extent,
    around,
    at_pixels,
    extent_of,
    frame,
    inside_of,
    new_figure,
    show,
)
from pointrend.visualize.label_placement import Box, Mask
from pointrend.visualize.overlays import draw, fill_mask, instance_colors
from pointrend.visualize.points import color_logits, draw_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 2.7  # inches
EMPTY = "#e8e8e8"


def plot_overview(explanation: Explanation, *, window: Window | None = None) -> Figure:
    """Everything in one figure.

    Above: the image, what the model says of it, and how uncertain it is. Below, a column for each resolution: what
    was upsampled with the points chosen on it, the same points on the image, what was predicted, and for an object
    its mask. The first column has what comes before the subdivision: features, coarse prediction, the starting grid.

    Args:
        window: of a whole image, the part that the columns show; where the steps change most if not given.
    """
    view = view_of(explanation, window)
    aspect = (view[2] - view[3]) / (view[1] - view[0])
    columns, rows = 1 + len(explanation.steps), 3 if explanation.semantic else 4
    width = PANEL * max(columns, 3)
    image_aspect = explanation.image.shape[0] / explanation.image.shape[1]
    heights = width / 3 * image_aspect + 0.3, rows * (PANEL * aspect + 0.3)
    figure = new_figure(width + 0.3, sum(heights) + 0.35)
    figure.suptitle(f"PointRend: {explanation.title}", fontsize=12)
    parts = figure.add_gridspec(2, 1, height_ratios=heights)
    above, below = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    _overview(explanation, view, above.subplots(1, 3))
    grid = below.subplots(rows, columns, squeeze=False)
    _before(explanation, list(grid[:, 0]))
    for step, panels in zip(explanation.steps, grid[:, 1:].T, strict=True):
        draw_step(
            list(panels[:3]),
            step,
            extent_of(None, explanation.box),
            shown=view,
            image=explanation.image,
            palette=explanation.palette or None,
        )
    if not explanation.semantic:
        images = _covered(explanation, *_closeup(explanation))
        for image, panel, logits in zip(images, grid[3], explanation.grids, strict=True):
            show(panel, image, view, f"mask at {_size(logits)}")
    for panel in grid.flat:
        panel.set(xlim=view[:2], ylim=view[2:], facecolor=EMPTY)
    return figure


def plot_resolutions(explanation: Explanation, *, window: Window | None = None) -> Figure:
    """The prediction at each resolution: an object's mask on the image (figures 6 and 7), a whole image's arg max
    without interpolation (figure 9). Below, magnified, where the first and the last differ most.

    Args:
        window: what to magnify of a whole image, in its pixels.
    """
    if not explanation.semantic:
        large, masks = _closeup(explanation)
        images = _covered(explanation, large, masks)
        side = max(16, min(masks[0].shape) // 4)
        windows = largest_differences(masks[0], masks[-1], size=side, count=2)
        names = [_size(logits) for logits in explanation.grids]
        return side_by_side(dict(zip(names, images, strict=True)), windows=windows)
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
    """The image, and the feature maps that the point head looks at, their principal components as colours."""
    view = extent_of(explanation.image, None)
    if not explanation.semantic:
        view = around(explanation.box, explanation.image)
    aspect = (view[2] - view[3]) / (view[1] - view[0])
    count = 1 + len(explanation.features)
    figure = new_figure(3.2 * count, 3.2 * aspect + 0.3)
    panels = figure.subplots(1, count, squeeze=False)[0]
    show(panels[0], explanation.image, extent_of(explanation.image, None), "image")
    for panel, name in zip(panels[1:], explanation.features, strict=True):
        _features(explanation, name, panel)
    for panel in panels:
        panel.set(xlim=view[:2], ylim=view[2:])
    return figure


def view_of(explanation: Explanation, window: Window | None = None) -> Extent:
    """The part of the image that an object's figures show, or a whole image's `window` (by default where the steps
    change most).
    """
    if not explanation.semantic:
        return around(explanation.box, explanation.image)
    top, left, bottom, right = window or _most_changed(explanation)
    return float(left), float(right), float(bottom), float(top)


def _most_changed(explanation: Explanation) -> Window:
    """Where the coarse arg max and the final labels of a whole image differ most: a quarter of its short side."""
    size = explanation.image.shape[:2]
    coarse = at_pixels(explanation.start.argmax(0).numpy(), explanation.box, size)
    final = at_pixels(explanation.grids[-1].argmax(0).numpy(), explanation.box, size)
    return largest_differences(coarse, final, size=max(24, min(size) // 4))[0]


def _overview(explanation: Explanation, view: Extent, panels: list[Axes]) -> None:
    image, result = explanation.image, explanation.result
    show(panels[0], image, extent_of(image, None), "image", smooth=True)
    frame(panels[0], view)
    drawn = draw(image, result, captions=False)
    show(panels[1], drawn, extent_of(image, None), "prediction", smooth=True)
    uncertainty = result.uncertainty
    assert uncertainty is not None
    if isinstance(result, InstanceResult):
        extent = extent_of(None, explanation.box)
        show(panels[2], heatmap(uncertainty[0], 0, 1), extent, "uncertainty of the mask")
        panels[2].set(xlim=view[:2], ylim=view[2:], facecolor=EMPTY)
    else:
        show(panels[2], heatmap(uncertainty, 0, 1), extent_of(image, None), "uncertainty")
        frame(panels[2], view)


def _before(explanation: Explanation, panels: list[Axes]) -> None:
    """The first column: features, coarse prediction, starting grid."""
    extent = extent_of(None, explanation.box)
    name = next(iter(explanation.features))
    if explanation.semantic:
        _features(explanation, name, panels[0])
        show(panels[1], explanation.image, extent_of(explanation.image, None), "image")
        panels[0].set_ylabel("upsampled, points", fontsize=9)
        panels[1].set_ylabel("points on the image", fontsize=9)
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
        panels, ("upsampled, points", "points on the image", "predicted", "mask"), strict=True
    ):
        panel.set_ylabel(text, fontsize=9)


def _features(explanation: Explanation, name: str, panel: Axes) -> None:
    maps = explanation.features[name]
    inside = inside_of(extent_of(None, explanation.box), explanation.image)  # without the padding
    box = (inside[0], inside[3], inside[1], inside[2])
    cells, covered = crop_features(maps, explanation.plane, box)
    title = f"features {name}, {maps.shape[0]} channels, {maps.shape[1]}×{maps.shape[2]}"
    show(panel, color_features(cells), extent_of(None, covered), title)


def _closeup(explanation: Explanation, longest: int = 480) -> tuple[RGBImage, list[Mask]]:
    """The part of the image round the object, magnified smoothly, and the object's mask there at each resolution."""
    left, right, bottom, top = (int(side) for side in around(explanation.box, explanation.image))
    crop = Image.fromarray(explanation.image[top:bottom, left:right])
    scale = max(1, round(longest / max(crop.size)))
    large = crop.resize((scale * crop.width, scale * crop.height), Image.Resampling.BICUBIC)
    masks = [
        mask[scale * top : scale * bottom, scale * left : scale * right].numpy()
        for mask in explanation.masks(scale)
    ]
    return np.asarray(large), masks


def _covered(explanation: Explanation, large: RGBImage, masks: list[Mask]) -> list[RGBImage]:
    """The magnified image under each of the masks."""
    assert isinstance(explanation.result, InstanceResult)
    (color,) = instance_colors(explanation.result)
    images = [large.copy() for _ in masks]
    for image, mask in zip(images, masks, strict=True):
        fill_mask(image, mask, (0, 0), color, 0.45, 2)
    return images


def _logits(explanation: Explanation, logits: torch.Tensor) -> RGBImage:
    return color_logits(logits, explanation.palette or None)


def _scaled(box: tuple[float, float, float, float], scale: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return scale * x1, scale * y1, scale * x2, scale * y2


def _size(logits: torch.Tensor) -> str:
    return f"{logits.shape[1]}×{logits.shape[2]}"


def color_features(features: torch.Tensor) -> RGBImage:
    """Features (C, H, W) as an image (H, W, 3): their three principal components as red, green and blue.

    Each component is stretched over its 2nd to 98th percentile, with the sign that makes its largest weight
    positive, so that the same features have the same colours each time. A component without spread is grey.
    """
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features: expected one map (C, H, W) with cells, got {tuple(features.shape)}")
    channels, rows, columns = features.shape
    flat = features.detach().cpu().double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    vectors = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)[:, :3]  # (C, 3), the strongest first
    vectors = vectors * torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
    parts = (vectors.T @ flat).numpy()  # (3, H * W), or fewer rows where there are fewer channels
    image = np.full((3, rows * columns), 0.5)
    for number, part in enumerate(parts):
        low, high = np.percentile(part, (2, 98))
        if high - low > 1e-9:
            image[number] = (part - low) / (high - low)
    if channels == 1:
        image[1:] = image[0]
    return np.rint(image.clip(0, 1).T.reshape(rows, columns, 3) * 255).astype(np.uint8)


def crop_features(features: torch.Tensor, plane: Box, box: Box) -> tuple[torch.Tensor, Box]:
    """The cells of a map (C, H, W) under a box, and the box that these cells cover exactly.

    Args:
        plane: what the whole map covers, in the same pixels as `box`.
    """
    rows, columns = features.shape[1:]
    wide, high = (plane[2] - plane[0]) / columns, (plane[3] - plane[1]) / rows
    left, right = _cells(box[0] - plane[0], box[2] - plane[0], wide, columns)
    top, bottom = _cells(box[1] - plane[1], box[3] - plane[1], high, rows)
    covered = (
        plane[0] + left * wide,
        plane[1] + top * high,
        plane[0] + right * wide,
        plane[1] + bottom * high,
    )
    return features[:, top:bottom, left:right], covered


def _cells(low: float, high: float, cell: float, count: int) -> tuple[int, int]:
    """First and one past the last of `count` cells that touch low..high; at least one."""
    first = min(max(math.floor(low / cell), 0), count - 1)
    return first, min(max(math.ceil(high / cell), first + 1), count)
