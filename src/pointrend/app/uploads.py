"""Images for the page: what visitors upload, within limits, and examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import PurePath

import torch
from PIL import Image
from torch import Tensor

from pointrend.data.decode import FORMATS
from pointrend.data.image_io import read_image
from pointrend.data.shapes import Scene
from pointrend.models.inputs import resize_to
from pointrend.samples import SAMPLES

SCENES = {"Rings and stars": 6, "Spikes and stripes": 1, "Crowd": 12, "Thin arcs": 5}
"""Name of an example -> number of a generated scene."""
SCENE_SEED = 4711
"""Not a seed that the bundled models were trained on."""
SCENE_SIZE = (576, 768)
EXAMPLES = (*(name.capitalize() for name in SAMPLES), *SCENES)


@dataclass(frozen=True)
class NamedImage:
    """An image and the name that its downloads get."""

    pixels: Tensor
    """uint8 (3, H, W) RGB."""
    name: str

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.pixels.numel()


@dataclass(frozen=True)
class Limits:
    """Of uploads."""

    megabytes: float = 20.0
    """Of a file."""
    megapixels: float = 25.0
    """Of an image, known from its header before anything is decoded."""
    long_edge: int = 1024
    """Images are shrunk to this many pixels on their longer side."""

    def __post_init__(self) -> None:
        if not (self.megabytes > 0 and self.megapixels > 0 and self.long_edge >= 32):
            raise ValueError(
                "limits: expected positive megabytes and megapixels and a long edge of at least 32 pixels, got "
                f"{self.megabytes}, {self.megapixels} and {self.long_edge}"
            )

    @property
    def bytes(self) -> int:
        """Of a file."""
        return int(self.megabytes * 2**20)

    def check_size(self, count: int) -> None:
        """Raise a ValueError for a file of so many bytes, if it is too large or empty."""
        if count > self.bytes:
            raise ValueError(
                f"The file is larger than {self.megabytes:g} MB, which is the limit here. Save the image smaller or "
                "as JPEG, or use `pointrend predict` on your own computer."
            )
        if count == 0:
            raise ValueError("The file is empty. Choose an image.")

    def check_pixels(self, height: int, width: int) -> None:
        """Raise a ValueError for an image of this size, if it is too large."""
        if height * width > self.megapixels * 1e6:
            raise ValueError(
                f"The image has {width} × {height} = {height * width / 1e6:.0f} megapixels; the limit here is "
                f"{self.megapixels:g}. Scale it down, or use `pointrend predict` on your own computer."
            )


def read_upload(content: bytes, name: str, limits: Limits) -> NamedImage:
    """A visitor's file as an image, upright, at most `limits.long_edge` pixels on its longer side.

    Raises:
        ValueError: too many bytes or pixels, or no image that can be read; in words for the visitor.
    """
    name = base_name(name)
    limits.check_size(len(content))
    limits.check_pixels(*header_size(content, name, limits))
    try:
        pixels = read_image(BytesIO(content))
    except ValueError as error:
        raise ValueError(unreadable(name)) from error
    return NamedImage(shrink(pixels, limits.long_edge), name)


def header_size(content: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """(height, width) that the file's header claims; nothing is decoded.

    Raises:
        ValueError: no image, or one that is larger than Pillow would open at all.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return image.height, image.width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"The image has far more than {limits.megapixels:g} megapixels, which is the limit here. Scale it down."
        ) from error
    except Exception as error:  # whatever Pillow's plugins raise on a bad header
        raise ValueError(unreadable(name)) from error


def unreadable(name: str) -> str:
    """The message for a file that is no image."""
    return (
        f"“{name}” is no image that can be read here, or it is damaged. "
        "Try JPEG, PNG, WebP, GIF, BMP or TIFF."
    )


def base_name(name: str) -> str:
    """The last part of a visitor's file name, printable, at most 80 characters."""
    last = PurePath(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:80] or "image"


def shrink(image: Tensor, long_edge: int) -> Tensor:
    """The image (3, H, W) with at most `long_edge` pixels on its longer side, and at least one on the other."""
    height, width = image.shape[1:]
    scale = long_edge / max(height, width)
    if scale >= 1:
        return image
    return resize_to(image, (max(1, round(height * scale)), max(1, round(width * scale))), "pil")


@cache
def example(name: str) -> NamedImage:
    """An example, read or drawn when it is first asked for.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in EXAMPLES:
        raise ValueError(f"example: expected one of {', '.join(EXAMPLES)}, got {name!r}")
    if name not in SCENES:
        path = SAMPLES[name.lower()].image
        return NamedImage(read_image(path), path.name)
    height, width = SCENE_SIZE
    scene = Scene(SCENES[name], seed=SCENE_SEED, height=height, width=width)
    return NamedImage(torch.from_numpy(scene.image).permute(2, 0, 1).contiguous(), f"{name}.png")
