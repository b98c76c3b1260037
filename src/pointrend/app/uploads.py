"""Images for the page: what visitors upload, within limits, and examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import PurePath

import torch
from torch import Tensor

from pointrend.app.limits import Limits, header_size, unreadable
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
