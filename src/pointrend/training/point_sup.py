"""PointSup's three trainings (Detectron2's projects/PointSup): boxes and ten labelled points in place of masks.

"Pointly-Supervised Instance Segmentation", arXiv 2104.06404. Its authors report 94 to 98 % of full supervision (Mask
R-CNN; COCO, PASCAL VOC, Cityscapes, LVIS) and released neither weights nor a table of scores.
"""

from __future__ import annotations

from dataclasses import replace

from pointrend.training.config import TrainingConfig
from pointrend.training.published import RECIPES

POINTS = 5
"""Drawn from each object's ten points for each sample."""


def _trainings() -> tuple[TrainingConfig, ...]:
    mask_rcnn = RECIPES["pointrend_rcnn_R_50_FPN_3x_coco"].without_points()
    plain = replace(mask_rcnn, name="mask_rcnn_R_50_FPN_3x_point_sup", point_labels=True)
    augmented = replace(plain, name=f"{plain.name}_point_aug")
    implicit = replace(
        RECIPES["implicit_pointrend_R_50_FPN_3x_coco"],
        name="implicit_pointrend_R_50_FPN_3x_point_sup_point_aug",
        point_labels=True,
    )
    return plain, augmented.with_sampled_points(POINTS), implicit.with_sampled_points(POINTS)


POINT_SUP: dict[str, TrainingConfig] = {training.name: training for training in _trainings()}
"""By the names of their configurations."""
