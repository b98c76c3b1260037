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
    """Pictures (H, W, 3) of any sizes, each inside a square of `tile` pixels, row by row on white.

    Raises ValueError if there is none.
    """
    if not pictures:
        raise ValueError("expected at least one picture for the sheet, got none")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = tile + gap
    sheet = np.full((rows * step + gap, columns * step + gap, 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        small = Image.fromarray(picture)
        small.thumbnail((tile, tile))
        top = gap + number // columns * step + (tile - small.height) // 2
        left = gap + number % columns * step + (tile - small.width) // 2
        sheet[top : top + small.height, left : left + small.width] = np.asarray(small)
    return sheet
