"""PointRend for any dense predictor: give it coarse logits and feature maps, get crisp logits.

Shapes: N images or regions, B images, C classes, P points, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pointrend.core.checks import Features, LabelCheck, check_maps, check_start
from pointrend.core.fast_point_head import predict_in_images
from pointrend.core.lazy_grid import DenseLogits, LazyGrid
from pointrend.core.losses import Normalize, binary_point_loss, multiclass_point_loss, points_counted
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import Placement, point_sample
from pointrend.core.selection import (
    Generators,
    PointSampling,
    Uncertainty,
    multilabel_uncertainty,
    sample_labelled_points,
    sample_training_points,
    uncertainty_for,
)
from pointrend.core.subdivision import Size, SubdivisionStep, render, subdivide


class PointRend(nn.Module):
    """Sharpens the prediction of a dense predictor at its uncertain points (paper section 3).

    Args:
        fine_channels: channels of the feature map, or of each of several maps.
        num_classes: C channels of the coarse logits; 1 means a binary mask (sigmoid), more exclusive classes.
        width, depth, coarse_each_layer: of the :class:`~pointrend.core.point_head.PointHead`.
        residual: of the point head, and on by default here: on networks trained from scratch or fine-tuned it was
            better at every number of points (docs/results.md). Turn it off for the paper's head.
        sampling: how training points are chosen.
        num_points: points predicted in each subdivision step at inference (8192 for a street scene in the paper).
        uncertainty: which points come first, in training and at inference; the distance of the logit from 0 for one
            class, the margin of the two best logits for several if not given. Another measure needs the (N, C, H, W)
            logits of every step in memory.
        coarse_probabilities: the head sees the coarse prediction as probabilities; needs ``residual=False``.
        multilabel: the C classes do not exclude one another: a sigmoid each.
        positions: of the point head, which then sees where in its region a point is.

    The maps and the coarse logits all cover the same image, at any strides. Train with :meth:`loss` beside the
    network's own loss on the coarse logits; :meth:`refine` at inference.

    With ``boxes``, each of the N coarse predictions covers a box of an image instead, and the maps cover the images:

    >>> point_rend = PointRend(fine_channels=8, num_classes=1, num_points=50)
    >>> boxes = torch.tensor([[10.0, 20, 60, 90], [0, 0, 128, 96]])
    >>> masks = torch.zeros(2, 1, 7, 7)  # one a box
    >>> maps = torch.zeros(1, 8, 24, 32)  # of one image of 96 x 128 pixels
    >>> point_rend.refine(masks, maps, size=56, boxes=boxes, image_size=(96, 128)).shape
    torch.Size([2, 1, 56, 56])
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
        multilabel: bool = False,
        positions: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.multilabel = multilabel
        usual = multilabel_uncertainty if multilabel else uncertainty_for(num_classes)
        self.uncertainty = uncertainty or usual
        self.sampling = sampling or PointSampling(num_points=2048)
        self.num_points = num_points
        activation: Literal["sigmoid", "softmax"] = "sigmoid" if num_classes == 1 or multilabel else "softmax"
        channels = fine_channels if isinstance(fine_channels, int) else sum(fine_channels)
        self.head = PointHead(
            channels,
            num_classes,
            width=width,
            depth=depth,
            coarse_each_layer=coarse_each_layer,
            residual=residual,
            coarse_activation=activation if coarse_probabilities else None,
            positions=positions,
        )
        self._check_labels = LabelCheck(num_classes, multilabel)

    def loss(
        self,
        coarse: Tensor,
        features: Features,
        labels: Tensor,
        *,
        boxes: Tensor | None = None,
        image_size: Size | None = None,
        image_index: Tensor | None = None,
        ignore_label: int = 255,
        normalize: Normalize = "valid",
        generator: Generators = None,
        counted: list[Tensor] | None = None,
    ) -> Tensor:
        """Loss at randomly chosen points, a scalar; gradients reach the head, the features and the coarse logits.

        Args:
            coarse: (N, C, H, W) logits of the network.
            features: (N, Cf, H', W') one map or several.
            labels: (N, H'', W'') or (N, 1, H'', W''), any size; ``ignore_label`` where it does not count. Integers
                0..C-1; for C = 1 in [0, 1]. With ``multilabel`` (N, C, H'', W'') in [0, 1]. With ``boxes``, of the
                whole image all the same: the mask of each box's object.
            boxes, image_size, image_index: as for :meth:`refine`.
            normalize: over which points the mean is taken.
            generator: for a reproducible choice of points; one, or one for each image.
            counted: a list that receives how many points the loss is a mean over, a scalar.

        Raises:
            ValueError: on shapes that do not fit, or labels outside of 0..C-1. On a GPU labels are looked at in the
                first call alone, since that waits for the device; later, wrong ones make the loss NaN or fail in torch.
        """
        maps, placement = self._maps(coarse, features, boxes, image_size, image_index)
        labels = self._check_labels(labels, coarse.shape[0], ignore_label)
        if self.sampling.strategy == "labelled":
            if boxes is not None or labels.shape[1] != 1:
                raise ValueError(
                    "point sampling: 'labelled' is for one label map of the whole image, without boxes"
                )
            points = sample_labelled_points(
                labels[:, 0], self.sampling.num_points, ignore_label=ignore_label, generator=generator
            )  # (N, P, 2)
        else:
            points = sample_training_points(coarse, self.sampling, self.uncertainty, generator=generator)
        logits = predict_in_images(self.head, maps, coarse, placement)(points)  # (N, C, P)
        where = points if placement is None else placement.in_image(points)
        truth = point_sample(labels.float(), where, mode="nearest")  # (N, 1 or C, P)
        if counted is not None:
            counted.append(points_counted(truth != ignore_label, normalize))
        if self.num_classes == 1 or self.multilabel:
            truth = torch.where(truth > 1, torch.nan, truth).where(truth != ignore_label, -1.0)
            return binary_point_loss(logits, truth, normalize=normalize)
        truth = truth[:, 0].long()
        return multiclass_point_loss(logits, truth, ignore_label=ignore_label, normalize=normalize)

    @torch.no_grad()
    def refine(
        self,
        coarse: Tensor,
        features: Features,
        size: Size | int,
        *,
        boxes: Tensor | None = None,
        image_size: Size | None = None,
        image_index: Tensor | None = None,
        sizes: Sequence[Size] | None = None,
        num_points: int | None = None,
        trace: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """Logits at ``size``, (N, C, H, W) float32: only uncertain cells are predicted anew.

        Args:
            coarse: (N, C, H, W) logits of the network.
            features: (N, Cf, H', W') one map or several; (1, Cf, H', W') where all N share it.
            size: rows and columns, any; one number for a square. The last step goes exactly there.
            boxes: (N, 4) as (x1, y1, x2, y2) in pixels, where each coarse prediction covers a box of an image.
            image_size: with boxes, rows and columns in pixels of what the maps cover, padding included.
            image_index: with boxes, (N,) int64: which of the B images of the maps (B, Cf, H', W') each box is of; not
                needed for B = 1.
            sizes: the grid of every step, where the default (doubling up to ``size``) is not wanted.
            num_points: points in each step, instead of the module's own.
            trace: a list that receives every step, for images and tests.

        Raises:
            ValueError: on shapes that do not fit, coarse logits that are not finite, or a side of ``size`` below 1.
        """
        maps, placement = self._maps(coarse, features, boxes, image_size, image_index)
        exact, steps = check_start(coarse, size, sizes)
        return subdivide(
            exact,
            predict_in_images(self.head, maps, coarse, placement),
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
        features: Features,
        size: Size | int,
        *,
        sizes: Sequence[Size] | None = None,
        num_points: int | None = None,
    ) -> list[LazyGrid]:
        """What :meth:`refine` gives, of each image, as a grid to be read in row chunks: labels cost no logits.

        ``grid.label_map()`` is what ``refine(...).argmax(1)`` would be, in a fraction of the time and memory.
        Arguments as for :meth:`refine`. Not for ``multilabel``, which has no label map.
        """
        if self.multilabel:
            raise ValueError("render: a multi-label prediction has no label map; use refine")
        if self.uncertainty is not uncertainty_for(self.num_classes):
            logits = self.refine(coarse, features, size, sizes=sizes, num_points=num_points)
            return [DenseLogits(one) for one in logits]
        maps, _ = self._maps(coarse, features)
        exact, steps = check_start(coarse, size, sizes)
        grids: list[LazyGrid] = []
        for number in range(coarse.shape[0]):
            one = slice(number, number + 1)
            start: LazyGrid = DenseLogits(exact[number], labels_at=steps[-1] if steps else None)
            own = [level if level.shape[0] == 1 else level[one] for level in maps]
            grid = render(
                start,
                predict_in_images(self.head, own, coarse[one]),
                sizes=steps,
                num_points=self.num_points if num_points is None else num_points,
                min_uncertainty=self.min_uncertainty,
            )
            grids.append(grid)
        return grids

    def _maps(
        self, coarse: Tensor, features: Features, *where: Any
    ) -> tuple[Sequence[Tensor], Placement | None]:
        return check_maps(coarse, features, self.num_classes, self.head.fine_channels, *where)
