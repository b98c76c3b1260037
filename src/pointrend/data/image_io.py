"""Image files into tensors, and samples into batches; `label_io` reads label maps.

Files are untrusted: whatever is wrong with one, the answer is a `ValueError` that names it. Only raster
formats are opened (no PostScript, which Pillow would hand to an external program), and an image with more
pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million; raise it there for trusted files) is refused before
it is decoded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor
from torch.utils.data import DataLoader

from pointrend.structures import Sample, Samples

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

T = TypeVar("T")


def read_image(path: str | Path | BinaryIO, *, upright: bool = True) -> Tensor:
    """The image of a path or an open file as (3, H, W) uint8 RGB, as a viewer would show it.

    The EXIF orientation is applied (unless not `upright`: then the pixels come as stored), transparent parts
    lie on white, and of an animation the first frame is read. Grey values of 16 bits keep the upper 8 of the bits that
    they use, 8, 10, 12, 14 or 16 by the largest value, with a warning where these are fewer than 16.

    Raises ValueError, naming the file, if it is missing, truncated, too large or no image.
    """
    return from_pillow(decode(path), source=path, upright=upright)


def from_pillow(image: Image.Image, *, source: object = "image", upright: bool = True) -> Tensor:
    """A Pillow image as `read_image` gives one; ValueError, naming the source, as there."""
    if upright:
        # A broken EXIF block is no reason to refuse the pixels; viewers ignore it too.
        with contextlib.suppress(Exception):
            image = ImageOps.exif_transpose(image)
    array = np.array(_to_rgb(image, source))  # a copy: from_numpy needs writable memory
    if array.size == 0:
        raise ValueError(f"{source}: expected at least one pixel, got {image.width}x{image.height}")
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def image_size(path: str | Path | BinaryIO, *, upright: bool = False) -> tuple[int, int]:
    """(height, width) as stored or, `upright`, with the EXIF orientation applied; from the file's header alone.

    Raises ValueError, naming the file, as `read_image` does.
    """
    with _explained(path), Image.open(path, formats=_formats()) as image:
        _check_pixels(image)
        size = image.height, image.width
    return size[::-1] if upright and exif_turns(path, sideways=True) else size


def exif_turns(path: str | Path | BinaryIO, *, sideways: bool = False) -> bool:
    """Whether a viewer turns or mirrors the image (only `sideways`: exchanges height and width), by its EXIF
    orientation. False for what is no readable image.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.getexif().get(0x0112, 1) in range(5 if sideways else 2, 9)
    except Exception:  # unreadable: said elsewhere
        return False


def decode(path: str | Path | BinaryIO) -> Image.Image:
    """The image as Pillow has it, decoded; ValueError, naming the file, as `read_image`."""
    with _explained(path), Image.open(path, formats=_formats()) as image:
        _check_pixels(image)
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
def _formats() -> tuple[str, ...]:
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
    if head[4:8] != b"ftyp":
        return None
    if head[8:12] in (b"avif", b"avis"):
        return (
            None
            if "AVIF" in _formats()
            else "an AVIF image, which Pillow reads from version 11.3 on: pip install -U pillow"
        )
    if "HEIF" in _formats() or head[8:12] not in HEIF_BRANDS:
        return None
    return "a HEIC image, which Pillow reads with a plugin: pip install pillow-heif, or convert it to JPEG"


@contextlib.contextmanager
def _explained(path: str | Path | BinaryIO) -> Iterator[None]:
    """Whatever Pillow raises on a bad file, as a ValueError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path}: {error}. Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    except MemoryError as error:
        raise ValueError(f"{path}: not enough memory to decode this image") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ...
        if isinstance(error, UnidentifiedImageError) and (way := _is_heif(path)):
            raise ValueError(f"{path}: {way}") from error
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{_named(path)}: not a readable image ({reason})") from error


def _named(source: object) -> object:
    """A path as it is; "image" for an open file."""
    return source if isinstance(source, str | Path) else "image"


def _check_pixels(image: Image.Image) -> None:
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


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[object], list[Sample]]:
    """Samples as (images, targets, samples): images differ in size, so nothing is stacked."""
    return [sample.image for sample in samples], [sample.target for sample in samples], samples


def build_loader(
    dataset: Samples, batch_size: int, *, workers: int = 0, seed: int = 0, train: bool = True
) -> DataLoader:
    """Batches as `collate` makes them; in training shuffled by `seed`, without the incomplete last batch.

    The dataset's own random numbers (augmentation) come from torch: with workers they follow `seed`, without
    they follow `torch.manual_seed`.

    Raises ValueError if the dataset is empty or has fewer samples than one training batch.
    """
    count = len(dataset)
    if count == 0:
        raise ValueError("expected a dataset with at least one sample, got an empty one")
    if train and count < batch_size:
        raise ValueError(
            f"expected at least {batch_size} samples, one batch, got {count}; lower the batch size"
        )
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # torch's class has no length, and a list is none
        batch_size=batch_size,
        shuffle=train,
        drop_last=train,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=workers > 0,
    )


def endless(loader: Iterable[T]) -> Iterator[T]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader
