"""Every published training runs: its recipe and augmentation, shortened, on a small network and small pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import Compose, RandomCrop, RandomFit, ResizeShortEdge
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig
from pointrend.training.finetune import build
from pointrend.training.loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipes import RECIPES, Published

# One of each kind: what the others differ in are numbers that test_recipes.py looks at, and larger backbones.
KINDS = (
    "pointrend_rcnn_R_50_FPN_1x_coco",
    "implicit_pointrend_R_50_FPN_1x_coco",
    "pointrend_semantic_R_101_FPN_1x_cityscapes",
    "pointrend_deeplabv3_R_103_cityscapes",
    "pointrend_r50_4xb4-160k_ade20k-512x512",
)
STEPS = 8


def small(published: Published, names: tuple[str, ...]):
    """The network with fewer channels, everything else alike."""
    config = published.config(names)
    backbone = replace(config.backbone, name="resnet18", stride_in_1x1=False)
    pixels = replace(config.preprocessing, std=(58.395, 57.12, 57.375))  # random weights want small numbers
    config = replace(config, backbone=backbone, preprocessing=pixels, fpn_channels=16)
    if isinstance(config, InstanceConfig):
        masks = replace(config.masks, width=16, coarse_width=16)
        boxes = BoxHeadConfig(width=32, samples=32)
        return replace(config, masks=masks, boxes=boxes, freeze_stages=0)
    rend = replace(config.point_rend, width=16, sampling=replace(config.point_rend.sampling, count=64))
    return replace(config, head_channels=16, point_rend=rend)


def shrunk(step: object) -> object:
    """The same change of pictures a tenth as large."""
    if isinstance(step, ResizeShortEdge):
        return ResizeShortEdge([round(size / 10) for size in step.sizes], step.longest and step.longest // 10)
    if isinstance(step, RandomCrop):
        return replace(step, height=64, width=64)
    if isinstance(step, RandomFit):
        return replace(step, long=200, short=100)
    return step


@pytest.mark.parametrize("name", KINDS)
def test_its_losses_fall_and_stay_finite(name: str) -> None:
    published = RECIPES[name].shortened(STEPS)
    # The published rates belong to larger batches and to backbones that know something already.
    recipe = replace(published.recipe, batch_size=4, log_every=1, learning_rate=0.005, warmup_steps=2)
    changes = Compose([shrunk(step) for step in published.augmentation])
    scenes = ShapeScenes(4, published.task, size=(72, 96), objects=(2, 3), transforms=changes)
    torch.manual_seed(0)
    model = build(small(published, scenes.class_names))
    totals: list[float] = []

    def note(step: int, entry: dict[str, float]) -> None:
        totals.append(sum(v for k, v in entry.items() if k not in ("learning_rate", "seconds")))

    train(model, TrainingLoader(scenes, recipe), recipe, cpu=True, report=note)
    assert len(totals) == STEPS
    assert all(map(torch.isfinite, torch.tensor(totals)))
    assert sum(totals[-3:]) < sum(totals[:3])
