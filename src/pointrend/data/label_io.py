"""Label maps from files: numbers of classes, or colours that stand for them. What is wrong is a `ValueError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pointrend.data.decode import DEEP, decode
from pointrend.structures import RGB

LOSSY = {"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF"}
"""Compression that changes numbers: no format for label maps."""
MOST_LISTED = 40
"""Colours in a message."""
MOST_COLORS = 255
"""That a label map in colour may have: more classes than that have no number."""


def read_labels(path: str | Path | BinaryIO, colors: Mapping[RGB, int] | None = None) -> Tensor:
    """The label map as (H, W) int32: the numbers of an 8- or 16-bit grey file, or a palette file's indices.

    Args:
        path: of the file, or the file, opened.
        colors: the number that each colour stands for, in files that are in colour.

    Raises ValueError as `read_image` does, for a file with lossy compression, and for a file in colour without
    `colors` or with another one.
    """
    image = decode(path)
    if image.format in LOSSY:
        raise ValueError(
            f"{path}: {image.format} compression changes labels near every boundary; store label maps as PNG,"
            " made from what they were before"
        )
    pixels = _pixels(path, image)
    if pixels.ndim == 3:
        pixels = _numbers_of_colors(path, image.mode, pixels.astype(np.int32), colors)
    return torch.from_numpy(pixels.astype(np.int32))


def label_pixels(path: str | Path) -> NDArray[np.int32]:
    """The pixels of a label map as stored, also of one with lossy compression: numbers (H, W), or RGB (H, W, 3).

    Raises ValueError as `read_image` does, and for images that are no label map.
    """
    return _pixels(path, decode(path)).astype(np.int32)


def label_colors(path: str | Path) -> set[RGB]:
    """The colours of a label map in colour; none of one in numbers, of lossy ones, and of what is no label map.

    Raises ValueError as `read_image` does.
    """
    image = decode(path)
    if image.mode not in {"RGB", "RGBA"} or image.format in LOSSY or image.info.get(DEEP):
        return set()
    found: Iterable[tuple[int, RGB]] = image.convert("RGB").getcolors(MOST_COLORS) or ()  # type: ignore[assignment]
    return {color for _, color in found}


def palette_to_name(colors: Iterable[RGB]) -> str:
    """What to write into classes.json for label maps of these colours; of more than 40 without listing them."""
    palette = [list(color) for color in sorted(colors)]
    if len(palette) > MOST_LISTED:
        return f'{{"classes": [{len(palette)} names], "palette": [their colours]}}'
    return f'{{"classes": [{len(palette)} names], "palette": {palette}}}'


def _pixels(path: object, image: Image.Image) -> NDArray[np.generic]:
    if image.mode in {"1", "L", "P", "I"} or image.mode.startswith("I;16"):
        return np.array(image)
    if image.mode not in {"RGB", "RGBA"} or (
        image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
    ):
        raise ValueError(
            f"{path}: expected a label map with one number per pixel (8- or 16-bit grey, or palette), got an "
            f"image of mode {image.mode}; store class numbers as 8-bit grey PNG"
        )
    if image.info.get(DEEP):
        raise ValueError(
            f"{path}: a label map in colour of 16 bits, which is not read; store 8 bits a channel"
        )
    return np.array(image.convert("RGB"))


def _numbers_of_colors(
    path: object, mode: str, pixels: NDArray[np.int32], colors: Mapping[RGB, int] | None
) -> NDArray[np.int32]:
    """(H, W) numbers of (H, W, 3) colours."""
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    found, place = np.unique(codes, return_inverse=True)
    seen = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found[:MOST_COLORS]]
    if colors is None:
        way = (
            "it has more than 255 colours and is no label map"
            if len(found) > MOST_COLORS
            else f"name their classes in classes.json, in this order: {palette_to_name(seen)}"
        )
        raise ValueError(
            f"{path}: expected a label map with one number per pixel, got an image of mode {mode}. Convert its "
            f"colours to class numbers, or {way}"
        )
    unknown = [color for color in seen if color not in colors]
    if len(found) > MOST_COLORS and not unknown:
        raise ValueError(f"{path}: expected at most {MOST_COLORS} colours, got {len(found)}")
    if unknown:
        raise ValueError(
            f"{path}: expected the {len(colors)} colours of the palette, got {unknown[:3]} besides; add them to"
            " the palette in classes.json"
        )
    numbers = np.array([colors[color] for color in seen], dtype=np.int32)
    return numbers[place.reshape(codes.shape)]
