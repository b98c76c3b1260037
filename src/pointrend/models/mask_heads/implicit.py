"""Implicit PointRend: each box gets a point head of its own, whose weights a network predicts for it.

There is no coarse mask: the point head sees where a point lies in the box and the fine features there. From
"Pointly supervised instance segmentation" (arXiv 2104.06404, section 5); numbers as in Detectron2
``projects/PointRend/point_rend/point_head.py`` (``ImplicitPointHead``).

Shapes: R boxes of all images, K classes, C channels, P points, W numbers that make up one point head, S side.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core import PointSampling, point_sample_boxes
from pointrend.core.fast_point_head import PredictInBoxes
from pointrend.core.sampling import encode_positions
from pointrend.core.selection import Generators
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import Features, MaskConfig, Sizes
from pointrend.models.mask_heads.coarse import CoarseHead
from pointrend.models.mask_heads.pointrend import RenderedMaskHead
from pointrend.models.mask_heads.targets import MaskTargets

FREQUENCIES = 128
"""Random directions of the positional encoding; each gives a sine and a cosine."""
PARAMETER_DECAY = 1e-5
"""Weight of the mean square of the predicted weights in the loss."""


class ImplicitPointHead(nn.Module):
    """A multi-layer perceptron without weights of its own: they come with every call.

    Args:
        channels: C of the fine features.
        outputs: masks, K or 1.
        width, depth: hidden layers.
    """

    frequencies: Tensor

    def __init__(self, channels: int, outputs: int, *, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        sizes = [2 * FREQUENCIES + channels, *[width] * depth, outputs]
        self.shapes = [(after, before) for before, after in pairwise(sizes)]
        self.register_buffer("frequencies", torch.randn(2, FREQUENCIES))

    @property
    def num_parameters(self) -> int:
        """W: all weight matrices, layer by layer, each row by row; then all biases."""
        return sum(after * before for after, before in self.shapes) + sum(after for after, _ in self.shapes)

    def forward(
        self, parameters: Tensor, fine: Tensor, points: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Mask logits at points, float32.

        Args:
            parameters: (R, W), a point head for each box.
            fine: (R, C, P) features at the points.
            points: (R, P, 2) in the unit squares of the boxes.
            labels: (R,) predict only this output of each box.

        Returns:
            (R, K, P), or (R, 1, P) with ``labels``.
        """
        counts = [after * before for after, before in self.shapes] + [after for after, _ in self.shapes]
        parts = parameters.split(counts, dim=1)
        layers = len(self.shapes)
        hidden = torch.cat(
            [encode_positions(points, self.frequencies).to(fine.dtype), fine.transpose(1, 2)], dim=2
        )
        for number, (shape, weight, bias) in enumerate(zip(self.shapes, parts, parts[layers:], strict=False)):
            matrix = weight.unflatten(1, shape)  # (R, out, in)
            if number == layers - 1 and labels is not None:
                row = torch.arange(labels.shape[0], device=labels.device)
                matrix, bias = matrix[row, labels][:, None], bias[row, labels][:, None]
            hidden = torch.baddbmm(
                bias[:, None].to(hidden.dtype), hidden, matrix.transpose(1, 2).to(hidden.dtype)
            )
            if number < layers - 1:
                hidden = F.relu(hidden)
        return hidden.transpose(1, 2).float()


class ImplicitMaskHead(RenderedMaskHead):
    """Predicts a point head for each box, and renders the mask with it.

    Args: as for :class:`~pointrend.models.mask_heads.base.MaskHead`. ``config.sampling`` should be uniform:
    without a coarse mask there is no uncertainty to prefer points by, so its bias is ignored. Of K = 80
    classes the parameter head's last layer alone holds 290 million weights, 1.2 GB; ``class_agnostic`` saves
    a twelfth of that.
    """

    # A box's points take 4 MB at a time, its own point head 1 MB.
    boxes_at_once = 64

    def __init__(self, channels: Sizes, strides: Sizes, num_classes: int, config: MaskConfig) -> None:
        super().__init__(channels, strides, num_classes, config)
        fine = sum(channels[name] for name in self.config.features)
        self.point_head = ImplicitPointHead(
            fine, self.masks, width=self.config.width, depth=self.config.depth
        )
        self.parameter_head = CoarseHead(channels["p2"], self.point_head.num_parameters, self.config)

    @property
    def start_size(self) -> int:
        """Side of the grid on which every cell is predicted: the first N points are a square."""
        return min(math.isqrt(self.config.num_points), self.config.mask_size)

    def parameters_of(self, features: Features, regions: Regions) -> Tensor:
        """A point head for each box: (R, W)."""
        pooled = self.parameter_head.pool(features["p2"], self.strides["p2"], regions)
        parameters: Tensor = self.parameter_head(pooled)
        return parameters

    def loss(
        self, features: Features, targets: MaskTargets, *, generator: Generators = None
    ) -> dict[str, Tensor]:
        """``mask_points``: cross-entropy at uniform points or the labelled ones; ``mask_parameters``: weight decay."""
        regions = targets.regions
        parameters = self.parameters_of(features, regions)
        uniform = PointSampling.uniform(self.config.sampling.num_points)
        nothing = regions.boxes.new_zeros((len(regions), 1, 1, 1))
        predict_at = self.predictor(features, parameters, regions)
        decay = PARAMETER_DECAY * (parameters.square().sum() / max(parameters.numel(), 1))
        loss = targets.point_loss(predict_at, nothing, uniform, generator=generator)
        return {"mask_points": loss, "mask_parameters": decay}

    @torch.no_grad()
    def predict(self, features: Features, regions: Regions) -> Tensor:
        """Mask logits (R, S, S) of each box's class."""
        predict = super().predict
        if torch.compiler.is_compiling():
            return predict(features, regions)
        return torch.cat([predict(features, part) for part in regions.chunks(self.boxes_at_once)])

    def bind(self, features: Features, regions: Regions) -> tuple[PredictInBoxes, Tensor]:
        """Each box's point head; there is no coarse mask: (R, 0, 0, 0)."""
        nothing = regions.boxes.new_zeros((regions.boxes.shape[0], 0, 0, 0))
        return self.predictor(features, self.parameters_of(features, regions), regions), nothing

    def predictor(self, features: Features, parameters: Tensor, regions: Regions) -> PredictInBoxes:
        """Each box's point head for its class: from points (r, P, 2) in some of the boxes to logits (r, 1, P)."""
        maps = [features[name] for name in self.config.features]
        strides = [self.strides[name] for name in self.config.features]
        channels = regions.channels(self.masks)

        def predict_at(points: Tensor, first: int = 0) -> Tensor:
            some = slice(first, first + points.shape[0])
            boxes, images = regions.boxes[some], regions.image_index[some]
            fine = point_sample_boxes(maps, strides, boxes, images, points)  # (r, C, P)
            logits: Tensor = self.point_head(parameters[some], fine, points, channels[some])
            return logits

        return predict_at
