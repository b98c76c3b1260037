"""From uint8 images of any size to one normalised, padded batch.

B images, H W rows and columns. Images are uint8 (3, H, W) in RGB, 0..255, as everywhere in this package;
the network may want BGR (the published Detectron2 models do), another size and another normalisation:
`Preprocessing` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.checks import check_labels
from pointrend.models.boxes import has_area
from pointrend.preprocessing import Preprocessing, resize_array, resized_size
from pointrend.structures import (
    IGNORE_LABEL,
    InstanceMasks,
    InstanceTarget,
    LabelledPoints,
    SemanticTarget,
)


@dataclass(frozen=True)
class ImageBatch:
    """The network's input.

    Args:
        tensor: float32 (B, 3, H, W), normalised, zero-padded on the right and at the bottom.
        sizes: (height, width) of each image inside it, without padding.
    """

    tensor: Tensor
    sizes: list[tuple[int, int]]

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.tensor.shape[-2], self.tensor.shape[-1]

    def __len__(self) -> int:
        return len(self.sizes)


def check_image(image: Tensor) -> None:
    """Raise ValueError unless `image` is a uint8 (3, H, W) image with at least one pixel."""
    if not isinstance(image, Tensor):
        raise ValueError(
            f"image: expected a uint8 tensor (3, H, W) in RGB, got {type(image).__name__}; pointrend.Predictor takes "
            "paths, URLs, arrays and Pillow images too"
        )
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise ValueError(
            "image: expected a uint8 tensor (3, H, W) in RGB with H, W >= 1, "
            f"got {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        )


def resize_image(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The image at the network's size: uint8 (3, H, W) -> uint8 (3, h, w). Unchanged where the size already fits.

    Raises:
        ValueError: for what is no image, see :func:`check_image`.
    """
    check_image(image)
    size = resized_size(image.shape[1], image.shape[2], preprocessing)
    return resize_to(image, size, preprocessing.resize)


def resize_to(image: Tensor, size: tuple[int, int], method: Literal["pil", "cv2"]) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, *size), by either project's arithmetic."""
    if (image.shape[1], image.shape[2]) == size:
        return image
    resized = resize_array(image.permute(1, 2, 0).contiguous().cpu().numpy(), size, method)
    return torch.from_numpy(resized).permute(2, 0, 1).contiguous().to(image.device)


def prepare_images(
    images: Sequence[Tensor], preprocessing: Preprocessing, device: torch.device | str | None = None
) -> ImageBatch:
    """Images of any sizes, uint8 (3, H, W), resized, normalised and padded into one batch; errors as of its parts."""
    resized = [resize_image(image, preprocessing) for image in images]
    return batch_images(resized, preprocessing, device)


def batch_images(
    images: Sequence[Tensor], preprocessing: Preprocessing, device: torch.device | str | None = None
) -> ImageBatch:
    """Normalise, reorder channels, zero-pad to a common size, stack.

    Args:
        images: uint8 or floating (3, h, w) in RGB, 0..255, already at the network's size (`resize_image`).
        preprocessing: mean, std, channel order and divisor of the padded size.
        device: where the batch is wanted; None keeps the first image's. uint8 travels there, float32 is made there.

    Raises:
        ValueError: for an empty list and for images of another shape.
    """
    if not images:
        raise ValueError("images: expected at least one image, got an empty list")
    for image in images:
        if image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
            raise ValueError(f"images: expected tensors (3, h, w) with h, w >= 1, got {tuple(image.shape)}")
    device = torch.device(device) if device is not None else images[0].device
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    divisor = preprocessing.divisor
    height, width = (
        (max(size[axis] for size in sizes) + divisor - 1) // divisor * divisor for axis in (0, 1)
    )
    padded = []
    for image in images:
        normalised = normalise(image.to(device), preprocessing)
        padded.append(F.pad(normalised, (0, width - image.shape[2], 0, height - image.shape[1])))
    return ImageBatch(torch.stack(padded) if len(padded) > 1 else padded[0][None], sizes)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """RGB (3, ...) in 0..255, as float32 in the channels and units of the network."""
    shape = (3, *[1] * (pixels.ndim - 1))
    mean, std = (
        torch.tensor(of, dtype=torch.float32, device=pixels.device).view(shape)
        for of in (preprocessing.mean, preprocessing.std)
    )
    normalised = (pixels.float() - mean) / std
    return normalised.flip(0) if preprocessing.channel_order == "BGR" else normalised


def check_instance_targets(
    images: Sequence[Tensor], targets: Sequence[InstanceTarget], num_classes: int
) -> None:
    """Raise a ValueError, naming the target, where one does not fit its image or the classes 0..K-1."""
    if len(images) != len(targets) or not images:
        raise ValueError(f"expected a target for each image, got {len(images)} and {len(targets)}")
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        check_image(image)
        if target.masks.image_size != (image.shape[1], image.shape[2]):
            raise ValueError(
                f"target {number}: masks are of an image of {target.masks.image_size} pixels, "
                f"the image has {tuple(image.shape[1:])}; resize both together"
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


def points_to_learn(targets: Sequence[InstanceTarget], device: torch.device) -> list[LabelledPoints] | None:
    """Labelled points of the objects of :func:`objects_to_learn`, for each image; None where masks are learnt from.

    Raises:
        ValueError: some objects have points and others have none, or another number of them.
    """
    points: list[LabelledPoints] = []
    counts = set()
    for target in targets:
        keep = ~target.crowd & has_area(target.boxes)
        own = target.points or LabelledPoints(torch.zeros(len(target), 0, 2), torch.zeros(len(target), 0))
        points.append(own[keep].to(device))
        if bool(keep.any()):
            counts.add(own.labels.shape[1])
    if len(counts) > 1:
        raise ValueError(
            f"targets: expected as many labelled points of each object, got {sorted(counts)} (0: masks)"
        )
    return points if counts - {0} else None


def batch_labels(batch: ImageBatch, targets: Sequence[SemanticTarget], num_classes: int) -> Tensor:
    """(B, H, W) int64 on the padded batch; padding is ignored.

    Raises:
        ValueError: on targets that do not fit their images or the classes 0..K-1.
    """
    if len(targets) != len(batch):
        raise ValueError(f"expected a target for each of {len(batch)} images, got {len(targets)}")
    shape = (len(batch), *batch.padded_size)
    labels = torch.full(shape, IGNORE_LABEL, dtype=torch.int64, device=batch.tensor.device)
    for slot, target, size in zip(labels, targets, batch.sizes, strict=True):
        if tuple(target.labels.shape) != size:
            raise ValueError(f"expected labels of the image's size {size}, got {tuple(target.labels.shape)}")
        slot[: size[0], : size[1]] = target.labels
    check_labels(labels, num_classes, IGNORE_LABEL)
    return labels
