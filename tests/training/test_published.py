"""Every published training runs: its recipe and augmentation on a small network and small images.

All of them, those of the paper's tables too, for 30 updates take minutes: ``python benchmarks/recipes.py``, or
``make test-slow``.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.recipes import falls, first_updates, small
from pointrend.training.paper import TRAININGS as RECIPES
from pointrend.training.published import RECIPES as PUBLISHED

# One of each kind: what the others differ in are numbers that test_recipes.py looks at, and larger backbones.
KINDS = (
    "pointrend_rcnn_R_50_FPN_1x_coco",
    "implicit_pointrend_R_50_FPN_1x_coco",
    "implicit_pointrend_R_50_FPN_3x_point_sup_point_aug",
    "pointrend_semantic_R_101_FPN_1x_cityscapes",
    "pointrend_deeplabv3_R_103_cityscapes",
    "pointrend_r50_4xb4-160k_ade20k-512x512",
)


@pytest.mark.parametrize("name", KINDS)
def test_its_losses_fall_and_stay_finite(name: str) -> None:
    """In eight updates, where losses fall only without the long warm-up, and of a smaller batch."""
    published = RECIPES[name].shortened(8)
    recipe = replace(published.recipe, batch_size=4, learning_rate=0.005, warmup_steps=2)
    totals = first_updates(replace(published, recipe=recipe), 8)
    assert len(totals) == 8
    assert falls(totals), totals


def distinct(steps: int = 30) -> list[str]:
    """Of trainings whose first updates differ in nothing but the depth of the backbone, the first.

    Without 4x conv at 224x224, which takes as long as ten others.
    """
    found: dict[str, str] = {}
    for name, published in RECIPES.items():
        recipe = published.recipe
        rates = [recipe.learning_rate * recipe.factor(step) for step in range(steps)]
        same = (small(published, ("a", "b")), published.augmentation, recipe.batch_size, rates)
        found.setdefault(repr(same), name)
    return [name for name in found.values() if not name.endswith("224x224")]


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct())
def test_its_first_thirty_updates_as_published(name: str) -> None:
    totals = first_updates(RECIPES[name], 30)
    assert len(totals) == 30
    assert all(map(math.isfinite, totals))
    assert falls(totals) or name not in PUBLISHED, totals
