"""Points where labels are few: sparse points or scribbles in label maps, labelled points in boxes.

Shapes: N regions, C classes, P points, R boxes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend.core.sampling import cell_centers
from pointrend.core.selection import Generators, PointSampling, Uncertainty, sample_training_points


def training_points(
    coarse: Tensor,
    labels: Tensor,
    sampling: PointSampling,
    uncertainty: Uncertainty,
    ignore_label: int,
    generator: Generators,
    boxes: Tensor | None,
) -> Tensor:
    """:func:`sample_training_points`, or for the strategy "labelled" :func:`sample_labelled_points`.

    Raises:
        ValueError: "labelled", for boxes or several label maps (N, C, H, W).
    """
    if sampling.strategy != "labelled":
        return sample_training_points(coarse, sampling, uncertainty, generator=generator)
    if boxes is not None or labels.shape[1] != 1:
        raise ValueError("point sampling: 'labelled' is for one label map of the whole image, without boxes")
    return sample_labelled_points(
        labels[:, 0], sampling.num_points, ignore_label=ignore_label, generator=generator
    )


@torch.no_grad()
def sample_labelled_points(
    labels: Tensor, num_points: int, *, ignore_label: int = 255, generator: Generators = None
) -> Tensor:
    """Centres of labelled pixels, uniformly and each at most once: labels (N, H, W) -> (N, P, 2) in [0, 1].

    P is ``num_points``, or the most labelled pixels that one of the N label maps has (at least 1); the others get
    ignored pixels besides, which do not count in a loss. ``generator`` as for :func:`sample_training_points`.
    """
    if isinstance(generator, Sequence) and len(generator) != len(labels):
        raise ValueError(
            f"generator: expected one for each of {len(labels)} label maps, got {len(generator)}"
        )
    height, width = labels.shape[1:]
    labelled = (labels != ignore_label).flatten(1)
    if isinstance(generator, Sequence):
        drawn = [torch.rand(height * width, generator=own, device=own.device) for own in generator]
        keys = torch.stack(drawn).to(labels.device)
    else:
        where = labels.device if generator is None else generator.device
        keys = torch.rand(labelled.shape, generator=generator, device=where).to(labels.device)
    most = max(1, int(labelled.sum(1).max())) if labelled.numel() else 1
    index = torch.topk(keys.masked_fill(~labelled, -1.0), k=min(num_points, most), dim=1).indices
    return cell_centers(index, height, width)


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """From pixels to the unit squares of boxes, (R, P, 2) and (R, 4) -> (R, P, 2).

    Undoes :func:`pointrend.core.sampling.points_in_image`.
    """
    top_left = boxes[:, None, :2].to(points.dtype)
    return (points - top_left) / (boxes[:, None, 2:].to(points.dtype) - top_left)
