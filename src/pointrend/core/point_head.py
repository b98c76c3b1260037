"""The point head: a small multi-layer perceptron shared by all points of all regions.

Shapes: N regions, P points, C classes, Cf channels of the fine features, Cc channels of the coarse prediction.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.sampling import encode_positions


class PointHead(nn.Module):
    """Predicts logits at points from fine features and the coarse prediction there (paper section 3.2).

    Args:
        fine_channels: Cf, channels of the interpolated fine features.
        coarse_channels: Cc, channels of the coarse prediction (its classes).
        out_channels: C, classes predicted; ``coarse_channels`` if not given, 1 for class-agnostic masks.
        width: channels of the hidden layers (256 in the paper).
        depth: number of hidden layers (3 in the paper).
        coarse_each_layer: give the coarse prediction to every layer (the published instance models, all of
            MMSegmentation's) or to the first only (Detectron2's semantic model).
        residual: predict a correction that is added to the coarse logits, with a last layer that starts at
            zero; otherwise the logits outright, as the paper does. Ours.
        coarse_activation: see the coarse prediction as probabilities, as the paper's text has it: "sigmoid" of masks
            of single classes, "softmax" of exclusive ones. None: as logits, as the published models.
        positions: random directions of a positional encoding that the head sees beside the fine features, a sine and a
            cosine each: where a point is in its region (Implicit PointRend has 128). 0: none, as in the paper.

    The hidden layers are ``layers`` and the last one ``predictor``, all 1x1 ``Conv1d`` whose input is
    ``cat(features, coarse)`` in this order, so that published weights fit unchanged. Initial values as in
    Detectron2 ``point_head.StandardPointHead``: He normal, and N(0, 0.001) for the predictor.
    """

    frequencies: Tensor | None
    """(2, positions) random directions of the positional encoding."""
    fast = True
    """Predict without gradients by `pointrend.core.fast_point_head`: the same logits up to rounding. False: by
    :meth:`forward`."""

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        out_channels: int | None = None,
        *,
        width: int = 256,
        depth: int = 3,
        coarse_each_layer: bool = True,
        residual: bool = False,
        coarse_activation: Literal["sigmoid", "softmax"] | None = None,
        positions: int = 0,
    ) -> None:
        super().__init__()
        if residual and coarse_activation:
            raise ValueError(
                "point head: a residual head adds to coarse logits, so it cannot see probabilities"
            )
        out_channels = coarse_channels if out_channels is None else out_channels
        if min(fine_channels, coarse_channels, out_channels, width) < 1 or min(depth, positions) < 0:
            raise ValueError(
                "point head: expected positive channels, depth and positions >= 0, got "
                f"{fine_channels=}, {coarse_channels=}, {out_channels=}, {width=}, {depth=}, {positions=}"
            )
        if out_channels not in (1, coarse_channels):
            raise ValueError(
                f"point head: out_channels must be {coarse_channels} (as the coarse prediction) or 1 "
                f"(class-agnostic), got {out_channels}"
            )
        self.fine_channels = fine_channels
        self.coarse_channels = coarse_channels
        self.out_channels = out_channels
        self.coarse_each_layer = coarse_each_layer
        self.residual = residual
        self.coarse_activation = coarse_activation
        self.layers = nn.ModuleList()
        self.register_buffer("frequencies", torch.randn(2, positions) if positions > 0 else None)
        channels = fine_channels + 2 * positions + coarse_channels
        for _ in range(depth):
            self.layers.append(nn.Conv1d(channels, width, 1))
            channels = width + (coarse_channels if coarse_each_layer else 0)
        self.predictor = nn.Conv1d(channels, out_channels, 1)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)
        if self.residual:
            nn.init.zeros_(self.predictor.weight)
        else:
            nn.init.normal_(self.predictor.weight, std=0.001)

    @property
    def coarse_padding(self) -> str:
        """Padding with which the coarse prediction has to be sampled for this head.

        The published models see zeros outside. A residual head adds to what it samples: with "border" this is
        what ``F.interpolate`` gives, so an untrained head changes nothing, also at the edge of the region.
        """
        return "border" if self.residual else "zeros"

    def coarse_features(self, coarse: Tensor) -> Tensor:
        """What the head sees of coarse logits (N, Cc, H, W), to be sampled at points: themselves, or probabilities."""
        if self.coarse_activation is None:
            return coarse
        return coarse.sigmoid() if self.coarse_activation == "sigmoid" else coarse.softmax(1)

    def with_positions(self, fine: Tensor, points: Tensor) -> Tensor:
        """Fine features (N, Cf, P), followed by the encoding of their points (N, P, 2) where the head sees it."""
        if self.frequencies is None:
            return fine
        encoded = encode_positions(points, self.frequencies).transpose(1, 2)
        return torch.cat((fine, encoded.to(fine.dtype)), 1)

    def forward(self, fine: Tensor, coarse: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits at points, float32 or float64 also under autocast.

        Args:
            fine: (N, Cf, P) fine features at the points, through :meth:`with_positions`.
            coarse: (N, Cc, P) coarse logits at the points, or what :meth:`coarse_features` makes of them.
            labels: (N,) int64 class of each region: predict only its channel.

        Returns:
            (N, C, P), or (N, 1, P) with ``labels``.
        """
        encoded = 0 if self.frequencies is None else 2 * self.frequencies.shape[1]
        if fine.shape[1] != self.fine_channels + encoded or coarse.shape[1] != self.coarse_channels:
            raise ValueError(
                f"point head: expected {self.fine_channels + encoded} fine and {self.coarse_channels} coarse channels, "
                f"got {tuple(fine.shape)} and {tuple(coarse.shape)}"
            )
        if fine.shape[2] == 0:  # torch's convolution refuses an empty axis
            channels = self.out_channels if labels is None else 1
            return fine.new_zeros((len(fine), channels, 0))
        dtype = self.predictor.weight.dtype
        # Autocast does not know the meta device, on which FLOPs are counted.
        if fine.device.type == "meta" or not torch.is_autocast_enabled(fine.device.type):
            fine, coarse = fine.to(dtype), coarse.to(dtype)
        hidden = fine
        for number, layer in enumerate(self.layers):
            joined = torch.cat((hidden, coarse), 1) if number == 0 or self.coarse_each_layer else hidden
            hidden = F.relu(layer(joined))
        if not self.layers or self.coarse_each_layer:
            hidden = torch.cat((hidden, coarse), 1)
        logits = self._predict(hidden, labels)
        if self.residual:
            logits = logits + self._own_channel(coarse, labels)
        return logits

    def _predict(self, hidden: Tensor, labels: Tensor | None) -> Tensor:
        # Only the row of the region's class where it is known: one dot product a point instead of C.
        if labels is None or self.out_channels == 1:
            logits = self.predictor(hidden)
        else:
            assert self.predictor.bias is not None
            rows = self.predictor.weight[labels].squeeze(2)  # (N, width)
            # Not einsum: OpenVINO copies both sides of it to one shape.
            logits = torch.bmm(rows[:, None], hidden) + self.predictor.bias[labels][:, None, None]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _own_channel(self, coarse: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None and self.coarse_channels > 1:
            return coarse.gather(1, labels[:, None, None].expand(-1, 1, coarse.shape[2]))
        if self.out_channels != self.coarse_channels:
            raise ValueError(
                "a class-agnostic residual point head needs the label of each region: pass labels"
            )
        return coarse
