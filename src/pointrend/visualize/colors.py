"""Colours: one per class, always the same one, and label maps turned into coloured images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pointrend.metadata.colors import default_palette

RGBImage = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Colors = Sequence[Sequence[int]] | npt.NDArray[Any]

# Label maps here and in training use 255 for "no class is asked for"; it is shown in this colour.
IGNORE_COLOR = (0, 0, 0)


def as_palette(palette: Colors | None, count: int) -> npt.NDArray[np.uint8]:
    """`palette` as (K, 3) uint8 with K >= count; the default one where none is given. ValueError where it is
    short.
    """
    if palette is None or len(palette) == 0:
        return np.asarray(default_palette(count), dtype=np.uint8).reshape(-1, 3)
    colors = np.asarray(palette, dtype=np.int64)
    if colors.ndim != 2 or colors.shape[1] != 3 or colors.min() < 0 or colors.max() > 255:
        raise ValueError(f"palette: expected (classes, 3) RGB colours in 0..255, got shape {colors.shape}")
    if len(colors) < count:
        raise ValueError(
            f"palette: {count} classes need as many colours, got {len(colors)}; add colours or pass None"
        )
    return colors.astype(np.uint8)


def as_labels(labels: torch.Tensor | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A label map (H, W) of class numbers, or a boolean mask, as int64."""
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(
            f"labels: expected one map (H, W), got shape {array.shape}; pass labels[0] for a batch of one"
        )
    return array.astype(np.int64)


def color_labels(
    labels: torch.Tensor | npt.NDArray[Any], palette: Colors | None = None, *, ignore: int = 255
) -> RGBImage:
    """The label map (H, W) as a coloured image (H, W, 3); `ignore` is black.

    Raises:
        ValueError: a label is negative or has no colour in `palette`.
    """
    array = as_labels(labels)
    shown = array != ignore
    if array.size and int(array.min()) < 0:
        raise ValueError(
            f"labels: expected class numbers from 0, or {ignore} for ignored, got {int(array.min())}"
        )
    highest = int(array.max(initial=-1, where=shown))
    colors = as_palette(palette, highest + 1)
    table = np.concatenate([colors, np.asarray([IGNORE_COLOR], dtype=np.uint8)])
    return table[np.where(shown, array, len(table) - 1)]


def heatmap(
    values: torch.Tensor | npt.NDArray[Any], low: float | None = None, high: float | None = None
) -> RGBImage:
    """Numbers (H, W) as colours (H, W, 3), dark blue (`low`) to yellow (`high`); the map's own range where
    not given.

    Values outside the range, and NaN, take the colour of the nearer end (NaN: of `low`).
    """
    from matplotlib import colormaps

    array = (
        values.detach().cpu().float().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    ).astype(np.float64)
    if array.ndim != 2:
        raise ValueError(f"values: expected one map (H, W), got shape {array.shape}")
    finite = array[np.isfinite(array)]
    low = float(finite.min(initial=np.inf)) if low is None and finite.size else (low or 0.0)
    high = (
        float(finite.max(initial=-np.inf))
        if high is None and finite.size
        else (1.0 if high is None else high)
    )
    scaled = np.nan_to_num((array - low) / max(high - low, 1e-12), nan=0.0, posinf=1.0, neginf=0.0)
    colors: RGBImage = colormaps["plasma"](np.clip(scaled, 0.0, 1.0), bytes=True)[..., :3]
    return colors
