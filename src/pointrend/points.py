"""The point tools of PointRend under the names that other projects copied them by.

Replacements of Detectron2's ``projects/PointRend/point_rend/point_features.py`` and of the losses and matching costs at
points that Mask2Former builds on it: the same arguments by name, the same random draws, the same bits. The difference
is in what is refused: coordinates in half precision, which misplace points silently. docs/points.md has the table.

Shapes: R regions, B images, C channels, P points, Q queries, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core import sampling
from pointrend.core.selection import binary_uncertainty

__all__ = [
    "batch_dice_loss",
    "batch_sigmoid_ce_loss",
    "calculate_uncertainty",
    "dice_loss",
    "generate_regular_grid_point_coords",
    "get_point_coords_wrt_image",
    "get_uncertain_point_coords_on_grid",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
    "point_sample_fine_grained_features",
    "sigmoid_ce_loss",
]


def point_sample(
    input: Tensor,
    point_coords: Tensor,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Values of maps (R, C, H, W) at points (R, P, 2) or (R, Hg, Wg, 2) in [0, 1]: (R, C, P) or (R, C, Hg, Wg).

    Raises:
        ValueError: coordinates in half precision, other shapes, or ``align_corners=True``, which PointRend never means.
    """
    if align_corners:
        raise ValueError("align_corners: expected False; points are in the unit square of the cells' areas")
    flat = point_coords.flatten(1, -2)
    values = sampling.point_sample(input, flat, mode=mode, padding=padding_mode)
    return values.view(*values.shape[:2], *point_coords.shape[1:-1])


def calculate_uncertainty(logits: Tensor) -> Tensor:
    """Minus the distance to the decision at logit 0: (R, 1, ...) -> (R, 1, ...). Mask2Former's."""
    return binary_uncertainty(logits)[:, None]


def get_uncertain_point_coords_with_randomness(
    coarse_logits: Tensor,
    uncertainty_func: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Training points (R, P, 2) in [0, 1]: of many random ones the most uncertain, and random ones besides.

    Args:
        coarse_logits: (R, C, H, W).
        uncertainty_func: logits (R, C, P) -> (R, 1, P).
        num_points: P, for each region.
        oversample_ratio: candidates for each point, k >= 1.
        importance_sample_ratio: share of the points chosen by uncertainty, beta in [0, 1].
        generator: torch's own if not given.

    Raises:
        ValueError: for ratios out of range.
    """
    if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
        raise ValueError(
            "expected oversample_ratio >= 1 and importance_sample_ratio in [0, 1], got "
            f"{oversample_ratio} and {importance_sample_ratio}"
        )
    regions, device = coarse_logits.shape[0], coarse_logits.device
    candidates = torch.rand(
        regions, int(num_points * oversample_ratio), 2, device=device, generator=generator
    )
    uncertainty = uncertainty_func(point_sample(coarse_logits, candidates))
    important = int(importance_sample_ratio * num_points)
    index = torch.topk(uncertainty[:, 0], k=important, dim=1).indices
    points = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    if important == num_points:
        return points
    rest = torch.rand(regions, num_points - important, 2, device=device, generator=generator)
    return torch.cat((points, rest), dim=1)


def get_uncertain_point_coords_on_grid(uncertainty_map: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """The most uncertain cells of (R, 1, H, W): flat indices (R, P) and centres (R, P, 2) in [0, 1]."""
    height, width = uncertainty_map.shape[2:]
    flat = uncertainty_map.flatten(1)
    index = torch.topk(flat, k=min(num_points, height * width), dim=1).indices
    return index, sampling.cell_centers(index, height, width)


def generate_regular_grid_point_coords(R: int, side_size: int, device: torch.device | str) -> Tensor:
    """Centres of the cells of a square grid: (R, side_size**2, 2) in [0, 1]."""
    return sampling.regular_grid(side_size, side_size, regions=R, device=device)


@torch.no_grad()
def get_point_coords_wrt_image(boxes_coords: Tensor, point_coords: Tensor) -> Tensor:
    """From the unit squares of boxes (R, 4) to pixels, without gradients: (R, P, 2) -> (R, P, 2)."""
    return sampling.points_in_image(point_coords, boxes_coords)


def point_sample_fine_grained_features(
    features_list: Sequence[Tensor],
    feature_scales: Sequence[float],
    boxes: Sequence[Tensor],
    point_coords: Tensor,
) -> tuple[Tensor, Tensor]:
    """Features (R, sum of C, P) at points (R, P, 2) in boxes, and the points in pixels (R, P, 2).

    Args:
        features_list: maps (B, C, H, W).
        feature_scales: their size over the image's, 0.25 at stride 4.
        boxes: (R_b, 4) of each image, in pixels; of Detectron2's ``Boxes`` the ``.tensor``.
        point_coords: in the unit squares of the boxes.
    """
    joined = torch.cat(list(boxes))
    counts = torch.tensor([len(own) for own in boxes], device=joined.device)
    index = torch.repeat_interleave(torch.arange(len(boxes), device=joined.device), counts)
    pixels = get_point_coords_wrt_image(joined, point_coords)
    levels = []
    for level, scale in zip(features_list, feature_scales, strict=True):
        extent = torch.tensor([level.shape[-1], level.shape[-2]], device=level.device) / scale
        levels.append(sampling.sample_by_image(level, pixels / extent, index))
    return torch.cat(levels, dim=1), pixels


def sigmoid_ce_loss(inputs: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Binary cross-entropy at points, of the masks (T, P) that were matched, over ``num_masks``; a scalar."""
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return loss.mean(1).sum() / num_masks


def dice_loss(inputs: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Dice loss at points, of the masks (T, P) that were matched, over ``num_masks``; a scalar."""
    probability = inputs.sigmoid().flatten(1)
    numerator = 2 * (probability * targets).sum(-1)
    denominator = probability.sum(-1) + targets.sum(-1)
    return (1 - (numerator + 1) / (denominator + 1)).sum() / num_masks


def batch_sigmoid_ce_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every query with every target at the same points: (Q, P) and (T, P) -> (Q, T), for matching."""
    positive = F.binary_cross_entropy_with_logits(inputs, torch.ones_like(inputs), reduction="none")
    negative = F.binary_cross_entropy_with_logits(inputs, torch.zeros_like(inputs), reduction="none")
    cost = torch.einsum("nc,mc->nm", positive, targets) + torch.einsum("nc,mc->nm", negative, 1 - targets)
    return cost / inputs.shape[1]


def batch_dice_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every query with every target at the same points: (Q, P) and (T, P) -> (Q, T), for matching."""
    probability = inputs.sigmoid().flatten(1)
    numerator = 2 * torch.einsum("nc,mc->nm", probability, targets)
    denominator = probability.sum(-1)[:, None] + targets.sum(-1)[None, :]
    return 1 - (numerator + 1) / (denominator + 1)
