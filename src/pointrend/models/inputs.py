"""From uint8 images of any size to one normalised, padded batch.

B images, H W rows and columns. Images are uint8 (3, H, W) in RGB, 0..255, as everywhere in this package;
the network may want BGR (the published Detectron2 models do), another size and another normalisation:
`Preprocessing` says which.

The two ways of resizing are those of the projects whose published numbers we reproduce; they differ by more
than rounding (antialiased or not), so a model keeps the one it was trained with:

- "pil": Pillow's BILINEAR, antialiased, as Detectron2's `ResizeTransform`;
- "cv2": OpenCV's INTER_LINEAR on uint8, no antialiasing, as mmcv's `imresize`. Reproduced bit for bit without
  OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pointrend.core.checks import check_labels
from pointrend.models.boxes import has_area
from pointrend.structures import (
    IGNORE_LABEL,
    InstanceMasks,
    InstanceTarget,
    LabelledPoints,
    SemanticTarget,
)

# An image of 1 x 2000 pixels whose short edge is to become 800 would be 800 x 1 600 000: 3.8 GB of uint8.
MAX_RESIZED_PIXELS = 2**27


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    mean, std: per channel of RGB (whatever `channel_order` is), in units of 0..255.
    channel_order: of the network's input. Images are always handed over as RGB.
    short_edge: length in pixels to which the shorter side is scaled; None leaves it.
    long_edge: limit for the longer side after that. Alone, it only ever shrinks.
    resize: "pil" or "cv2", see the module.
    divisor: the batch is zero-padded (after normalisation) on the right and at the bottom to multiples of it.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    short_edge: int | None = None
    long_edge: int | None = None
    resize: Literal["pil", "cv2"] = "pil"
    divisor: int = 32

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean and std: expected three numbers each, std > 0, got {self.mean} and {self.std}"
            )
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order: expected 'RGB' or 'BGR', got {self.channel_order!r}")
        if self.resize not in ("pil", "cv2"):
            raise ValueError(f"resize: expected 'pil' or 'cv2', got {self.resize!r}")
        for name in ("short_edge", "long_edge"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a positive number of pixels or None, got {value}")
        if self.divisor < 1:
            raise ValueError(f"divisor: expected 1 (no padding) or more, got {self.divisor}")


@dataclass(frozen=True)
class ImageBatch:
    """The network's input.

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


def resized_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """(height, width) in pixels at which the network sees an image of the given size; at least 1 x 1.

    The order of the floating-point operations is that of each project, since `int(x + 0.5)` turns their last
    bit
    into a pixel: Detectron2's `ResizeShortestEdge.get_output_shape` for "pil", mmcv's `rescale_size` for
        "cv2".

    Raises ValueError where the result would have more than `MAX_RESIZED_PIXELS` pixels.
    """
    short, long = preprocessing.short_edge, preprocessing.long_edge
    if short is None and long is None:
        return height, width
    if short is None:
        assert long is not None
        scale = min(1.0, long / max(height, width))
        new_height, new_width = height * scale, width * scale
    elif preprocessing.resize == "cv2":
        scale = short / min(height, width)
        if long is not None:
            scale = min(long / max(height, width), scale)
        new_height, new_width = height * scale, width * scale
    else:
        scale = short / min(height, width)
        new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
        if long is not None and max(new_height, new_width) > long:
            scale = long / max(new_height, new_width)
            new_height, new_width = new_height * scale, new_width * scale
    result = max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))
    if result[0] * result[1] > MAX_RESIZED_PIXELS:
        raise ValueError(
            f"an image of {height}x{width} pixels would become {result[0]}x{result[1]} (short_edge {short}, "
            f"long_edge {long}); set long_edge, or cut the image into less elongated pieces"
        )
    return result


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
    return _resize_pil(image, size) if method == "pil" else _resize_cv2(image, size)


def _resize_pil(image: Tensor, size: tuple[int, int]) -> Tensor:
    img = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    resized = img.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().to(image.device)


def _cv2_taps(source: int, target: int, clamp_weight: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two source indices and two 11-bit weights for every target index along one axis (OpenCV
    `resizeLinear`).

    Along rows of pixels OpenCV sets the weight outside of the image to zero; along columns it repeats the
    border row and keeps the weight. Both mean the same, but the fixed-point sums round differently.
    """
    scale = source / target
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    if clamp_weight:
        fraction = np.where((first < 0) | (first >= source - 1), np.float32(0), fraction)
    weights = np.rint(np.stack([np.float32(1) - fraction, fraction]) * np.float32(2048)).astype(np.int32)
    indices = np.stack([first, first + 1]).clip(0, source - 1)
    return (
        torch.from_numpy(indices[0]),
        torch.from_numpy(indices[1]),
        torch.from_numpy(weights[0]),
        torch.from_numpy(weights[1]),
    )


def _resize_cv2(image: Tensor, size: tuple[int, int]) -> Tensor:
    x0, x1, a0, a1 = (t.to(image.device) for t in _cv2_taps(image.shape[2], size[1], clamp_weight=True))
    y0, y1, b0, b1 = (t.to(image.device) for t in _cv2_taps(image.shape[1], size[0], clamp_weight=False))
    pixels = image.int()
    # 8 bits * 2^11, shifted by 4: fits the 16 bits that OpenCV's vector instructions multiply.
    rows = (pixels[:, :, x0] * a0 + pixels[:, :, x1] * a1) >> 4  # (3, H, w)
    upper = (rows[:, y0] * b0[:, None]) >> 16
    lower = (rows[:, y1] * b1[:, None]) >> 16
    return ((upper + lower + 2) >> 2).clamp_(0, 255).to(torch.uint8)  # (3, h, w)


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
    height, width = (
        -(-max(size[axis] for size in sizes) // preprocessing.divisor) * preprocessing.divisor
        for axis in (0, 1)
    )
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, dtype=torch.float32, device=device)[:, None, None]
    batch = torch.zeros((len(images), 3, height, width), dtype=torch.float32, device=device)
    for slot, image in zip(batch, images, strict=True):
        normalised = (image.to(device).float() - mean) / std
        if preprocessing.channel_order == "BGR":
            normalised = normalised.flip(0)
        slot[:, : image.shape[1], : image.shape[2]] = normalised
    return ImageBatch(batch, sizes)


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
