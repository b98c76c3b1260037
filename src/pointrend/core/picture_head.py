"""The point head on one whole picture, all classes, for inference: rows of points instead of joined channels.

The textbook way concatenates the coarse prediction to the input of every layer. Here each layer's two products are
added instead, over points as rows. Nothing is projected onto the maps beforehand, as ``core.projection`` does for
boxes: a picture has fewer points than its maps have cells.

Letters: C classes, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.point_head import PointHead
from pointrend.core.projection import SplitWeights
from pointrend.core.sampling import point_sample, sample_maps

# Points whose hidden features, 1 KB a layer each, are alive at once.
POINTS_AT_ONCE = 2**14


class PicturePointHead:
    """A point head bound to the maps of one picture: points (1, P, 2) in its unit square -> logits (1, C, P).

    Args:
        head: the point head.
        features: maps (1, Cf, H, W), in the order in which the head's fine features are concatenated.
        coarse: (1, C, H, W) coarse logits.
    """

    def __init__(self, head: PointHead, features: Sequence[Tensor], coarse: Tensor) -> None:
        self.head, self.features, self.coarse = head, features, coarse
        self.weights = SplitWeights(head) if len(head.layers) else None

    def __call__(self, points: Tensor) -> Tensor:
        parts = [self._predict(part) for part in points.split(POINTS_AT_ONCE, dim=1)]
        return torch.cat(parts, dim=2)

    def _predict(self, points: Tensor) -> Tensor:
        fine = sample_maps(self.features, points)  # (1, Cf, P)
        rough = point_sample(self.coarse, points, padding=self.head.coarse_padding)  # (1, C, P)
        if self.weights is None or not points.shape[1]:
            logits: Tensor = self.head(fine, rough)
            return logits
        weights, coarse = self.weights, rough[0].T
        parts = (
            F.linear(coarse, part, bias) for part, bias in zip(weights.coarse, weights.biases, strict=False)
        )
        hidden = next(parts).addmm_(fine[0].T.to(weights.dtype), weights.fine.T)  # (P, width)
        hidden = weights.forward(hidden, parts)
        with torch.autocast(points.device.type, enabled=False):  # logits are compared: no half precision here
            hidden, coarse = hidden.to(weights.predictor.dtype), coarse.to(weights.predictor.dtype)
            rows = torch.addmm(weights.predictor_bias, hidden, weights.predictor.T)
            rows = rows + coarse @ weights.coarse_rows.T
        if self.head.residual:
            rows = rows + coarse
        return rows.T[None].to(torch.promote_types(rows.dtype, torch.float32))
