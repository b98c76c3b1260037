"""Every coordinate convention of the package, once.

* A **point** is ``(x, y)`` in the unit square of its region: a box, or the whole picture. ``(0, 0)`` is the
  top-left corner of the region, ``(1, 1)`` its bottom-right corner.
* **Cell** ``(i, j)`` (row, column) of an ``H x W`` grid over the region has its centre at
  ``((j + .5) / W, (i + .5) / H)``: the convention that torch calls ``align_corners=False``.
* A **box** is ``(x1, y1, x2, y2)`` in pixels of the network's input, continuous: the top-left pixel covers
  ``[0, 1) x [0, 1)`` and a box's width is ``x2 - x1``.
* Coordinates are float32 (or float64), never half precision: bfloat16 has 8 bits, so a point of a 224-cell grid
  would land up to half a cell away from where it should.

Letters: N regions, P points, H W rows and columns, R boxes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


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
    columns = (index % width).float()
    rows = torch.div(index, width, rounding_mode="floor").float()
    x = 0.5 / width + columns * (1.0 / width)
    y = 0.5 / height + rows * (1.0 / height)
    return torch.stack((x, y), dim=-1)


def points_in_image(points: Tensor, boxes: Tensor) -> Tensor:
    """From the unit squares of boxes to pixels: (R, P, 2) in [0, 1] and (R, 4) -> (R, P, 2) in the boxes' pixels.

    Raises:
        ValueError: if the number of boxes and of point sets differ.
    """
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or points.ndim != 3 or len(points) != len(boxes):
        raise ValueError(
            f"expected points (R, P, 2) and boxes (R, 4), got {tuple(points.shape)} and {tuple(boxes.shape)}"
        )
    top_left = boxes[:, None, :2].to(points.dtype)
    size = boxes[:, None, 2:].to(points.dtype) - top_left
    return points * size + top_left
