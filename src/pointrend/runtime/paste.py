"""Masks over boxes into the pixels of the image, in numpy: the arithmetic of `models.paste_masks`.

Shapes: S side of a mask, H W rows and columns of the image.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def paste(
    mask: Float, box: Float, image_size: tuple[int, int], threshold: float = 0.5
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Probabilities (S, S) over a box (4,) in pixels -> a window (h, w) of the image, and its top left pixel (x, y).

    A pixel belongs to the object where the probability, interpolated bilinearly at the pixel's centre, is at least the
    threshold; outside of the S x S cells probabilities fade to zero within half a cell.
    """
    side = mask.shape[0]
    height, width = image_size
    left, right, columns, to_columns = _axis(box[0], box[2], width, side)
    top, bottom, rows, to_rows = _axis(box[1], box[3], height, side)
    if right <= left or bottom <= top:
        return np.zeros((max(bottom - top, 0), max(right - left, 0)), dtype=bool), (left, top)
    around = np.pad(mask, 1)  # zeros, which positions outside are interpolated with
    # One axis after the other: the columns first, on the S rows.
    lines = around[:, columns] * (1 - to_columns) + around[:, columns + 1] * to_columns
    values = lines[rows] * (1 - to_rows)[:, None] + lines[rows + 1] * to_rows[:, None]
    return values >= threshold, (left, top)


def _axis(start: float, end: float, limit: int, side: int) -> tuple[int, int, NDArray[np.int64], Float]:
    """First and last pixel (exclusive), and for each the padded cell before it and the share of the next one."""
    first = min(max(math.floor(start) - 1, 0), limit)
    last = min(max(math.ceil(end) + 1, 0), limit)
    centres = np.arange(first, max(last, first), dtype=np.float32) + np.float32(0.5)
    # As grid_sample has it: from the box to [-1, 1], and from there to cells.
    unit = (centres - start) / (end - start) * np.float32(2) - np.float32(1)
    position = ((unit + 1) * np.float32(side) - 1) / np.float32(2)
    position = position.clip(-1, side) + np.float32(1)
    cell = np.floor(position).clip(0, side).astype(np.int64)
    return first, last, cell, (position - cell).astype(np.float32)
