"""Feature maps as colours, and the part of a map that lies under a region."""

from __future__ import annotations

import math

import numpy as np
import torch

from pointrend.visualize.overlays import Box
from pointrend.visualize.palettes import Picture


def color_features(features: torch.Tensor) -> Picture:
    """Features (C, H, W) as a picture (H, W, 3): their three principal components as red, green and blue.

    Each component is stretched over its 2nd to 98th percentile, with the sign that makes its largest weight
    positive, so that the same features have the same colours each time. A component without spread is grey.
    """
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features: expected one map (C, H, W) with cells, got {tuple(features.shape)}")
    channels, rows, columns = features.shape
    flat = features.detach().cpu().double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    vectors = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)[:, :3]  # (C, 3), the strongest first
    vectors = vectors * torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
    parts = (vectors.T @ flat).numpy()  # (3, H * W), or fewer rows where there are fewer channels
    picture = np.full((3, rows * columns), 0.5)
    for number, part in enumerate(parts):
        low, high = np.percentile(part, (2, 98))
        if high - low > 1e-9:
            picture[number] = (part - low) / (high - low)
    if channels == 1:
        picture[1:] = picture[0]
    return np.rint(picture.clip(0, 1).T.reshape(rows, columns, 3) * 255).astype(np.uint8)


def crop_features(features: torch.Tensor, plane: Box, box: Box) -> tuple[torch.Tensor, Box]:
    """The cells of a map (C, H, W) under a box, and the box that these cells cover exactly.

    Args:
        plane: what the whole map covers, in the same pixels as `box`.
    """
    rows, columns = features.shape[1:]
    wide, high = (plane[2] - plane[0]) / columns, (plane[3] - plane[1]) / rows
    left, right = _cells(box[0] - plane[0], box[2] - plane[0], wide, columns)
    top, bottom = _cells(box[1] - plane[1], box[3] - plane[1], high, rows)
    covered = (
        plane[0] + left * wide,
        plane[1] + top * high,
        plane[0] + right * wide,
        plane[1] + bottom * high,
    )
    return features[:, top:bottom, left:right], covered


def _cells(low: float, high: float, cell: float, count: int) -> tuple[int, int]:
    """First and one past the last of `count` cells that touch low..high; at least one."""
    first = min(max(math.floor(low / cell), 0), count - 1)
    return first, min(max(math.ceil(high / cell), first + 1), count)
