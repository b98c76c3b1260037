"""Images of predictions: overlays, label maps, comparisons, and every step of a prediction, `explain`.

Functions named `draw_*` and `color_*` return arrays (H, W, 3) of uint8 RGB at the image's own resolution;
`plot*` and `side_by_side` return `matplotlib.figure.Figure` objects that belong to the caller (no window, no
global state): save one with `save_figure(figure, "overview")`. Only these import matplotlib.
"""

from __future__ import annotations

from pointrend.visualize.animation import animate_steps, write_gif
from pointrend.visualize.colors import color_labels, heatmap
from pointrend.visualize.comparison import Window, compare_results, largest_differences, side_by_side
from pointrend.visualize.explain import Explanation, explain, variants
from pointrend.visualize.explain_figures import color_features, plot_features, plot_overview, plot_resolutions
from pointrend.visualize.figures import plot_instances, plot_scores, plot_semantic, save_figure
from pointrend.visualize.overlays import (
    add_legend,
    as_image,
    draw,
    draw_instances,
    draw_labels,
    draw_uncertainty,
    enlarge,
    label_borders,
    outline,
)
from pointrend.visualize.points import (
    color_logits,
    draw_chosen,
    draw_points,
    plot_steps,
    plot_training_points,
    plot_uncertainty,
    traced_box,
    training_choices,
)

__all__ = [
    "Explanation",
    "Window",
    "add_legend",
    "animate_steps",
    "as_image",
    "color_features",
    "color_labels",
    "color_logits",
    "compare_results",
    "draw",
    "draw_chosen",
    "draw_instances",
    "draw_labels",
    "draw_points",
    "draw_uncertainty",
    "enlarge",
    "explain",
    "heatmap",
    "label_borders",
    "largest_differences",
    "outline",
    "plot_features",
    "plot_instances",
    "plot_overview",
    "plot_resolutions",
    "plot_scores",
    "plot_semantic",
    "plot_steps",
    "plot_training_points",
    "plot_uncertainty",
    "save_figure",
    "side_by_side",
    "traced_box",
    "training_choices",
    "variants",
    "write_gif",
]
