"""Images in whatever form somebody holds them into tensors, and samples into batches; `label_io` reads label maps.

Files are untrusted: whatever is wrong with one, the answer is a `ValueError` that names it; `data.decode` says how.
"""

from __future__ import annotations

import io
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pointrend.data.decode import check_pixels, decode, explained, formats, to_rgb_array
from pointrend.data.remote import is_url, read_object
from pointrend.structures import Sample, Samples, Target

ChannelOrder = Literal["rgb", "bgr"]

FORMS = (
    "a path, a URL, the bytes of an image file, an open file, a Pillow image, a numpy array (H, W, 3) or (H, W) uint8, "
    "or a tensor (3, H, W) uint8, RGB"
)


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


def to_image(image: Any, *, channel_order: ChannelOrder = "rgb") -> Tensor:
    """(3, H, W) uint8 RGB of an image in any of the forms that `FORMS` names.

    Args:
        channel_order: of arrays and tensors; "bgr" for what cv2 reads. Files and Pillow images say theirs.

    Raises:
        ValueError: none of these forms, naming what to do; or an image that cannot be read.
        ConnectionError: a URL that cannot be fetched, or POINTREND_OFFLINE is set.
    """
    if channel_order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order: expected 'rgb' or 'bgr', got {channel_order!r}")
    if isinstance(image, str) and is_url(image):
        return read_image(io.BytesIO(read_object(image)))
    if isinstance(image, str | os.PathLike):
        path = local_path(image)
        if path.is_dir():
            raise ValueError(
                f"{path}: expected an image file, got a folder; list its files, or use Predictor.save"
            )
        return read_image(path)
    if callable(getattr(image, "read", None)):
        image = image.read()
        if not isinstance(image, bytes):
            raise ValueError(f"image: expected a file opened in binary mode, got {type(image).__name__}")
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(io.BytesIO(image))
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, Tensor | np.ndarray):
        return _from_pixels(image, channel_order)
    raise ValueError(f"image: expected {FORMS}; got {type(image).__name__}")


def local_path(source: str | os.PathLike[str]) -> Path:
    """A path from a text: `file://` addresses and `~` too.

    Raises:
        ValueError: an address of another kind (as a `Path`, any address: it has lost a slash), or no name of a file.
    """
    text = os.fspath(source)
    if not text:
        raise ValueError("expected the name of a file or folder, got an empty text")
    short = text if len(text) <= 200 else f"{text[:200]}..."
    if text.lower().startswith("file:/"):
        text = urllib.request.url2pathname(urllib.parse.urlsplit(text).path)
    elif (kind := re.match(r"(\w[\w+-]+):(/|image/)", text)) and not os.path.exists(text):
        raise ValueError(
            f"{short}: expected a file, or a text with an address of http, https or an object store, got "
            f"{'a Path' if isinstance(source, Path) else 'an address'} of kind {kind[1]!r}"
        )
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long a name, or nobody of the name behind "~"
        raise ValueError(f"{short}: no such file ({getattr(error, 'strerror', None) or error})") from error
    return path


def _from_pixels(image: Tensor | np.ndarray, order: ChannelOrder) -> Tensor:
    """(3, H, W) RGB of a tensor (3, H, W) or (H, W), or of an array (H, W, 3) or (H, W)."""
    shape, tensor = tuple(image.shape), isinstance(image, Tensor)
    form, channels, other = ("a tensor (3, H, W)", 0, 2) if tensor else ("an array (H, W, 3)", 2, 0)
    if len(shape) == 3 and shape[channels] not in (1, 3):
        way = None
        if shape[other] in (1, 3):
            way = f"use image.{'permute(2, 0, 1)' if tensor else 'transpose(1, 2, 0)'}"
        elif shape[channels] == 4:
            way = f"leave the alpha channel out, image{'[:3]' if tensor else '[..., :3]'}"
        if way is not None:
            raise ValueError(f"image: expected {form}, got {shape}: {way}")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[channels] not in (1, 3)):
        raise ValueError(f"image: expected {form} or (H, W), got {shape}; give several images as a list")
    if isinstance(image, Tensor) and (image.is_meta or image.layout != torch.strided):
        raise ValueError(
            f"image: expected a dense tensor with values, got one of {image.device}, {image.layout}"
        )
    if image.dtype not in (torch.uint8, np.uint8):
        cast = ".to(torch.uint8)" if tensor else ".astype(np.uint8)"
        way = f"for values 0..1: (image * 255).round(){cast}; for 0..255: image.round(){cast}"
        if "int" in str(image.dtype):
            way = f"for values 0..255: image{cast}; for 0..65535: (image // 257){cast}"
        raise ValueError(f"image: expected uint8 values 0..255, got {image.dtype}; {way}")
    if 0 in shape:
        raise ValueError(f"image: expected at least one pixel, got the shape {shape}")
    if isinstance(image, Tensor):
        planes = image.detach().reshape(-1, *shape[-2:])
    else:
        planes = torch.from_numpy(np.array(image.reshape(*shape[:2], -1))).permute(2, 0, 1)
    return (planes.flip(0) if order == "bgr" else planes).expand(3, -1, -1).contiguous()


Batch = tuple[list[Tensor], list[Target], list[Sample]]
"""Images (3, h, w) uint8, their targets, and the samples they came from (for naming a bad one)."""


def collate(samples: list[Sample]) -> Batch:
    """Samples as a batch: images differ in size, so nothing is stacked."""
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
