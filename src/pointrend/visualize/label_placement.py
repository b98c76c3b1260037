"""Names and scores on an image: each beside its object, none on another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageDraw, ImageFont

from pointrend.results import InstanceResult
from pointrend.visualize.colors import Colors

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the image


def draw_captions(
    draw: ImageDraw.ImageDraw, result: InstanceResult, texts: dict[int, str], colors: Colors
) -> None:
    """One caption per object; the first in `texts` chooses its place first."""
    height, width = result.masks.image_size
    points = text_size(width, height)
    font, taken = ImageFont.load_default(points), list[Box]()
    covering = np.zeros((height, width), dtype=np.int16)  # how many of the objects drawn cover a pixel
    for i in texts:
        _add_mask(covering, result, i, 1)
    for i, text in texts.items():
        extent = (round(font.getlength(text)) + points // 2, points + points // 3)
        _add_mask(covering, result, i, -1)  # a caption may lie on its own object
        place = place_caption(_mask_box(result, i), extent, (width, height), taken, covering)
        _add_mask(covering, result, i, 1)
        taken.append(place)
        draw.rounded_rectangle(place, radius=points // 4, fill=rgb(colors[i]))
        ink = "black" if np.dot(colors[i], (0.299, 0.587, 0.114)) > 140 else "white"
        draw.text(
            ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), text, fill=ink, font=font, anchor="mm"
        )


def _add_mask(counts: npt.NDArray[np.int16], result: InstanceResult, i: int, number: int) -> None:
    """Add a number to the counts (H, W) at the pixels of mask i, as far as the image goes."""
    area, mask = visible_part(counts, result.masks.windows[i], result.masks.offsets[i].tolist())
    area[mask] += number


def place_caption(
    box: Box,
    extent: tuple[int, int],
    size: tuple[int, int],
    taken: Sequence[Box],
    others: np.ndarray | None = None,
) -> Box:
    """Where a caption of `extent` (width, height) goes: the place near `box` that covers least of the captions
    already placed, and of them the one that covers least of other objects.

    Tried in this order: above the box, inside its top, its middle, inside its bottom, below it, then down in
    steps along the box's sides.
    The whole caption stays inside the image of `size` (width, height) wherever it fits at all.

    Args:
        others: (H, W) non-zero where other objects are.
    """
    (x1, y1, x2, y2), (width, height) = box, extent
    middle = (x1 + x2 - width) / 2
    tries = [(middle, y1 - height), (x1, y1 - height), (x2 - width, y1 - height)]
    tries += [(middle, y) for y in (y2, y1, (y1 + y2 - height) / 2, y2 - height)]
    tries += [(x1, y1), (x1, y2 - height), (x1, y2), (x2 - width, y1), (x2 - width, y2 - height)]
    tries += [(x, y1 + height * step) for x in (x1, x2, x1 - width) for step in range(12)]
    best, least = None, (float("inf"), float("inf"))
    for x, y in tries:
        x, y = max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))
        place = (x, y, x + width, y + height)
        covered = sum(_overlap(place, other) for other in taken)
        hidden = 0.0
        if others is not None:
            hidden = float(
                np.count_nonzero(others[int(y) : int(y + height) + 1, int(x) : int(x + width) + 1])
            )
        if (covered, hidden) < least:
            best, least = place, (covered, hidden)
        if least == (0, 0):
            break
    assert best is not None
    return best


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _mask_box(result: InstanceResult, i: int) -> Box:
    """The box around instance i's mask (its window's filled part), or its detection box where the mask is
    empty.
    """
    window = result.masks.windows[i].cpu().numpy() > 0
    rows, columns = np.flatnonzero(window.any(1)), np.flatnonzero(window.any(0))
    if not len(rows):
        x1, y1, x2, y2 = result.boxes[i].tolist()
        return x1, y1, x2, y2
    x, y = result.masks.offsets[i].tolist()
    return x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1


def visible_part(
    image: np.ndarray, window: torch.Tensor | np.ndarray, offset: Sequence[int]
) -> tuple[np.ndarray, Mask]:
    """The part of the image (H, W, ...) under a window, as a view, and the window as a mask of the same size."""
    x, y = offset
    mask = np.asarray(window.cpu() if isinstance(window, torch.Tensor) else window) > 0
    top, left = max(0, -y), max(0, -x)
    area = image[max(0, y) : max(0, y + mask.shape[0]), max(0, x) : max(0, x + mask.shape[1])]
    return area, mask[top : top + area.shape[0], left : left + area.shape[1]]


def text_size(width: int, height: int) -> int:
    return max(10, round(0.022 * max(width, height)))


def rgb(color: Sequence[int]) -> tuple[int, int, int]:
    return int(color[0]), int(color[1]), int(color[2])
