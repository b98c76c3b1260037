"""What happens to an image before a network sees it, in numpy: models and the runtime without torch share it.

The two ways of resizing are those of the projects whose published numbers we reproduce; they differ by more
than rounding (antialiased or not), so a model keeps the one it was trained with:

- "pil": Pillow's BILINEAR, antialiased, as Detectron2's `ResizeTransform`;
- "cv2": OpenCV's INTER_LINEAR on uint8, no antialiasing, as mmcv's `imresize`. Reproduced bit for bit without
  OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# An image of 1 x 2000 pixels whose short edge is to become 800 would be 800 x 1 600 000: 3.8 GB of uint8.
MAX_RESIZED_PIXELS = 2**27


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    Args:
        mean, std: per channel of RGB (whatever `channel_order` is), in units of 0..255.
        channel_order: of the network's input. Images are always handed over as RGB.
        short_edge: length in pixels to which the shorter side is scaled; None leaves it.
        long_edge: limit for the longer side after that. Alone, it only ever shrinks.
        resize: "pil" is Pillow's BILINEAR, "cv2" OpenCV's INTER_LINEAR.
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


def resized_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """(height, width) in pixels at which the network sees an image of the given size; at least 1 x 1.

    The order of the floating-point operations is that of each project, since `int(x + 0.5)` turns their last bit
    into a pixel: Detectron2's `ResizeShortestEdge.get_output_shape` for "pil", mmcv's `rescale_size` for "cv2".

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


def resize_array(image: Pixels, size: tuple[int, int], method: Literal["pil", "cv2"]) -> Pixels:
    """uint8 (H, W, 3) -> uint8 (*size, 3), by either project's arithmetic."""
    if image.shape[:2] == size:
        return image
    if method == "pil":
        return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return _resize_cv2(image, size)


def _resize_cv2(image: Pixels, size: tuple[int, int]) -> Pixels:
    x, to_x = _cv2_taps(image.shape[1], size[1], clamp_weight=True)
    y, to_y = _cv2_taps(image.shape[0], size[0], clamp_weight=False)
    pixels = image.astype(np.int32)
    # 8 bits * 2^11, shifted by 4: fits the 16 bits that OpenCV's vector instructions multiply.
    rows = (pixels[:, x[0]] * to_x[0][:, None] + pixels[:, x[1]] * to_x[1][:, None]) >> 4  # (H, w, 3)
    upper, lower = ((rows[near] * weight[:, None, None]) >> 16 for near, weight in zip(y, to_y, strict=True))
    return ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)


def _cv2_taps(source: int, target: int, *, clamp_weight: bool) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Two source indices and two 11-bit weights, (2, target) each, along one axis (OpenCV `resizeLinear`).

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
    return np.stack([first, first + 1]).clip(0, source - 1), weights
