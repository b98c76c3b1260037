"""Image and label files into tensors, and samples into batches.

Files are untrusted: whatever is wrong with one, the answer is a `ValueError` that names it. Only raster
formats are opened (no PostScript, which Pillow would hand to an external program), and an image with more
pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million; raise it there for trusted files) is refused before
it is decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader

from pointrend.structures import Sample, Samples

# The first five load no further Pillow plugins. JPEG covers phones' MPO.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000")
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)

T = TypeVar("T")


def read_image(path: str | Path | BinaryIO, *, upright: bool = True) -> Tensor:
    """The image of a path or an open file as (3, H, W) uint8 RGB, as a viewer would show it.

    The EXIF orientation is applied (unless not `upright`: then the pixels come as stored), transparent parts
    lie on white, 16-bit values keep their upper byte, and of an animation the first frame is read.

    Raises ValueError, naming the file, if it is missing, truncated, too large or no image.
    """
    return from_pillow(_decode(path), source=path, upright=upright)


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


def read_labels(path: str | Path) -> Tensor:
    """The label map as (H, W) int32: the numbers of an 8- or 16-bit grey file, or a palette file's indices.

    Raises ValueError as `read_image` does, and for a file in colour.
    """
    image = _decode(path)
    if image.mode not in {"1", "L", "P", "I"} and not image.mode.startswith("I;16"):
        raise ValueError(
            f"{path}: expected a label map with one number per pixel (8- or 16-bit grey, or palette), got a "
            f"image of mode {image.mode}; convert its colours to class numbers first"
        )
    return torch.from_numpy(np.array(image).astype(np.int32))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as stored (EXIF orientation not applied), from the file's header alone.

    Raises ValueError, naming the file, as `read_image` does.
    """
    with _explained(path), Image.open(path, formats=FORMATS) as image:
        _check_pixels(image)
        return image.height, image.width


def _decode(path: str | Path | BinaryIO) -> Image.Image:
    with _explained(path), Image.open(path, formats=FORMATS) as image:
        _check_pixels(image)
        image.load()
        return image.copy() if getattr(image, "is_animated", False) else image


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
        raise ValueError(f"{path}: not a readable image ({error})") from error


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
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


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
