"""Features of whole images at points given inside boxes, as mask heads need them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
