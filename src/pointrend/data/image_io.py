"""Image files into tensors, and samples into batches; `label_io` reads label maps.

Files are untrusted: whatever is wrong with one, the answer is a `ValueError` that names it; `data.decode` says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pointrend.data.decode import check_pixels, decode, explained, formats, to_rgb_array
from pointrend.structures import Sample, Samples

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
    return torch.from_numpy(to_rgb_array(image, source, upright)).permute(2, 0, 1).contiguous()


def image_size(path: str | Path | BinaryIO, *, upright: bool = False) -> tuple[int, int]:
    """(height, width) as stored or, `upright`, with the EXIF orientation applied; from the file's header alone.

    Raises ValueError, naming the file, as `read_image` does.
    """
    with explained(path), Image.open(path, formats=formats()) as image:
        check_pixels(image)
        size = image.height, image.width
    return size[::-1] if upright and exif_turns(path, sideways=True) else size


def exif_turns(path: str | Path | BinaryIO, *, sideways: bool = False) -> bool:
    """Whether a viewer turns or mirrors the image (only `sideways`: exchanges height and width), by its EXIF
    orientation. False for what is no readable image.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            return image.getexif().get(0x0112, 1) in range(5 if sideways else 2, 9)
    except Exception:  # unreadable: said elsewhere
        return False


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
