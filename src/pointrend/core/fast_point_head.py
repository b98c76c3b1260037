"""The point head, faster: what is linear is computed on the maps, once, before any point is sampled.

Bilinear sampling is a weighted sum, so it commutes with a linear layer: ``W (sample f) = sample (W f)``. Every layer
of the point head splits into a part that sees the hidden features and a part that sees the coarse prediction::

    h0 = relu(F0 fine + C0 coarse + b0)     h1 = relu(A1 h0 + C1 coarse + b1)   ...   logits = a h + c coarse + b

``C0 coarse, C1 coarse, ..`` are computed on the 7x7 cells of each box instead of on its thousands of points, and
``F0 fine`` on the cells of the feature map where there are fewer of them than points. What remains for each point
is two square matrix products and, as the class of the box is known, one dot product.

Exact up to rounding: a sample that lies partly outside of a map takes zeros there, before or after a linear layer, and
biases are rows of their own with weight 1. The textbook path is :class:`~pointrend.core.point_head.PointHead` itself;
tests hold the two together. For inference: no gradients.

Under autocast, samples and the square products are in its half precision; sampling weights, the last dot product and
the logits stay float32. Nothing here waits for the device: no shape depends on a value.

Shapes: R regions (boxes), B images, P points, C channels, H W rows and columns of a map, T rows of a table, M samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.gather import FineMap, bilinear_rows, point_sample_boxes, weighted_rows
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import FeatureMap, Placement, point_sample, sample_maps
from pointrend.core.subdivision import PredictAt


class PredictInBoxes(Protocol):
    """Predicts at points (r, P, 2) of the boxes ``first, first + 1, ..``: logits (r, 1, P) of each box's class."""

    def __call__(self, points: Tensor, first: int = 0) -> Tensor: ...


def predict_in_images(
    head: PointHead, features: Sequence[FeatureMap], coarse: Tensor, placement: Placement | None = None
) -> PredictAt:
    """The point head on maps of N images, as a function from points (N, P, 2) to logits (N, C, P).

    Coarse logits are always sampled from the original coarse prediction, never from an upsampled one.

    Args:
        features: maps (N, Cf, H, W), in the order in which the head's fine features are concatenated.
        coarse: (N, C, H, W) coarse logits.
        placement: where each of the N coarse predictions lies in an image of the maps; None: it covers one.
    """
    coarse = head.coarse_features(coarse)
    if uses_fast_form(head):
        return FastImagePointHead(head, features, coarse, placement)

    def predict_at(points: Tensor) -> Tensor:
        fine = head.with_positions(sample_maps(features, points, placement), points)  # (N, Cf, P)
        logits: Tensor = head(fine, point_sample(coarse, points, padding=head.coarse_padding))
        return logits

    return predict_at


def predict_in_boxes(
    head: PointHead,
    features: Sequence[Tensor],
    strides: Sequence[float],
    boxes: Tensor,
    image_index: Tensor,
    coarse: Tensor,
    labels: Tensor,
    *,
    expected_points: int,
) -> PredictInBoxes:
    """The point head in R boxes, for each box's class. Arguments as for :class:`FastPointHead`."""
    coarse = head.coarse_features(coarse)
    if uses_fast_form(head):
        return FastPointHead(
            head, features, strides, boxes, image_index, coarse, labels, expected_points=expected_points
        )

    def predict_at(points: Tensor, first: int = 0) -> Tensor:
        some = slice(first, first + points.shape[0])
        fine = point_sample_boxes(features, strides, boxes[some], image_index[some], points)  # (r, Cf, P)
        fine = head.with_positions(fine, points)
        sampled = point_sample(coarse[some], points, padding=head.coarse_padding)  # (r, K, P)
        logits: Tensor = head(fine, sampled, labels[some])
        return logits

    return predict_at


def uses_fast_form(head: PointHead) -> bool:
    """Whether to predict by this module: not in training, nor where a compiler or exporter looks on.

    Nor with a positional encoding, which is no map.
    """
    plain = head.fast and head.frequencies is None
    return plain and bool(head.layers) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What products with a head's weight are computed in: its dtype, or autocast's where that is on."""
    if weight.dtype == torch.float32 and torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


class FastPointHead:
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
            at the points, see :class:`~pointrend.core.gather.FineMap`.
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
        self.labels = labels
        self.height, self.width = coarse.shape[-2:]
        self.size = coarse.new_tensor([self.width, self.height], dtype=torch.float32)
        self.border = head.residual
        with torch.autocast(boxes.device.type, enabled=False):
            parts = self.weights.fine.split([level.shape[1] for level in features], dim=1)
            self.maps = [
                FineMap(level, stride, columns, boxes, image_index, expected_points)
                for level, stride, columns in zip(features, strides, parts, strict=True)
            ]
            self.tables, self.logit = self._project(coarse, head.residual)

    def _project(self, coarse: Tensor, residual: bool) -> tuple[list[Tensor], Tensor]:
        """What coarse cells add to each layer that sees them: (R*h*w + 1, width), its bias last; to the logit (R*h*w,).

        One table for each layer: gathering from a single one of 769 columns took twice as long.
        """
        split = self.weights
        classes = coarse.shape[1]
        cells = coarse.to(split.predictor.dtype).flatten(2).transpose(1, 2).reshape(-1, classes)  # (R*h*w, K)
        tables = [
            torch.cat((cells @ columns.T, bias[None])).to(split.dtype)
            for columns, bias in zip(split.coarse, split.biases, strict=False)
        ]
        cells = cells.view(len(coarse), self.height * self.width, classes)
        logit = torch.bmm(split.coarse_rows[self.labels][:, None], cells.transpose(1, 2))[:, 0]
        if residual:
            own = self.labels if classes > 1 else torch.zeros_like(self.labels)
            logit = logit + cells.gather(2, own[:, None, None].expand(-1, cells.shape[1], 1))[..., 0]
        return tables, logit.flatten()

    def __call__(self, points: Tensor, first: int = 0) -> Tensor:
        """Logits at points of the boxes ``first, first + 1, ..``: (r, P, 2) -> (r, 1, P)."""
        regions, per_box = points.shape[:2]
        chosen = slice(first, first + regions)
        labels = self.labels[chosen]
        with torch.autocast(points.device.type, enabled=False):
            index, weights = self._cells(points, first)
            own = (self.logit.index_select(0, index.flatten()).view_as(weights) * weights).sum(1)
            index = F.pad(index, (0, 1), value=len(self.logit))  # the row of the bias
            weights = F.pad(weights, (0, 1), value=1.0)
            coarse = (weighted_rows(table, index, weights) for table in self.tables)
            # No name for the first layer's features here: they would live until the last layer is done.
            hidden = self.weights.forward(self._first_layer(coarse, chosen, points), coarse)
            rows = self.weights.predictor[labels]  # (r, width)
            hidden = hidden.view(regions, per_box, rows.shape[1]).to(rows.dtype)
            # A row times many columns: many rows times one column is ten times slower on a CPU.
            logits = torch.bmm(rows[:, None], hidden.transpose(1, 2))  # (r, 1, P)
            logits = (
                logits + (own.view(regions, per_box) + self.weights.predictor_bias[labels][:, None])[:, None]
            )
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _first_layer(self, coarse: Iterator[Tensor], chosen: slice, points: Tensor) -> Tensor:
        """(r*P, width) before the ReLU; takes the first of what the coarse prediction adds to the layers."""
        hidden = next(coarse)
        for level in self.maps:
            level.add_to(hidden, chosen, points)
        return hidden

    def _cells(self, points: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Rows (r*P, 4) of the tables: the coarse cells around each point, and their weights."""
        index, weights = bilinear_rows(points * self.size, self.height, self.width, border=self.border)
        box = torch.arange(first, first + len(points), device=points.device)[:, None, None]
        return (index + box * (self.height * self.width)).flatten(0, 1), weights.flatten(0, 1)


class SplitWeights:
    """The layers of a point head, each split into what sees hidden features and what sees the coarse prediction."""

    def __init__(self, head: PointHead) -> None:
        if not len(head.layers):
            raise ValueError("a point head without hidden layers has nothing to project: use it directly")
        self.dtype = compute_dtype(head.predictor.weight)
        convolutions = [layer for layer in head.layers if isinstance(layer, nn.Conv1d)]
        layers = [layer.weight.detach().squeeze(2) for layer in convolutions]
        self.biases = [layer.bias.detach() for layer in convolutions if layer.bias is not None]
        width = layers[0].shape[0]
        self.fine = layers[0][:, : head.fine_channels].to(self.dtype)  # (width, Cf)
        rest = [layer[:, width:] for layer in layers[1:]] if head.coarse_each_layer else []
        self.coarse = [layers[0][:, head.fine_channels :], *rest]  # (width, K) of the layers that see it
        self.square = [layer[:, :width].T.to(self.dtype) for layer in layers[1:]]
        predictor = head.predictor.weight.detach().squeeze(2)  # (K, width [+ K])
        self.predictor = predictor[:, :width]
        assert head.predictor.bias is not None
        self.predictor_bias = head.predictor.bias.detach()
        none = predictor.new_zeros((predictor.shape[0], head.coarse_channels))
        self.coarse_rows = predictor[:, width:] if head.coarse_each_layer else none

    def forward(self, hidden: Tensor, coarse: Iterator[Tensor]) -> Tensor:
        """Hidden features (M, width) behind the last layer; memory of what comes in is written over.

        Args:
            hidden: (M, width) of the first layer, before the ReLU.
            coarse: (M, width) that the coarse prediction adds to each further layer that sees it, with its bias.
        """
        hidden.relu_()
        for bias, square in zip(self.biases[1:], self.square, strict=True):
            part = next(coarse, None)
            if part is None:
                hidden = torch.addmm(bias.to(self.dtype), hidden, square).relu_()
            else:
                hidden = part.addmm_(hidden, square).relu_()
        return hidden


# Points whose hidden features, 1 KB a layer each, are alive at once.
POINTS_AT_ONCE = 2**14


class FastImagePointHead:
    """A point head bound to maps of N images: points (N, P, 2) in their unit squares -> logits (N, C, P).

    Args: as for :func:`predict_in_images`.
    """

    def __init__(
        self,
        head: PointHead,
        features: Sequence[FeatureMap],
        coarse: Tensor,
        placement: Placement | None = None,
    ) -> None:
        self.head, self.features, self.coarse, self.placement = head, features, coarse, placement
        self.weights = SplitWeights(head)

    def __call__(self, points: Tensor) -> Tensor:
        at_once = max(1, POINTS_AT_ONCE // max(1, points.shape[0]))
        return torch.cat([self._predict(part) for part in points.split(at_once, dim=1)], dim=2)

    def _predict(self, points: Tensor) -> Tensor:
        images, per_image = points.shape[:2]
        fine = sample_maps(self.features, points, self.placement)  # (N, Cf, P)
        coarse = point_sample(self.coarse, points, padding=self.head.coarse_padding)  # (N, C, P)
        fine, coarse = (sampled.transpose(1, 2).flatten(0, 1) for sampled in (fine, coarse))  # (N*P, ..)
        weights, coarse = self.weights, coarse.to(self.weights.predictor.dtype)
        parts = (
            F.linear(coarse, part, bias) for part, bias in zip(weights.coarse, weights.biases, strict=False)
        )
        hidden = next(parts).addmm_(fine.to(weights.dtype), weights.fine.T)  # (N*P, width)
        hidden = weights.forward(hidden, parts)
        with torch.autocast(points.device.type, enabled=False):  # logits are compared: no half precision here
            rows = torch.addmm(
                weights.predictor_bias, hidden.to(weights.predictor.dtype), weights.predictor.T
            )
            rows = rows + coarse @ weights.coarse_rows.T
        if self.head.residual:
            rows = rows + coarse
        logits = rows.view(images, per_image, rows.shape[1]).transpose(1, 2)
        return logits.to(torch.promote_types(rows.dtype, torch.float32))
