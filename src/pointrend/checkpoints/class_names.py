"""Class names and palettes of the data sets that published models were trained on, in the order of their
outputs.
"""

from __future__ import annotations

from pointrend.facts.cityscapes import INSTANCE_LABELS, TRAIN_LABELS
from pointrend.facts.coco import CATEGORIES

COCO = tuple(category.name for category in CATEGORIES)
CITYSCAPES_THINGS = tuple(label.name for label in INSTANCE_LABELS)
CITYSCAPES = tuple(label.name for label in TRAIN_LABELS)
CITYSCAPES_PALETTE = tuple(label.color for label in TRAIN_LABELS)


def instance_names(count: int) -> tuple[str, ...]:
    """Names for an instance model with `count` classes: COCO's, Cityscapes' or "class 0".."""
    return {len(COCO): COCO, len(CITYSCAPES_THINGS): CITYSCAPES_THINGS}.get(count, numbered_names(count))


def semantic_names(count: int) -> tuple[str, ...]:
    """Names for a semantic model with `count` classes: Cityscapes' or "class 0".."""
    return CITYSCAPES if count == len(CITYSCAPES) else numbered_names(count)


def numbered_names(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))
