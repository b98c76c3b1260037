"""PointRend for any dense predictor: give it coarse logits and feature maps, get crisp logits.

Shapes: N images, C classes, P points, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pointrend.core.fast_point_head import predict_in_images
from pointrend.core.lazy_grid import DenseLogits, LazyGrid
from pointrend.core.losses import Normalize, binary_point_loss, multiclass_point_loss, points_counted
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import point_sample
from pointrend.core.selection import (
    Generators,
    PointSampling,
    Uncertainty,
    sample_training_points,
    uncertainty_for,
)
from pointrend.core.subdivision import Size, SubdivisionStep, render, subdivide, subdivision_sizes


class PointRend(nn.Module):
    """Sharpens the prediction of a dense predictor at its uncertain points (paper section 3).

    Args:
        fine_channels: channels of the feature map, or of each of several maps.
        num_classes: C channels of the coarse logits; 1 means a binary mask (sigmoid), more exclusive classes.
        width, depth, coarse_each_layer, residual: of the :class:`~pointrend.core.point_head.PointHead`.
            ``residual`` is on by default here: on networks trained from scratch or fine-tuned it was better at
            every number of points (docs/results.md). Turn it off for the paper's head.
        sampling: how training points are chosen.
        num_points: points predicted in each subdivision step at inference (8192 for a street scene in the paper).
        uncertainty: which points come first, in training and at inference; the distance of the logit from 0 for one
            class, the margin of the two best logits for several if not given. Another measure needs the (N, C, H, W)
            logits of every step in memory.
        coarse_probabilities: the head sees the coarse prediction as probabilities; needs ``residual=False``.

    The maps and the coarse logits all cover the same image, at any strides. Train with :meth:`loss` beside the
    network's own loss on the coarse logits; :meth:`refine` at inference.
    """

    min_uncertainty: float | None = None
    """At inference, leave cells alone whose uncertainty (second best logit minus the best) is not above this negative
    number, also where the budget of points would reach them; None, as the paper: spend the budget."""

    def __init__(
        self,
        fine_channels: int | Sequence[int],
        num_classes: int,
        *,
        width: int = 256,
        depth: int = 3,
        coarse_each_layer: bool = True,
        residual: bool = True,
        sampling: PointSampling | None = None,
        num_points: int = 8192,
        uncertainty: Uncertainty | None = None,
        coarse_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.sampling = sampling or PointSampling(num_points=2048)
        self.num_points = num_points
        self.uncertainty = uncertainty or uncertainty_for(num_classes)
        channels = fine_channels if isinstance(fine_channels, int) else sum(fine_channels)
        activation: Literal["sigmoid", "softmax"] = "sigmoid" if num_classes == 1 else "softmax"
        self.head = PointHead(
            channels,
            num_classes,
            width=width,
            depth=depth,
            coarse_each_layer=coarse_each_layer,
            residual=residual,
            coarse_activation=activation if coarse_probabilities else None,
        )

    def loss(
        self,
        coarse: Tensor,
        features: Tensor | Sequence[Tensor],
        labels: Tensor,
        *,
        ignore_label: int = 255,
        normalize: Normalize = "valid",
        generator: Generators = None,
    ) -> Tensor:
        """Loss at randomly chosen points, a scalar; gradients reach the head, the features and the coarse logits.

        Args:
            coarse: (N, C, H, W) logits of the network.
            features: (N, Cf, H', W') one map or several.
            labels: (N, H'', W'') int, any size; ``ignore_label`` where it does not count. For C = 1: 0 or 1.
            normalize: over which points the mean is taken.
            generator: for a reproducible choice of points; one, or one for each image.

        Raises:
            ValueError: on shapes that do not fit, or labels outside of 0..C-1.
        """
        return self.loss_and_count(
            coarse, features, labels, ignore_label=ignore_label, normalize=normalize, generator=generator
        )[0]

    def loss_and_count(
        self,
        coarse: Tensor,
        features: Tensor | Sequence[Tensor],
        labels: Tensor,
        *,
        ignore_label: int = 255,
        normalize: Normalize = "valid",
        generator: Generators = None,
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`loss` gives, and how many points it is a mean over."""
        maps = self._check(coarse, features)
        if labels.ndim != 3 or len(labels) != len(coarse):
            raise ValueError(f"labels: expected (N, H, W) with N = {len(coarse)}, got {tuple(labels.shape)}")
        check_labels(labels, max(self.num_classes, 2), ignore_label)
        points = sample_training_points(
            coarse, self.sampling, self.uncertainty, generator=generator
        )  # (N, P, 2)
        logits = predict_in_images(self.head, maps, coarse)(points)  # (N, C, P)
        truth = point_sample(labels[:, None].float(), points, mode="nearest")[:, 0]  # (N, P)
        counted = points_counted(truth != ignore_label, normalize)
        if self.num_classes == 1:
            truth = torch.where(truth == ignore_label, -1.0, truth)
            return binary_point_loss(logits[:, 0], truth, normalize=normalize), counted
        loss = multiclass_point_loss(logits, truth.long(), ignore_label=ignore_label, normalize=normalize)
        return loss, counted

    @torch.no_grad()
    def refine(
        self,
        coarse: Tensor,
        features: Tensor | Sequence[Tensor],
        size: Size,
        *,
        sizes: Sequence[Size] | None = None,
        num_points: int | None = None,
        trace: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """Logits at ``size`` (rows, columns), (N, C, *size) float32: only uncertain cells are predicted anew.

        Args:
            size: any output size; the last step goes exactly there.
            sizes: the grid of every step, where the default (doubling up to ``size``) is not wanted.
            num_points: points in each step, instead of the module's own.
            trace: a list that receives every step, for images and tests.

        Raises:
            ValueError: on shapes that do not fit, or a side of ``size`` below 1.
        """
        maps = self._check(coarse, features)
        exact, steps = _start(coarse, size, sizes)
        return subdivide(
            exact,
            predict_in_images(self.head, maps, coarse),
            sizes=steps,
            num_points=self.num_points if num_points is None else num_points,
            uncertainty=self.uncertainty,
            min_uncertainty=self.min_uncertainty,
            trace=trace,
        )

    @torch.no_grad()
    def render(
        self,
        coarse: Tensor,
        features: Tensor | Sequence[Tensor],
        size: Size,
        *,
        sizes: Sequence[Size] | None = None,
        num_points: int | None = None,
    ) -> list[LazyGrid]:
        """What :meth:`refine` gives, of each image, as a grid to be read in row chunks: labels cost no logits.

        ``grid.label_map()`` is what ``refine(...).argmax(1)`` would be, in a fraction of the time and memory.
        Arguments as for :meth:`refine`.
        """
        if self.uncertainty is not uncertainty_for(self.num_classes):
            logits = self.refine(coarse, features, size, sizes=sizes, num_points=num_points)
            return [DenseLogits(one) for one in logits]
        maps = self._check(coarse, features)
        exact, steps = _start(coarse, size, sizes)
        grids: list[LazyGrid] = []
        for number in range(len(coarse)):
            one = slice(number, number + 1)
            start: LazyGrid = DenseLogits(exact[number], labels_at=steps[-1] if steps else None)
            grid = render(
                start,
                predict_in_images(self.head, [level[one] for level in maps], coarse[one]),
                sizes=steps,
                num_points=self.num_points if num_points is None else num_points,
                min_uncertainty=self.min_uncertainty,
            )
            grids.append(grid)
        return grids

    def _check(self, coarse: Tensor, features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        maps = [features] if isinstance(features, Tensor) else list(features)
        if coarse.ndim != 4 or coarse.shape[1] != self.num_classes or 0 in coarse.shape[2:]:
            raise ValueError(
                f"coarse: expected (N, {self.num_classes}, H, W) logits, got {tuple(coarse.shape)}"
            )
        channels = [level.shape[1] if level.ndim == 4 else None for level in maps]
        if None in channels or sum(c or 0 for c in channels) != self.head.fine_channels:
            raise ValueError(
                f"features: expected maps (N, C, H, W) with {self.head.fine_channels} channels in all, "
                f"got {[tuple(level.shape) for level in maps]}"
            )
        if any(len(level) != len(coarse) for level in maps):
            raise ValueError(f"features: expected N = {len(coarse)}, got {[len(level) for level in maps]}")
        return maps


def _start(coarse: Tensor, size: Size, sizes: Sequence[Size] | None) -> tuple[Tensor, Sequence[Size]]:
    """The logits that subdivision starts from, at least float32, and the grids that it passes through."""
    steps = subdivision_sizes((coarse.shape[2], coarse.shape[3]), size) if sizes is None else sizes
    return coarse.to(torch.promote_types(coarse.dtype, torch.float32)), steps


def check_labels(labels: Tensor, num_classes: int, ignore_label: int) -> None:
    """Raise a ValueError where a label is neither in 0..C-1 nor ignored (torch would crash or count it silently)."""
    wrong = (labels != ignore_label) & ((labels < 0) | (labels >= num_classes))
    if bool(wrong.any()):
        found = sorted(set(labels[wrong].tolist()))[:5]
        raise ValueError(
            f"labels: expected 0..{num_classes - 1} or {ignore_label} (ignored), got {found}; "
            "map the data set's ids to contiguous labels first"
        )
