"""Images larger than the network's input: subdivision goes on to their own size, and reads their pixels at points.

The network sees the image shrunk. Beyond its grid only the uncertain points of the image are looked at, each in a
tile of pixels of full resolution: no map of the image's size is ever made.

Shapes: C classes, P points, H W rows and columns of the image; one image at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointrend.core.gather import bilinear_rows, weighted_rows
from pointrend.core.lazy_grid import DenseLogits, LazyGrid, label_dtype
from pointrend.core.sampling import ComputedMap
from pointrend.core.subdivision import PredictAt, Size, render, subdivision_sizes
from pointrend.models.inputs import Preprocessing, normalise

TILE = 32
"""Cells of a side of the tiles in which a layer is computed."""
TILES_AT_ONCE = 8
MARGIN = 6
"""Pixels around the cells of a stem that they depend on: enough for a 7x7 convolution, or three 3x3 ones."""


class LayerAtPoints(ComputedMap):
    """A layer's map of an image of any size, computed in the tiles in which points lie instead of everywhere.

    The same values as of the dense map, but for those beside the image's edge, where layers see zeros of their own.

    Args:
        image: uint8 (3, H, W) RGB.
        preprocessing: normalisation of the pixels.
        covered: rows and columns in pixels of what the points' unit square covers, padding included.
        layer: (B, 3, h, w) normalised pixels -> (B, C, h / stride, w / stride); None for the pixels themselves.
        stride: of the layer.
    """

    def __init__(
        self,
        image: Tensor,
        preprocessing: Preprocessing,
        covered: tuple[float, float],
        layer: nn.Module | None = None,
        stride: int = 1,
    ) -> None:
        self.image, self.preprocessing, self.layer, self.stride = image, preprocessing, layer, stride
        self.covered = torch.tensor(covered[::-1], device=image.device)
        self.margin = 0 if layer is None else MARGIN

    def at(self, points: Tensor) -> Tensor:
        cells = points[0] * self.covered / self.stride - 0.5  # (P, 2)
        tiles, tile_of = torch.div(cells.floor(), TILE, rounding_mode="floor").unique(
            dim=0, return_inverse=True
        )
        table = torch.cat([self._tiles(some) for some in tiles.split(TILES_AT_ONCE)])  # (rows, C)
        side = TILE + 1
        index, weights = bilinear_rows(cells + 0.5 - tiles[tile_of] * TILE, side, side)
        return weighted_rows(table, index + (tile_of * side**2)[:, None], weights).T[None]

    def _tiles(self, tiles: Tensor) -> Tensor:
        """The cells of tiles (T, 2), given by column and row, and one row and column more: (T * 33 * 33, C)."""
        corners = tiles.long() * (TILE * self.stride) - self.margin
        patches = self._patches(corners, (TILE + 1) * self.stride + 2 * self.margin)
        maps = patches if self.layer is None else self.layer(patches)
        cells = slice(self.margin // self.stride, self.margin // self.stride + TILE + 1)
        return maps[:, :, cells, cells].permute(0, 2, 3, 1).flatten(0, 2)

    def _patches(self, corners: Tensor, side: int) -> Tensor:
        """Normalised pixels (T, 3, side, side) from these corners (T, 2) on; zeros outside of the image."""
        steps = torch.arange(side, device=corners.device)
        columns, rows = (corners[:, axis, None] + steps for axis in (0, 1))  # (T, side)
        height, width = self.image.shape[1:]
        pixels = self.image[
            :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
        ]  # (3, T, side, side)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        return (normalise(pixels, self.preprocessing) * inside).transpose(0, 1)


class ChosenClasses(LazyGrid):
    """Logits of some of the classes; the others have none anywhere.

    Args:
        grid: (K, H, W).
        classes: (K,) the number of each.
        count: C, of all classes.
    """

    def __init__(self, grid: LazyGrid, classes: Tensor, count: int) -> None:
        super().__init__((count, *grid.size), grid.dtype, grid.device)
        self.grid, self.classes = grid, classes

    def rows(self, first: int, last: int) -> Tensor:
        logits = self.grid.rows(first, last)
        every = logits.new_full((self.shape[0], *logits.shape[1:]), -torch.inf)
        return every.index_copy(0, self.classes, logits)

    def label_map(self) -> Tensor:
        return self.classes.to(label_dtype(self.shape[0]))[self.grid.label_map().int()]

    def label_uncertainty(self) -> Tensor:
        return self.grid.label_uncertainty()


def continue_to_size(
    size: Size, grid: LazyGrid, predict_at: PredictAt, *, num_points: int, min_uncertainty: float | None
) -> LazyGrid:
    """The loop goes on from the network's own grid (C, h, w) of an image to the image's size: (C, *size).

    Only classes that some cell of the network's grid has take part: of 21, a photograph has a handful.

    Args:
        size: H and W of the image.
        grid: of the image at the network's size, without padding.
        predict_at: of all classes.
        num_points: of a step in the network's grid; outlines, and so the points, grow with the size.
        min_uncertainty: as of :func:`~pointrend.core.subdivision.render`.
    """
    count = grid.shape[0]
    classes = grid.label_map().unique().long()
    if len(classes) < 2:  # the logits of one would be those of a binary mask
        classes = torch.cat([classes, (classes + 1) % count])
    logits = torch.cat([rows[classes] for _, _, rows in grid.row_chunks()], dim=1)  # (K, h, w)
    start: LazyGrid = DenseLogits(logits, labels_at=size)
    larger = render(
        start,
        lambda points: predict_at(points)[:, classes],
        sizes=subdivision_sizes(grid.size, size),
        num_points=round(num_points * max(1.0, size[0] / grid.size[0])),
        min_uncertainty=min_uncertainty,
    )
    return ChosenClasses(larger, classes, count)
