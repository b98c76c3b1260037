"""Image files decoded by Pillow into arrays, without torch; `data.image_io` makes tensors of them.

Files are untrusted: whatever is wrong with one, the answer is a `ValueError` that names it. Only raster
formats are opened (no PostScript, which Pillow would hand to an external program), and an image with more
pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million; raise it there for trusted files) is refused before
it is decoded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

# The first five load no further Pillow plugins. JPEG covers phones' MPO.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000")
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"),
        *(".avif", ".heic", ".heif"),  # read where Pillow can, else refused by name
    }
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
DEPTHS = (8, 10, 12, 14, 16)
"""Bits per value of cameras and scanners, stored in 16 or 32."""

DEEP = "pointrend: colour of 16 bits"
"""Key in `Image.info`; Pillow itself forgets it while it decodes."""


def ignore_warnings_of_pillow() -> None:
    """Say nothing of damaged metadata (a TIFF tag cut off, an EXIF block, the frames of an animation) that Pillow's
    readers of formats warn of: as every viewer does, the pixels are read as far as they are there.

    Here once for all threads: Python's `catch_warnings` around each image would change what others see.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin$")


ignore_warnings_of_pillow()


def to_rgb_array(image: Image.Image, source: object = "image", upright: bool = True) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a Pillow image as a viewer shows it; `image_io.read_image` says how.

    Raises:
        ValueError: floating-point pixels or none at all, naming the `source`.
    """
    if upright:
        # A broken EXIF block is no reason to refuse the pixels; viewers ignore it too.
        with contextlib.suppress(Exception):
            image = ImageOps.exif_transpose(image)
    array = np.array(_to_rgb(image, source))
    if array.size == 0:
        raise ValueError(f"{source}: expected at least one pixel, got {image.width}x{image.height}")
    return array


def decode(path: str | Path | BinaryIO) -> Image.Image:
    """The image as Pillow has it, decoded; ValueError, naming the file, as `read_image`."""
    with explained(path), Image.open(path, formats=formats()) as image:
        check_pixels(image)
        deep = image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in image.tile)
        image.load()
        image.info[DEEP] = deep
        if deep and int(np.asarray(image.convert("RGB")).max(initial=0)) < 64:
            warnings.warn(
                "colour images of 16 bits are read by their upper 8, which in this one are nearly black: if its values"
                " use fewer bits, scale them beforehand",
                stacklevel=3,
            )
        if not getattr(image, "is_animated", False):
            return image
        first = image.copy()
        first.format = image.format
        return first


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """FORMATS, and those of Pillow's options that are there."""
    avif = "avif" in features.modules and features.check("avif")  # which warns of names that it does not know
    formats = [*FORMATS, "AVIF"] if avif else list(FORMATS)
    if find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


def _is_heif(path: str | Path | BinaryIO) -> str | None:
    """How to read it, if the file is HEIC or AVIF."""
    if not isinstance(path, str | Path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return None
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis") and "AVIF" not in formats():
        return "an AVIF image, which Pillow reads from version 11.3 on: pip install -U pillow"
    if brand in HEIF_BRANDS and "HEIF" not in formats():
        return (
            "a HEIC image, which Pillow reads with a plugin: pip install pillow-heif, or convert it to JPEG"
        )
    return None


@contextlib.contextmanager
def explained(path: str | Path | BinaryIO) -> Iterator[None]:
    """Whatever Pillow raises on a bad file, as a ValueError that names it."""
    name = "image" if type(path).__str__ is object.__str__ else path  # an open file without a name of its own
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name}: {error}. Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    except MemoryError as error:
        raise ValueError(f"{name}: not enough memory to decode this image") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ...
        if isinstance(error, UnidentifiedImageError) and (way := _is_heif(path)):
            raise ValueError(f"{path}: {way}") from error
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{name}: not a readable image ({reason})") from error


def check_pixels(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} pixels are more than the limit of {limit}"
        )


def _to_rgb(image: Image.Image, path: object) -> Image.Image:
    if image.mode == "F":
        raise ValueError(f"{path}: expected 8 or 16 bits per channel, got floating point; convert it first")
    if image.mode == "I" or image.mode.startswith("I;16"):  # convert("RGB") would clip at 255
        values = np.array(image).astype(np.int64)
        largest = int(values.max(initial=0))
        depth = next((bits for bits in DEPTHS if largest < 2**bits), 16)
        if depth < 16 and largest:
            warnings.warn(
                f"grey images of 16 bits whose largest values need {depth}: read as {depth}-bit images, scaled to"
                " 8 bits; scale them beforehand if that is not their range",
                stacklevel=3,
            )
        image = Image.fromarray(np.clip(values >> (depth - 8), 0, 255).astype(np.uint8))
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except ValueError as error:  # a mode for calculating, such as premultiplied "La"
        raise ValueError(f"{path}: an image of mode {image.mode}, which has no way to RGB") from error
