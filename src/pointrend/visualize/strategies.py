"""How training points are chosen, drawn: the paper's four strategies on the same coarse prediction (figure 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pointrend.core.selection import (
    PointSampling,
    Uncertainty,
    sample_training_points,
    uncertainty_for,
)
from pointrend.visualize.overlays import Box, Drawable, as_picture
from pointrend.visualize.palettes import Colors
from pointrend.visualize.panels import extent_of, inside_of, show
from pointrend.visualize.points import POINT_COLOR, color_logits
from pointrend.visualize.sizes import bounded


def training_choices(
    coarse: torch.Tensor, count: int = 196, *, seed: int = 0, uncertainty: Uncertainty | None = None
) -> dict[str, torch.Tensor]:
    """The paper's four ways to choose training points, on the same coarse logits (N, C, H, W) (figure 5, table 4).

    Args:
        count: points for each region, 14 x 14 as in the paper; must be a square for the regular grid.
        uncertainty: by the number of channels if not given.

    Returns:
        name -> points (N, count, 2) in the unit square, as `sample_training_points` draws them.
    """
    ways = {
        "regular grid": PointSampling.regular(count),
        "uniform\nk = 1, β = 0": PointSampling.uniform(count),
        "mildly biased\nk = 3, β = 0.75": PointSampling.mildly_biased(count),
        "heavily biased\nk = 10, β = 1": PointSampling.heavily_biased(count),
    }
    measure = uncertainty_for(coarse.shape[1]) if uncertainty is None else uncertainty
    return {
        name: sample_training_points(
            coarse, way, measure, generator=torch.Generator().manual_seed(seed)
        ).cpu()
        for name, way in ways.items()
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
        image, box: for a second row, with the points on the picture; as in `plot_steps`.
    """
    background = color_logits(coarse[region], palette)
    picture = None if image is None else as_picture(image)
    extent = extent_of(picture, box)
    shown = extent if picture is None else inside_of(extent, picture)
    ratio = coarse.shape[2] / coarse.shape[3] if picture is None else 1.0
    aspect = ratio * abs((shown[2] - shown[3]) / (shown[1] - shown[0]))
    columns, rows = max(len(choices), 1), 1 if picture is None else 2
    titles = max((name.count("\n") + 1 for name in choices), default=1)
    figure = Figure(
        figsize=(2.9 * columns, bounded(rows * (2.9 * aspect + 0.05) + 0.17 * titles + 0.1)),
        dpi=110,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0),
    )
    panels = figure.subplots(rows, columns, squeeze=False)
    for column, (name, points) in enumerate(choices.items()):
        unit = points[region].detach().cpu().numpy()
        where = unit * (extent[1] - extent[0], extent[2] - extent[3]) + (extent[0], extent[3])
        size = float(np.clip(1600 / max(len(unit), 1), 2.0, 9.0))
        for row, axes in enumerate(panels[:, column]):
            if row == 0 or picture is None:
                show(axes, background, extent, name)
            else:
                show(axes, picture, (0, picture.shape[1], picture.shape[0], 0), "")
            axes.set(xlim=shown[:2], ylim=shown[2:], aspect=ratio)
            axes.scatter(where[:, 0], where[:, 1], s=size, c=POINT_COLOR, edgecolors="white", linewidths=0.3)
    return figure
