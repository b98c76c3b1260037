"""From the scorer's arrays to the numbers in tables.

Precision is (10 IoUs, 101 recalls, categories, 4 areas, limits), recall lacks the second axis; -1 marks what does not
exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointrend.formats.lvis import FREQUENCIES

__all__ = ["coco_numbers", "lvis_numbers", "mean_of"]

_SIZES = {"s": 1, "m": 2, "l": 3}  # -> position on the scorer's area axis, whose 0 is "all"


def coco_numbers(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """AP and AR by their COCO names."""
    numbers = _precision_numbers(precision)
    for limit, detections in enumerate((1, 10, 100)):
        numbers[f"AR{detections}"] = mean_of(recall[:, :, 0, limit])
    numbers.update({f"AR{size}": mean_of(recall[:, :, area, -1]) for size, area in _SIZES.items()})
    return numbers


def lvis_numbers(precision: np.ndarray, recall: np.ndarray, frequencies: Sequence[str]) -> dict[str, float]:
    """AP and AR by their LVIS names; `frequencies` has one of `FREQUENCIES` for each category."""
    numbers = _precision_numbers(precision)
    for letter in FREQUENCIES:
        group = [k for k, own in enumerate(frequencies) if own == letter]
        numbers[f"AP{letter}"] = mean_of(precision[:, :, group, 0, -1])
    numbers["AR@300"] = mean_of(recall[:, :, 0, -1])
    numbers.update({f"AR{size}@300": mean_of(recall[:, :, area, -1]) for size, area in _SIZES.items()})
    return numbers


def _precision_numbers(precision: np.ndarray) -> dict[str, float]:
    """AP by IoU and by size."""
    everything = precision[..., 0, -1]  # (IoU 0.50, 0.55 ... 0.95; recall; category)
    numbers = {
        "AP": mean_of(everything),
        "AP50": mean_of(everything[0]),
        "AP75": mean_of(everything[5]),
        "AP75-95": mean_of(everything[5:]),
    }
    numbers.update({f"AP{size}": mean_of(precision[..., area, -1]) for size, area in _SIZES.items()})
    return numbers


def mean_of(values: np.ndarray) -> float:
    """Over the entries that exist; the scorer marks categories without objects by -1."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")
