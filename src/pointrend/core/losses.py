"""Losses on points, with ignored labels.

Shapes: N regions, C classes, P points.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalize = Literal["valid", "all"]
"""Mean over the points that count (the usual), or over all of them (MMSegmentation; Detectron2's PointSup)."""


def binary_point_loss(logits: Tensor, targets: Tensor, *, normalize: Normalize = "valid") -> Tensor:
    """Mean binary cross-entropy: logits (N, ...) and targets (N, ...) in [0, 1], negative where ignored -> scalar.

    Soft targets are allowed (masks sampled bilinearly). Without a point that counts the loss is 0 and still
    connected to ``logits``. Detectron2 ``point_head.roi_mask_point_loss``.

    Raises:
        ValueError: if the shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"expected targets like logits {tuple(logits.shape)}, got {tuple(targets.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    valid = targets >= 0
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.clamp(min=0).to(logits.dtype), reduction="none"
    )
    return losses.mul(valid).sum() / points_counted(valid, normalize).clamp(min=1)


def multiclass_point_loss(
    logits: Tensor, labels: Tensor, *, ignore_label: int = 255, normalize: Normalize = "valid"
) -> Tensor:
    """Mean cross-entropy: logits (N, C, ...) and labels (N, ...) int64 in 0..C-1 or ``ignore_label`` -> scalar.

    Without a point that counts the loss is 0 and still connected to ``logits``.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if logits.ndim < 2 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"expected labels (N, ...) for logits {tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, ignore_index=ignore_label, reduction="none")
    return losses.sum() / points_counted(labels != ignore_label, normalize).clamp(min=1)


def points_counted(valid: Tensor, normalize: Normalize) -> Tensor:
    """How many points a loss is a mean over, an int64 scalar; ``valid`` says of each whether it has a label.

    Raises:
        ValueError: if ``normalize`` is another word.
    """
    if normalize not in ("valid", "all"):
        raise ValueError(f"normalize: expected 'valid' or 'all', got {normalize!r}")
    return valid.sum() if normalize == "valid" else torch.tensor(valid.numel(), device=valid.device)
