"""Features at points: bilinear interpolation at real-valued positions of one or several maps.

Shapes: N regions, B images, R boxes, C channels, P points, H W rows and columns of a map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class ComputedMap(ABC):
    """A map of one image that is computed at the points where it is read, and nowhere else."""

    @abstractmethod
    def at(self, points: Tensor) -> Tensor:
        """Values (1, C, P) at points (1, P, 2) in the unit square of the map."""


FeatureMap = Tensor | ComputedMap
"""(N, C, H, W), (1, C, H, W) where all N share it, or what computes the values of the latter."""


def point_sample(
    features: Tensor, points: Tensor, *, mode: str = "bilinear", padding: str = "zeros"
) -> Tensor:
    """Values of maps (N, C, H, W) at points (N, P, 2): (N, C, P).

    Points are (x, y) in the unit square of the map, ``align_corners=False``. Outside of the map, and so also
    within half a cell of its edge, values fade to 0 (``padding="zeros"``, as in the published models) or
    continue (``"border"``, as ``F.interpolate`` does). ``mode`` is "bilinear" or "nearest" (for labels).

    The interpolation runs in float32 (float64 for float64 maps) also under autocast; the result has the
    dtype of ``features``. Paper section 3.2; Detectron2 ``point_features.point_sample``.

    Raises:
        ValueError: on other shapes, or if N of the two differ.
    """
    if (
        features.ndim != 4
        or points.ndim != 3
        or points.shape[-1] != 2
        or points.shape[0] != features.shape[0]
    ):
        raise ValueError(
            "expected features (N, C, H, W) and points (N, P, 2) with the same N, "
            f"got {tuple(features.shape)} and {tuple(points.shape)}"
        )
    if 0 in features.shape[-2:]:
        raise ValueError(f"cannot sample from an empty map of size {tuple(features.shape[-2:])}")
    if not points.is_floating_point() or points.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"points: expected float32 or float64 (half precision misplaces them), got {points.dtype}"
        )
    exact = torch.promote_types(features.dtype, torch.float32)
    with without_autocast(features.device):
        grid = (2.0 * points.to(exact) - 1.0).unsqueeze(2)  # (N, P, 1, 2) in [-1, 1], as grid_sample wants
        sampled = F.grid_sample(
            features.to(exact), grid, mode=mode, padding_mode=padding, align_corners=False
        )  # (N, C, P, 1)
    return sampled.squeeze(3).to(features.dtype)


@dataclass(frozen=True)
class Placement:
    """Where R regions lie in the images that feature maps cover."""

    boxes: Tensor
    """(R, 4) in the unit squares of the images."""
    image_index: Tensor | None = None
    """(R,) int64; None where there is one image."""

    def in_image(self, points: Tensor) -> Tensor:
        """(R, P, 2) in the unit squares of the regions -> (R, P, 2) in that of each region's image."""
        return points_in_image(points, self.boxes)


def sample_maps(features: Sequence[FeatureMap], points: Tensor, placement: Placement | None = None) -> Tensor:
    """Several maps over the same images, each at its own stride, at the same points (N, P, 2): (N, sum of C, P).

    A map of one image is shared by all N.
    """
    index = None
    if placement is not None:
        points, index = placement.in_image(points), placement.image_index
    sampled = [
        level.at(points)
        if isinstance(level, ComputedMap)
        else sample_by_image(level, points, index)
        if index is not None or level.shape[0] == 1
        else point_sample(level, points)
        for level in features
    ]
    return sampled[0] if len(sampled) == 1 else torch.cat(sampled, dim=1)


def sample_by_image(features: Tensor, points: Tensor, image_index: Tensor | None) -> Tensor:
    """(B, C, H, W) at (R, P, 2) in the unit square of each box's image -> (R, C, P), without copying maps."""
    boxes, per_box = points.shape[:2]
    channels = features.shape[1]
    if features.shape[0] == 1:
        flat = point_sample(features, points.reshape(1, boxes * per_box, 2))
        return flat.reshape(channels, boxes, per_box).transpose(0, 1)
    assert image_index is not None
    out = features.new_zeros((boxes, channels, per_box))
    for image in range(features.shape[0]):
        here = torch.nonzero(image_index == image).flatten()
        flat = point_sample(features[image : image + 1], points[here].reshape(1, -1, 2))
        out = out.index_copy(0, here, flat.reshape(channels, len(here), per_box).transpose(0, 1))
    return out


def encode_positions(points: Tensor, frequencies: Tensor) -> Tensor:
    """Random Fourier features of points: (R, P, 2) in [0, 1] and (2, F) -> (R, P, 2 F), sines first."""
    with without_autocast(points.device):  # angles of 20 turns leave bfloat16 no digits
        angles = 2 * math.pi * ((2 * points - 1) @ frequencies.to(points.dtype))
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Full precision inside; nothing to do on the meta device, of which autocast does not know."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def regular_grid(
    height: int, width: int, *, regions: int = 1, device: torch.device | str | None = None
) -> Tensor:
    """Centres of all cells of an ``height x width`` grid, row by row: (N, H*W, 2) float32 in [0, 1].

    Raises:
        ValueError: if a side of the grid is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"regular_grid: expected sides of at least 1 cell, got {height} x {width}")
    # In affine_grid's order of operations, as Detectron2: last bits of published models' coarse logits depend on it.
    to_unit_square = torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]], device=device)
    with without_autocast(to_unit_square.device):  # it would multiply in half precision
        grid = F.affine_grid(to_unit_square, [1, 1, height, width], align_corners=False)
    return grid.view(1, height * width, 2).expand(regions, -1, -1)


def cell_centers(index: Tensor, height: int, width: int) -> Tensor:
    """Centres of the cells with flat index ``row * width + column``: (N, P) -> (N, P, 2) float32 in [0, 1]."""
    rows = torch.div(index, width, rounding_mode="floor")
    columns = index - rows * width
    x = 0.5 / width + columns.float() * (1.0 / width)
    y = 0.5 / height + rows.float() * (1.0 / height)
    return torch.stack((x, y), dim=-1)


def points_in_image(points: Tensor, boxes: Tensor) -> Tensor:
    """From the unit squares of boxes to pixels: (R, P, 2) in [0, 1] and (R, 4) -> (R, P, 2) in the boxes' pixels.

    Raises:
        ValueError: if the number of boxes and of point sets differ.
    """
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or points.ndim != 3 or points.shape[0] != boxes.shape[0]:
        raise ValueError(
            f"expected points (R, P, 2) and boxes (R, 4), got {tuple(points.shape)} and {tuple(boxes.shape)}"
        )
    top_left = boxes[:, None, :2].to(points.dtype)
    size = boxes[:, None, 2:].to(points.dtype) - top_left
    return points * size + top_left


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """From pixels to the unit squares of boxes, (R, P, 2) and (R, 4) -> (R, P, 2).

    Undoes :func:`points_in_image`.
    """
    top_left = boxes[:, None, :2].to(points.dtype)
    return (points - top_left) / (boxes[:, None, 2:].to(points.dtype) - top_left)
