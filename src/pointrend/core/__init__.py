"""PointRend itself, on torch alone: points, features at points, which points, the point head, subdivision."""

from pointrend.core.gather import point_sample_boxes
from pointrend.core.losses import binary_point_loss, multiclass_point_loss
from pointrend.core.point_head import PointHead
from pointrend.core.point_rend import PointRend
from pointrend.core.sampling import (
    cell_centers,
    point_sample,
    points_in_image,
    regular_grid,
    sample_maps,
)
from pointrend.core.selection import (
    PointSampling,
    binary_uncertainty,
    margin_uncertainty,
    most_uncertain_cells,
    probability_margin_uncertainty,
    sample_training_points,
    uncertainty_for,
)
from pointrend.core.subdivision import SubdivisionStep, subdivide, subdivision_sizes

__all__ = [
    "PointHead",
    "PointRend",
    "PointSampling",
    "SubdivisionStep",
    "binary_point_loss",
    "binary_uncertainty",
    "cell_centers",
    "margin_uncertainty",
    "most_uncertain_cells",
    "multiclass_point_loss",
    "point_sample",
    "point_sample_boxes",
    "points_in_image",
    "probability_margin_uncertainty",
    "regular_grid",
    "sample_maps",
    "sample_training_points",
    "subdivide",
    "subdivision_sizes",
    "uncertainty_for",
]
