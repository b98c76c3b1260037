"""What the networks learn from: targets checked against their pictures, and brought into a batch's form.

Letters: B images, G true objects of one, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend.core.refiner import check_labels
from pointrend.models.boxes import has_area
from pointrend.models.images import ImageBatch, check_image
from pointrend.structures import IGNORE_LABEL, InstanceMasks, InstanceTarget, SemanticTarget


def check_instance_targets(
    images: Sequence[Tensor], targets: Sequence[InstanceTarget], num_classes: int
) -> None:
    """Raise a ValueError, naming the target, where one does not fit its picture or the classes 0..K-1."""
    if len(images) != len(targets) or not images:
        raise ValueError(f"expected a target for each picture, got {len(images)} and {len(targets)}")
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        check_image(image)
        if target.masks.image_size != (image.shape[1], image.shape[2]):
            raise ValueError(
                f"target {number}: masks are of a picture of {target.masks.image_size} pixels, "
                f"the picture has {tuple(image.shape[1:])}; resize both together"
            )
        if len(target) and not (0 <= int(target.labels.min()) <= int(target.labels.max()) < num_classes):
            raise ValueError(
                f"target {number}: expected labels 0..{num_classes - 1}, got "
                f"{sorted(set(target.labels.tolist()))}; map the data set's ids to these first"
            )
        if not bool(torch.isfinite(target.boxes).all()):
            raise ValueError(f"target {number}: boxes are not finite")


def objects_to_learn(
    targets: Sequence[InstanceTarget], device: torch.device
) -> tuple[list[Tensor], list[Tensor], list[InstanceMasks]]:
    """Boxes (G, 4), labels (G,) and masks of each image, without crowds and boxes without area."""
    boxes, labels, masks = [], [], []
    for target in targets:
        keep = ~target.crowd & has_area(target.boxes)
        boxes.append(target.boxes[keep].to(device, torch.float32))
        labels.append(target.labels[keep].to(device))
        masks.append(target.masks[keep])
    return boxes, labels, masks


def batch_labels(batch: ImageBatch, targets: Sequence[SemanticTarget], num_classes: int) -> Tensor:
    """(B, H, W) int64 on the padded batch; padding is ignored.

    Raises:
        ValueError: on targets that do not fit their pictures or the classes 0..K-1.
    """
    if len(targets) != len(batch):
        raise ValueError(f"expected a target for each of {len(batch)} pictures, got {len(targets)}")
    shape = (len(batch), *batch.padded_size)
    labels = torch.full(shape, IGNORE_LABEL, dtype=torch.int64, device=batch.tensor.device)
    for slot, target, size in zip(labels, targets, batch.sizes, strict=True):
        if tuple(target.labels.shape) != size:
            raise ValueError(
                f"expected labels of the picture's size {size}, got {tuple(target.labels.shape)}"
            )
        slot[: size[0], : size[1]] = target.labels
    check_labels(labels, num_classes, IGNORE_LABEL)
    return labels
