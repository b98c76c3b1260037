"""One result as a figure with a legend: what `Result.plot(image)` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pointrend.structures import InstanceResult, SemanticResult
from pointrend.visualize.overlays import (
    Drawable,
    draw_instances,
    draw_labels,
    instance_colors,
    name_of,
    present_classes,
)
from pointrend.visualize.palettes import Picture, as_palette
from pointrend.visualize.sizes import bounded


def plot_instances(
    image: Drawable,
    result: InstanceResult,
    *,
    min_score: float = 0.0,
    color_by: Literal["class", "instance"] = "class",
    boxes: bool = False,
    width: float = 8.0,
) -> Figure:
    """`draw_instances` in a figure `width` inches wide, with a legend of the classes found (where they have
    the colours).

    The picture keeps its own pixels: `figure.savefig(path, dpi=...)` scales the text, not the masks.
    """
    picture = draw_instances(image, result, min_score=min_score, color_by=color_by, boxes=boxes)
    present = present_classes(result, min_score) if color_by == "class" else []
    colors = instance_colors(result)
    first = {label: number for number, label in reversed(list(enumerate(result.labels.tolist())))}
    names = [name_of(result.class_names, label) for label in present]
    return _figure(picture, names, colors[[first[label] for label in present]], width)


def plot_semantic(
    image: Drawable, result: SemanticResult, *, opacity: float = 0.55, width: float = 8.0
) -> Figure:
    """`draw_labels` in a figure `width` inches wide, with a legend of the classes found."""
    picture = draw_labels(image, result.labels, result.palette, opacity=opacity)
    present = present_classes(result)
    colors = as_palette(result.palette, max(present, default=-1) + 1)[present]
    return _figure(picture, [name_of(result.class_names, label) for label in present], colors, width)


def _figure(picture: Picture, names: Sequence[str], colors: npt.NDArray[Any], width: float) -> Figure:
    height = width * picture.shape[0] / picture.shape[1] + 0.4
    figure = Figure(figsize=(width, bounded(height)), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    if names:
        handles = [
            Patch(facecolor=color / 255.0, edgecolor="#444444", label=name)
            for name, color in zip(names, colors, strict=True)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(names), 6), fontsize=8, frameon=False
        )
    return figure
