"""Many small pictures on one sheet: what a data set looks like at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pointrend.structures import InstanceResult, InstanceTarget, Sample, SemanticResult
from pointrend.visualize.overlays import draw
from pointrend.visualize.palettes import Picture


def draw_target(
    sample: Sample, class_names: Sequence[str], palette: Sequence[tuple[int, int, int]] = ()
) -> Picture:
    """The sample's picture under what is known about it, (H, W, 3)."""
    target = sample.target
    if isinstance(target, InstanceTarget):
        scores = torch.ones(len(target))
        return draw(
            sample.image,
            InstanceResult(target.boxes, target.labels, scores, target.masks, tuple(class_names), None),
        )
    return draw(sample.image, SemanticResult(target.labels, tuple(class_names), tuple(palette), None))


def contact_sheet(pictures: Sequence[Picture], *, columns: int = 4, tile: int = 320, gap: int = 8) -> Picture:
    """Pictures (H, W, 3) of any sizes, row by row on white, each as large as fits into `tile` pixels a side.

    Small pictures are enlarged by whole factors; a row is as high as its highest picture. Raises ValueError if there is
    none.
    """
    if not pictures:
        raise ValueError("expected at least one picture for the sheet, got none")
    columns = min(columns, len(pictures))
    tiles = [_fitted(Image.fromarray(picture), tile) for picture in pictures]
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    heights = [max(small.height for small in row) for row in rows]
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, sum(heights) + gap * (len(rows) + 1)), "white")
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, small in enumerate(row):
            left = gap + column * (tile + gap) + (tile - small.width) // 2
            sheet.paste(small, (left, top + (height - small.height) // 2))
        top += height + gap
    return np.asarray(sheet)


def _fitted(picture: Image.Image, tile: int) -> Image.Image:
    factor = tile // max(picture.size)
    if factor > 1:
        return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    picture.thumbnail((tile, tile))
    return picture
