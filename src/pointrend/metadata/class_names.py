"""Class names and palettes of the data sets that published models were trained on, told by how many there
are.
"""

from __future__ import annotations

from pointrend.metadata import ade20k, cityscapes, coco

_INSTANCE = (
    tuple(category.name for category in coco.CATEGORIES),
    tuple(label.name for label in cityscapes.INSTANCE_LABELS),
)
_SEMANTIC = (tuple(label.name for label in cityscapes.TRAIN_LABELS), ade20k.CLASSES)
_PALETTES = (tuple(label.color for label in cityscapes.TRAIN_LABELS),)


def instance_names(count: int) -> tuple[str, ...]:
    """Names for an instance model with `count` classes: COCO's 80, Cityscapes' 8 or "class 0".."""
    return _of_length(_INSTANCE, count) or _numbered(count)


def semantic_names(count: int) -> tuple[str, ...]:
    """Names for a semantic model with `count` classes: Cityscapes' 19, ADE20K's 150 or "class 0".."""
    return _of_length(_SEMANTIC, count) or _numbered(count)


def semantic_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for a semantic model with `count` classes: Cityscapes' 19, or none."""
    return next((palette for palette in _PALETTES if len(palette) == count), ())


def _of_length(tables: tuple[tuple[str, ...], ...], count: int) -> tuple[str, ...]:
    return next((table for table in tables if len(table) == count), ())


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))
