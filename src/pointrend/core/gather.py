"""Samples at points in boxes, as weighted sums of table rows too, and the first layer's part that sees a feature map.

A channels-last map is a table of rows, one a cell; a bilinear sample is four of them with weights.
``core.fast_point_head`` puts the point head on top. For inference: no gradients.

Shapes: R regions (boxes), B images, P points, C channels, H W rows and columns of a map, T rows of a table, M samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.sampling import points_in_image, sample_by_image


def point_sample_boxes(
    features: Sequence[Tensor],
    strides: Sequence[float],
    boxes: Tensor,
    image_index: Tensor,
    points: Tensor,
) -> Tensor:
    """Features of whole images at points given inside boxes: (R, sum of C, P).

    Args:
        features: one or several maps (B, C, H, W).
        strides: input pixels per cell of each map.
        boxes: (R, 4) in pixels of the network's input; they may reach beyond the image.
        image_index: (R,) int64, the image of each box.
        points: (R, P, 2) in the unit squares of the boxes.

    A map covers exactly ``stride * (W, H)`` pixels, which is the *padded* input; points outside see zeros.
    Detectron2 ``point_features.point_sample_fine_grained_features``.

    Raises:
        ValueError: if the numbers of maps and strides, or of boxes, image indices and point sets differ.
    """
    if len(features) != len(strides) or not features:
        raise ValueError(
            f"expected one stride for each feature map, got {len(strides)} for {len(features)} maps"
        )
    if image_index.shape[0] != boxes.shape[0]:
        raise ValueError(
            f"image_index: expected one entry for each of {len(boxes)} boxes, got {len(image_index)}"
        )
    pixels = points_in_image(points, boxes)  # (R, P, 2)
    levels = []
    for level, stride in zip(features, strides, strict=True):
        height, width = level.shape[-2:]
        # Axis by axis: a tensor of the sizes would be a constant in an exported graph.
        x, y = pixels[..., 0] / (width * stride), pixels[..., 1] / (height * stride)
        levels.append(sample_by_image(level, torch.stack((x, y), -1), image_index))
    return levels[0] if len(levels) == 1 else torch.cat(levels, dim=1)


def bilinear_rows(
    positions: Tensor, height: int, width: int, *, border: bool = False
) -> tuple[Tensor, Tensor]:
    """The four cells around each position, and their weights.

    Args:
        positions: (..., 2) float, (x, y) in cells of the map: the centre of cell (i, j) is at (j + .5, i + .5).
        border: repeat the outermost cells outside of the map, instead of zeros (weight 0).

    Returns:
        index (..., 4) int64, ``row * W + column``, and weights (..., 4) of the positions' dtype.
    """
    # Vectors of single numbers throughout: a last axis of two or four costs three times as much.
    x, y = (positions - 0.5).unbind(-1)
    left, right, to_left, to_right = neighbours(x.contiguous(), width, border)
    top, bottom, to_top, to_bottom = neighbours(y.contiguous(), height, border)
    top, bottom = top * width, bottom * width
    index = torch.stack((top + left, top + right, bottom + left, bottom + right), -1)
    weights = (to_top * to_left, to_top * to_right, to_bottom * to_left, to_bottom * to_right)
    return index, torch.stack(weights, -1)


def neighbours(position: Tensor, size: int, border: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis of ``size`` cells, with cell i at i: the two around each position, and their weights.

    Cells outside of the map are moved into it, with weight 0; with ``border``, positions are.
    """
    if border:
        position = position.clamp(0, size - 1)
    first = position.floor()
    share = position - first
    near = (1 - share) * ((first >= 0) & (first < size))
    far = share * ((first >= -1) & (first < size - 1))
    cell = first.long()
    return cell.clamp(0, size - 1), (cell + 1).clamp(0, size - 1), near, far


def weighted_rows(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of table rows: (T, C) at (M, N) -> (M, C), of the table's dtype.

    ``embedding_bag`` does it in one pass over a channels-last table; ``grid_sample`` on a one-row grid is several times
    slower on a CPU. It wants weights of the table's dtype; in half precision each comes as the sum of two, since the
    error of a weight is the same in all channels and does not average out as that of rows does.
    """
    rounded = weights.to(table.dtype)
    if table.dtype in (torch.float16, torch.bfloat16):
        rest = (weights - rounded).to(table.dtype)
        index, rounded = torch.cat((index, index), -1), torch.cat((rounded, rest), -1)
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=rounded)


def sample_rows(
    table: Tensor, size: tuple[int, int], stride: float, boxes: Tensor, image_index: Tensor, points: Tensor
) -> Tensor:
    """:func:`point_sample_boxes` on a table of rows (B*H*W, C): (r, P, 2) -> (r*P, C)."""
    index, weights = bilinear_rows(points_in_image(points, boxes) / stride, *size)
    index = index + (image_index * (size[0] * size[1]))[:, None, None]
    return weighted_rows(table, index.flatten(0, 1), weights.flatten(0, 1))


class FineMap:
    """One feature map and the first layer's columns for it: points (r, P, 2) -> (r*P, width), by the cheapest way.

    * **Projected** where the map has fewer cells than there are points: the product is taken on the map.
    * A **channels-last table** of rows, (B*H*W, C), of the whole map or, on a CPU, of the :class:`Windows` that the
      boxes cover where these have fewer cells. The product is taken on the samples.
    * ``grid_sample`` on the map as it is for a few points, on a CPU: the copy that makes a table is worth it from
      about an eighth as many points as cells.

    Args:
        features: (B, C, H, W).
        stride: input pixels per cell.
        columns: (width, C) of the first layer.
        boxes: (R, 4) in pixels of the network's input.
        image_index: (R,) int64.
        points: to be sampled in each box, in all.
    """

    def __init__(
        self,
        features: Tensor,
        stride: float,
        columns: Tensor,
        boxes: Tensor,
        image_index: Tensor,
        points: int,
    ) -> None:
        self.features, self.stride = features, stride
        self.boxes, self.image_index = boxes, image_index
        images, channels, height, width = features.shape
        self.size = (height, width)
        self.columns: Tensor | None = columns.T
        self.table: Tensor | None = None
        self.windows: Windows | None = None
        cells, points = images * height * width, points * len(boxes)
        last = features.permute(0, 2, 3, 1)
        if cells < points:
            self.table = last.to(columns.dtype).reshape(cells, channels) @ columns.T
            self.columns = None
            return
        if features.device.type == "cpu" and not last.is_contiguous():
            windows = Windows(boxes / stride, image_index, self.size)
            if 8 * points <= min(windows.cells, cells):
                return
            if windows.cells < cells:
                self.windows, self.table = windows, windows.table(last, columns.dtype)
                return
        # One map's reshape is a view across channels, for which embedding_bag has a slow path only.
        self.table = last.to(columns.dtype).reshape(cells, channels).contiguous()

    def add_to(self, hidden: Tensor, chosen: slice, points: Tensor) -> None:
        """Add the first layer's product to (r*P, width), at points (r, P, 2) of the ``chosen`` boxes' unit squares."""
        rows = self._rows(chosen, points)
        if self.columns is None:
            hidden.add_(rows)
        else:
            hidden.addmm_(rows.to(self.columns.dtype), self.columns)

    def _rows(self, chosen: slice, points: Tensor) -> Tensor:
        """Samples (r*P, C) of the map, or (r*P, width) where it is projected."""
        boxes, images = self.boxes[chosen], self.image_index[chosen]
        if self.table is None:
            sampled = point_sample_boxes([self.features], [self.stride], boxes, images, points)
            return sampled.transpose(1, 2).flatten(0, 1)
        if self.windows is None:
            return sample_rows(self.table, self.size, self.stride, boxes, images, points)
        index, weights = bilinear_rows(points_in_image(points, boxes) / self.stride, *self.size)
        index = self.windows.rows_of(index, chosen)
        return weighted_rows(self.table, index.flatten(0, 1), weights.flatten(0, 1))


class Windows:
    """The cells of a map that samples inside of boxes can touch, one window of rows and columns after the other.

    Their number depends on the boxes, so it is read back: for a CPU, where nothing waits.

    Args:
        boxes: (R, 4) in cells of the map.
        image_index: (R,) int64.
        size: H and W of the map.
    """

    def __init__(self, boxes: Tensor, image_index: Tensor, size: tuple[int, int]) -> None:
        height, width = size
        last = boxes.new_tensor([width - 1, height - 1])
        # The neighbours of a sample are at most half a cell outside; one more is for rounding. A box outside of
        # the map, or none (NaN), keeps a cell, which its samples take with weight 0.
        low = (boxes[:, :2].minimum(boxes[:, 2:]) - 1.5).floor().nan_to_num(0)
        high = (boxes[:, 2:].maximum(boxes[:, :2]) + 1.5).ceil().nan_to_num(0)
        low, high = low.clamp(min=0).minimum(last).long(), high.clamp(min=0).minimum(last).long()
        self.corner, extent = low, high - low + 1
        self.columns = extent[:, 0]
        ends = (extent[:, 0] * extent[:, 1]).cumsum(0)
        self.starts = ends - extent[:, 0] * extent[:, 1]
        self.width = width
        self.cells = int(ends[-1]) if len(ends) else 0
        self.places = torch.cat((image_index[:, None], low, high + 1), 1).tolist()

    def table(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """The windows' cells of a map (B, H, W, C) as rows: (cells, C)."""
        channels = features.shape[-1]
        table = torch.empty((self.cells, channels), dtype=dtype, device=features.device)
        start = 0
        for image, left, top, right, bottom in self.places:
            window = features[image, top:bottom, left:right]
            end = start + window.shape[0] * window.shape[1]
            table[start:end].view(window.shape).copy_(window)
            start = end
        return table

    def rows_of(self, index: Tensor, chosen: slice) -> Tensor:
        """Rows of the table for cells ``row * W + column`` (r, P, 4) that lie in the windows of the chosen boxes."""
        left, top = self.corner[chosen].unbind(1)
        columns, start = self.columns[chosen], self.starts[chosen]
        row = index.div(self.width, rounding_mode="floor")
        # start + (row - top) * columns + (index - row * W - left)
        factor, offset = columns - self.width, start - top * columns - left
        return index + row * factor[:, None, None] + offset[:, None, None]
