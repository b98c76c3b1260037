"""Which pixels lie near a boundary of a label map.

Letters: H W rows and columns of the picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["boundary_region", "boundary_width"]


def boundary_width(height: int, width: int, dilation_ratio: float = 0.02) -> int:
    """How many pixels a boundary region reaches inwards: 12 for 360x480, at least 1."""
    return max(1, round(dilation_ratio * math.hypot(height, width)))


def boundary_region(labels: Tensor, width: int, *, picture_edge: bool = True) -> Tensor:
    """Pixels at most `width` rows and columns away from a pixel with another label.

    All classes at once: a pixel is *inside* its region where the smallest and the largest label of the square
    window around it are its own, so the cost does not depend on the number of classes.

    Args:
        labels: (H, W) whole numbers; negative ones are ignored: never in the region and never another label.
        width: in pixels, at least 1.
        picture_edge: whether beyond the picture counts as another label.

    Returns:
        (H, W) bool.
    """
    ignored = labels < 0
    nothing = torch.iinfo(labels.dtype).max
    largest = _window_maximum(labels, width)
    smallest = -_window_maximum(torch.where(ignored, -nothing, -labels), width)
    region = ((largest != labels) | (smallest != labels)) & ~ignored
    if picture_edge:
        edge = torch.ones_like(region)
        edge[width:-width, width:-width] = False
        region |= edge & ~ignored
    return region


def _window_maximum(values: Tensor, radius: int) -> Tensor:
    """Largest value of the (2 radius + 1)^2 window around each pixel, cut at the picture's edge; (H, W)."""
    lowest = torch.iinfo(values.dtype).min
    for dim in (0, 1):
        size = values.shape[dim]
        reach = min(radius, size)  # a wider window sees nothing more
        pad = (0, 0, reach, reach) if dim == 0 else (reach, reach)
        values = torch.nn.functional.pad(values, pad, value=lowest)
        span = 1  # values[i] is the maximum of `span` entries from i on; doubling, then one overlap
        window = 2 * reach + 1
        while span < window:
            step = min(span, window - span)
            length = values.shape[dim] - step
            values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
            span += step
    return values
