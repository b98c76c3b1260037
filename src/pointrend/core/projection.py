"""The point head, faster: what is linear is computed on the maps, once, before any point is sampled.

Bilinear sampling is a weighted sum, so it commutes with a linear layer: ``W (sample f) = sample (W f)``. Every layer
of the point head splits into a part that sees the hidden features and a part that sees the coarse prediction::

    h0 = relu(F0 fine + C0 coarse + b0)     h1 = relu(A1 h0 + C1 coarse + b1)   ...   logits = a h + c coarse + b

``C0 coarse, C1 coarse, ..`` are computed on the 7x7 cells of each box instead of on its thousands of points, and
``F0 fine`` on the cells of the feature map where there are fewer of them than points. What remains for each point
is two square matrix products and, as the class of the box is known, one dot product.

Exact up to rounding: a sample that lies partly outside of a map takes zeros there, before or after a linear layer, and
biases are added after sampling. The textbook path is :class:`~pointrend.core.point_head.PointHead` itself; tests hold
the two together. For inference: no gradients.

Letters: R regions (boxes), B images, P points, C channels, H W rows and columns of a map, T rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.coordinates import points_in_image
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import point_sample_boxes


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
    x, y = (positions - 0.5).unbind(-1)
    if border:
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    columns = torch.stack((left, left + 1, left, left + 1), -1)
    rows = torch.stack((top, top, top + 1, top + 1), -1)
    weights = torch.stack((1 - right_share, right_share, 1 - right_share, right_share), -1)
    weights = weights * torch.stack((1 - bottom_share, 1 - bottom_share, bottom_share, bottom_share), -1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()
    return index, weights * inside


def weighted_rows(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of table rows: (T, C) at (M, 4) -> (M, C).

    ``embedding_bag`` does it in one pass over a channels-last table; ``grid_sample`` on a one-row grid is several times
    slower on a CPU.
    """
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights.to(table.dtype))


class ProjectedPointHead:
    """A point head bound to maps and boxes: points (R, P, 2) in the boxes -> logits (R, 1, P) of each box's class.

    Construct it and call it without gradients.

    Args:
        head: the point head; its weights are read, not copied into the checkpoint.
        features: maps (B, C, H, W), in the order in which the head's fine features are concatenated.
        strides: input pixels per cell of each map.
        boxes: (R, 4) in pixels of the network's input.
        image_index: (R,) int64.
        coarse: (R, K, h, w) coarse logits.
        labels: (R,) int64 row of each box's class in the predictor, 0 for a class-agnostic head.
        expected_points: points to be predicted for each box in all steps: decides what is done on the maps and what
            at the points, see :class:`FineMap`.
    """

    def __init__(
        self,
        head: PointHead,
        features: Sequence[Tensor],
        strides: Sequence[float],
        boxes: Tensor,
        image_index: Tensor,
        coarse: Tensor,
        labels: Tensor,
        *,
        expected_points: int,
    ) -> None:
        self.weights = SplitWeights(head)
        parts = self.weights.fine.split([level.shape[1] for level in features], dim=1)
        self.maps = [
            FineMap(level, stride, columns, len(boxes) * expected_points)
            for level, stride, columns in zip(features, strides, parts, strict=True)
        ]
        self.boxes = boxes
        self.image_index = image_index
        self.labels = labels
        self.height, self.width = coarse.shape[-2:]
        self.border = head.residual
        cells = coarse.flatten(2).transpose(1, 2)  # (R, h*w, K)
        self.coarse_hidden = (cells @ self.weights.coarse_hidden.T).flatten(0, 1)  # (R*h*w, sum of widths)
        rows = self.weights.coarse_rows[labels]  # (R, K)
        own = torch.einsum("rtk,rk->rt", cells, rows)
        if head.residual:
            channel = labels if coarse.shape[1] > 1 else torch.zeros_like(labels)
            own = own + cells.gather(2, channel[:, None, None].expand(-1, cells.shape[1], 1))[..., 0]
        self.coarse_logit = own.flatten()[:, None].contiguous()  # (R*h*w, 1)

    def __call__(self, points: Tensor, first: int = 0) -> Tensor:
        """Logits at points of the boxes ``first, first + 1, ..``: (r, P, 2) -> (r, 1, P)."""
        regions, per_box = points.shape[:2]
        chosen = slice(first, first + regions)
        boxes, images = self.boxes[chosen], self.image_index[chosen]
        fine, *others = (level.sample(boxes, images, points) for level in self.maps)
        for other in others:
            fine = fine + other
        rough, logit = self._coarse(points, first)
        hidden = self.weights.forward(fine, rough)  # (r*P, width)
        dot = self.weights.predictor[self.labels[chosen]].unsqueeze(2)  # (r, width, 1)
        logits = torch.bmm(hidden.view(regions, per_box, self.weights.width), dot)[..., 0]
        logits = (
            logits + logit.view(regions, per_box) + self.weights.predictor_bias[self.labels[chosen]][:, None]
        )
        return logits[:, None].to(torch.promote_types(logits.dtype, torch.float32))

    def _coarse(self, points: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """What the coarse prediction adds at points: to hidden layers (r*P, sum of widths), to the logit (r*P,)."""
        size = points.new_tensor([self.width, self.height])
        index, weights = bilinear_rows(points * size, self.height, self.width, border=self.border)
        cells = self.height * self.width
        numbers = torch.arange(first, first + len(points), device=points.device)[:, None, None]
        index = (index + numbers * cells).flatten(0, 1)
        weights = weights.flatten(0, 1)
        hidden = weighted_rows(self.coarse_hidden, index, weights)
        logit = (self.coarse_logit[:, 0][index] * weights.to(self.coarse_logit.dtype)).sum(1)
        return hidden, logit


class SplitWeights:
    """The layers of a point head, each split into what sees hidden features and what sees the coarse prediction."""

    def __init__(self, head: PointHead) -> None:
        if not len(head.layers):
            raise ValueError("a point head without hidden layers has nothing to project: use it directly")
        convolutions = [layer for layer in head.layers if isinstance(layer, nn.Conv1d)]
        layers = [layer.weight.detach().squeeze(2) for layer in convolutions]
        width = layers[0].shape[0]
        self.fine = layers[0][:, : head.fine_channels]  # (width, Cf)
        first = layers[0][:, head.fine_channels :]
        rest = [layer[:, width:] for layer in layers[1:]] if head.coarse_each_layer else []
        self.coarse_hidden = torch.cat([first, *rest])  # (width * layers that see it, K)
        self.square = [layer[:, :width].T.contiguous() for layer in layers[1:]]
        self.biases = [layer.bias.detach() for layer in convolutions if layer.bias is not None]
        self.width = width
        predictor = head.predictor.weight.detach().squeeze(2)  # (K, width [+ K])
        self.predictor = predictor[:, :width]
        assert head.predictor.bias is not None
        self.predictor_bias = head.predictor.bias.detach()
        none = predictor.new_zeros((predictor.shape[0], head.coarse_channels))
        self.coarse_rows = predictor[:, width:] if head.coarse_each_layer else none

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """The first layer's fine part (M, width) and all coarse parts -> hidden features (M, width)."""
        parts = coarse.split(self.width, dim=1)
        hidden = fine.add_(parts[0]).add_(self.biases[0]).relu_()
        for number, square in enumerate(self.square, start=1):
            hidden = torch.addmm(self.biases[number], hidden, square)
            if number < len(parts):
                hidden.add_(parts[number])
            hidden.relu_()
        return hidden


class FineMap:
    """One feature map and the first layer's columns for it: (r, P, 2) pixels -> (r*P, width), by the cheapest way.

    * **Projected** where the map has fewer cells than there are points: the product is taken on the map.
    * A **channels-last table** of rows (B*H*W, C) where the copy that makes it is worth it, which is at about an eighth
      as many points as cells, or where the map is laid out so already; the product is taken on the samples.
    * ``grid_sample`` on the map as it is for a few points.
    """

    def __init__(self, features: Tensor, stride: float, columns: Tensor, points: int) -> None:
        self.features = features
        self.stride = stride
        images, channels, self.height, self.width = features.shape
        cells = images * self.height * self.width
        last = features.permute(0, 2, 3, 1)
        self.columns: Tensor | None = columns.T
        self.table: Tensor | None = None
        if cells < points:
            self.table = last.reshape(cells, channels) @ columns.T
            self.columns = None
        elif cells < 8 * points or last.is_contiguous():
            self.table = last.reshape(cells, channels)

    def sample(self, boxes: Tensor, image_index: Tensor, points: Tensor) -> Tensor:
        """The first layer's product at points (r, P, 2) in boxes (r, 4): (r*P, width)."""
        if self.table is None:
            sampled = point_sample_boxes([self.features], [self.stride], boxes, image_index, points)
            rows = sampled.transpose(1, 2).flatten(0, 1)
        else:
            positions = points_in_image(points, boxes) / self.stride
            index, weights = bilinear_rows(positions, self.height, self.width)
            index = index + (image_index * (self.height * self.width))[:, None, None]
            rows = weighted_rows(self.table, index.flatten(0, 1), weights.flatten(0, 1))
        return rows if self.columns is None else rows @ self.columns
