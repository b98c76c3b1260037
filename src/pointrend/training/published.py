"""The published trainings, one an entry, named as in the model zoos of Detectron2 and MMSegmentation.

An entry is everything but the classes: the network (`models.published`), the random changes of the images, and the
recipe. Sources as there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pointrend.data.transforms import (
    ColorJitter,
    RandomCrop,
    RandomFit,
    RandomFlip,
    ResizeShortEdge,
    SamplePoints,
    SampleTransform,
)
from pointrend.models.published import NETWORKS
from pointrend.training.config import TrainingConfig
from pointrend.training.recipe import Recipe


def _coco(name: str, schedule: Literal["1x", "3x"]) -> TrainingConfig:
    steps, milestones = (90_000, (60_000, 80_000)) if schedule == "1x" else (270_000, (210_000, 250_000))
    network = NETWORKS[name]
    return TrainingConfig(
        name,
        "coco",
        network,
        (ResizeShortEdge((640, 672, 704, 736, 768, 800), 1333), RandomFlip()),
        Recipe(
            steps=steps,
            batch_size=16,
            learning_rate=0.02,
            schedule="milestones",
            milestones=milestones,
            warmup_steps=1000,
            group_by_aspect=True,
            state_every=5000,
        ),
        pretrained={
            "resnet50": "MSRA/R-50",
            "resnet101": "MSRA/R-101",
            "resnext101_32x8d": "FAIR/X-101-32x8d",
        }[network.backbone.name],
    )


def _cityscapes_instance() -> TrainingConfig:
    base = _coco("pointrend_rcnn_R_50_FPN_1x_cityscapes", "1x")
    edges = tuple(range(800, 1025, 32))
    return replace(
        base,
        data="cityscapes:instance",
        augmentation=(ResizeShortEdge(edges, 2048), RandomFlip()),
        recipe=replace(base.recipe, steps=24_000, batch_size=8, learning_rate=0.01, milestones=(18_000,)),
    )


def _semantic_fpn() -> TrainingConfig:
    name = "pointrend_semantic_R_101_FPN_1x_cityscapes"
    return TrainingConfig(
        name,
        "cityscapes:semantic",
        NETWORKS[name],
        (
            ResizeShortEdge(tuple(range(512, 2049, 256)), 4096),  # scales 0.5, 0.75 .. 2
            RandomCrop(512, 1024, largest_share=0.75),
            ColorJitter(),
            RandomFlip(),
        ),
        Recipe(
            steps=65_000,
            batch_size=32,
            learning_rate=0.01,
            schedule="milestones",
            milestones=(40_000, 55_000),
            warmup_steps=1000,
            state_every=5000,
        ),
        pretrained="MSRA/R-101",
    )


PAPER_SCALES = tuple(range(512, 2049, 32))
"""Short edges of Cityscapes images in the paper: scales of 0.5 to 2 in steps of 32 pixels. Detectron2's have 256."""


def _deeplab() -> TrainingConfig:
    name = "pointrend_deeplabv3_R_103_cityscapes"
    return TrainingConfig(
        name,
        "cityscapes:semantic",
        NETWORKS[name],
        (
            ResizeShortEdge(PAPER_SCALES, 4096),
            RandomCrop(768, 768, largest_share=1.0),
            RandomFlip(),
        ),
        Recipe(
            steps=90_000,
            batch_size=16,
            learning_rate=0.01,
            rate_factors=(("decoder", 10.0),),  # ASPP and the prediction
            schedule="poly",
            warmup_steps=1000,
            state_every=5000,
        ),
        pretrained="DeepLab/R-103",
        notes="paper, appendix B; no code or model was released",
    )


def _mmsegmentation(name: str) -> TrainingConfig:
    street = "cityscapes" in name
    network = NETWORKS[name]
    return TrainingConfig(
        name,
        "cityscapes:semantic" if street else "ade20k",
        network,
        (
            RandomFit(2048, 1024 if street else 512, 0.5, 2.0),
            RandomCrop(512, 1024 if street else 512, largest_share=0.75),
            RandomFlip(),
            ColorJitter(),
        ),
        Recipe(
            steps=80_000 if street else 160_000,
            batch_size=8 if street else 16,
            learning_rate=0.01,
            weight_decay=5e-4,
            norm_weight_decay=5e-4,
            schedule="poly",
            poly_start=200,
            poly_floor=0.01,  # eta_min 1e-4
            warmup_steps=200,
            warmup_factor=0.1,
            state_every=8000 if street else 16_000,
        ),
        pretrained=f"openmmlab/{network.backbone.name}_v1c",
    )


RECIPES: dict[str, TrainingConfig] = {
    entry.name: entry
    for entry in (
        _coco("pointrend_rcnn_R_50_FPN_1x_coco", "1x"),
        _coco("pointrend_rcnn_R_50_FPN_3x_coco", "3x"),
        _coco("pointrend_rcnn_R_101_FPN_3x_coco", "3x"),
        _coco("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", "3x"),
        _cityscapes_instance(),
        _semantic_fpn(),
        _deeplab(),
        _coco("implicit_pointrend_R_50_FPN_1x_coco", "1x"),
        _coco("implicit_pointrend_R_50_FPN_3x_coco", "3x"),
        _mmsegmentation("pointrend_r50_4xb2-80k_cityscapes-512x1024"),
        _mmsegmentation("pointrend_r101_4xb2-80k_cityscapes-512x1024"),
        _mmsegmentation("pointrend_r50_4xb4-160k_ade20k-512x512"),
        _mmsegmentation("pointrend_r101_4xb4-160k_ade20k-512x512"),
    )
}
"""Every published training by name."""


SAMPLED_POINTS = 5
"""Drawn from each object's ten points for each sample."""


def _point_sup() -> tuple[TrainingConfig, ...]:
    mask_rcnn = RECIPES["pointrend_rcnn_R_50_FPN_3x_coco"].without_points()
    plain = replace(mask_rcnn, name="mask_rcnn_R_50_FPN_3x_point_sup", point_labels=True)
    augmented = replace(plain, name=f"{plain.name}_point_aug")
    implicit = replace(
        RECIPES["implicit_pointrend_R_50_FPN_3x_coco"],
        name="implicit_pointrend_R_50_FPN_3x_point_sup_point_aug",
        point_labels=True,
    )
    return plain, augmented.with_sampled_points(SAMPLED_POINTS), implicit.with_sampled_points(SAMPLED_POINTS)


POINT_SUP: dict[str, TrainingConfig] = {training.name: training for training in _point_sup()}
"""PointSup's three trainings (Detectron2's projects/PointSup): boxes and ten labelled points in place of masks.

"Pointly-Supervised Instance Segmentation", arXiv 2104.06404. Its authors report 94 to 98 % of full supervision (Mask
R-CNN; COCO, PASCAL VOC, Cityscapes, LVIS) and released neither weights nor a table of scores.
"""


def describe(published: TrainingConfig) -> list[str]:
    """Lines about a training, for people: updates, batch, rates, augmentation, start."""
    recipe = published.recipe
    fall = {
        "milestones": f"x {recipe.gamma:g} at {', '.join(f'{at:,}' for at in recipe.milestones)}",
        "poly": f"polynomial with power {recipe.power:g}",
        "constant": "constant",
    }[recipe.schedule]
    start = f", from {published.pretrained}" if published.pretrained else ""
    return [
        f"Training: {recipe.steps:,} updates of {recipe.batch_size} images, "
        f"{recipe.optimizer.upper()} at {recipe.learning_rate:g}{start}; recipe {published.name}",
        f"Schedule: {fall}; linear warm-up over {recipe.warmup_steps:,} updates from a factor of "
        f"{recipe.warmup_factor:g}; momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}",
        f"Augmentation: {', '.join(map(_step, published.augmentation))}",
    ]


def _step(step: SampleTransform) -> str:
    """A random change of images in a few words."""
    if isinstance(step, ResizeShortEdge):
        sizes = [str(size) for size in step.sizes]
        shown = ", ".join(sizes if len(sizes) < 10 else [*sizes[:2], "..", sizes[-1]])
        return f"short edge of {shown} pixels (long edge at most {step.longest})"
    if isinstance(step, RandomFit):
        return f"fit into {step.long} x {step.short}, times {step.smallest:g} to {step.largest:g}"
    if isinstance(step, RandomCrop):
        return f"crop {step.height} x {step.width} (one class at most {step.largest_share:.0%} of it)"
    if isinstance(step, SamplePoints):
        return f"{step.count} of each object's labelled points"
    return {"RandomFlip": "horizontal flip", "ColorJitter": "colour jitter"}.get(
        type(step).__name__, str(step)
    )
