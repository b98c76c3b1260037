"""Colours: one per class, always the same one, and label maps turned into coloured images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from pointrend.metadata.colors import default_palette

RGBImage = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Colors = Sequence[Sequence[int]] | np.ndarray

# Label maps here and in training use 255 for "no class is asked for"; it is shown in this colour.
IGNORE_COLOR = (0, 0, 0)
# matplotlib's "plasma" at every eighth, without matplotlib; at most 6 of 255 off between them.
_PLASMA = (
    (13, 8, 135),
    (76, 2, 161),
    (126, 3, 168),
    (170, 35, 149),
    (204, 71, 120),
    (230, 108, 92),
    (248, 149, 64),
    (253, 197, 39),
    (240, 249, 33),
)
_YELLOW_TO_RED = ((254, 233, 151), (252, 140, 59), (196, 4, 36))


def as_palette(palette: Colors | None, count: int) -> npt.NDArray[np.uint8]:
    """`palette` as (K, 3) uint8 with K >= count; the default one where none is given.

    Raises:
        ValueError: it is too short, or has other numbers than 0..255.
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


def as_labels(labels: torch.Tensor | np.ndarray) -> npt.NDArray[np.int64]:
    """A label map (H, W) of class numbers, or a boolean mask, as int64."""
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(
            f"labels: expected one map (H, W), got shape {array.shape}; pass labels[0] for a batch of one"
        )
    return array.astype(np.int64)


def css_color(color: Sequence[int] | np.ndarray) -> str:
    """RGB as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*(int(part) for part in color))


def color_labels(
    labels: torch.Tensor | np.ndarray, palette: Colors | None = None, *, ignore: int = 255
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
    values: torch.Tensor | np.ndarray, low: float | None = None, high: float | None = None
) -> RGBImage:
    """Numbers (H, W) as colours (H, W, 3), dark blue (`low`) to yellow (`high`); the map's own range where not given.

    Values outside the range, and NaN, take the colour of the nearer end (NaN: of `low`).
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"values: expected one map (H, W), got shape {array.shape}")
    finite = array[np.isfinite(array)]
    low = float(finite.min() if finite.size else 0) if low is None else low
    high = float(finite.max() if finite.size else 1) if high is None else high
    scaled = np.nan_to_num((array - low) / max(high - low, 1e-12), nan=0.0, posinf=1.0, neginf=0.0)
    return _interpolated(_PLASMA, scaled)


def step_colors(count: int) -> RGBImage:
    """A colour for each of `count` subdivision steps, (count, 3): yellow for the first, red for the last."""
    return _interpolated(_YELLOW_TO_RED, np.linspace(0, 1, count))


def _interpolated(colors: Sequence[tuple[int, int, int]], values: npt.NDArray[np.float64]) -> RGBImage:
    """Colours between evenly spaced ones, (..., 3), at `values` (...), 0 for the first and 1 for the last."""
    stops = np.linspace(0, 1, len(colors))
    channels = [np.interp(values, stops, channel) for channel in zip(*colors, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
