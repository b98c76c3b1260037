"""Pictures of predictions: overlays, label maps, uncertainty, the points of each subdivision step,
comparisons.

Functions named `draw_*` and `color_*` return arrays (H, W, 3) of uint8 RGB at the picture's own resolution;
`plot*` and `side_by_side` return `matplotlib.figure.Figure` objects that belong to the caller (no window, no
global state): save one with `figure.savefig("way.png")`.
"""

from __future__ import annotations

from pointrend.visualize.compare import Window, largest_differences, side_by_side
from pointrend.visualize.curves import plot_scores
from pointrend.visualize.figures import plot_instances, plot_semantic
from pointrend.visualize.overlays import (
    add_legend,
    as_picture,
    draw,
    draw_instances,
    draw_labels,
    label_borders,
    outline,
)
from pointrend.visualize.palettes import color_labels, default_palette, heatmap
from pointrend.visualize.points import (
    chosen_cells,
    color_logits,
    draw_chosen,
    draw_points,
    draw_uncertainty,
    enlarge,
    plot_steps,
    plot_training_points,
    plot_uncertainty,
    traced_box,
)

__all__ = [
    "Window",
    "add_legend",
    "as_picture",
    "chosen_cells",
    "color_labels",
    "color_logits",
    "default_palette",
    "draw",
    "draw_chosen",
    "draw_instances",
    "draw_labels",
    "draw_points",
    "draw_uncertainty",
    "enlarge",
    "heatmap",
    "label_borders",
    "largest_differences",
    "outline",
    "plot_instances",
    "plot_scores",
    "plot_semantic",
    "plot_steps",
    "plot_training_points",
    "plot_uncertainty",
    "side_by_side",
    "traced_box",
]
