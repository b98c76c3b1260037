"""An image in whatever form somebody holds it: a file, a URL, bytes, a Pillow image, an array, a tensor."""

from __future__ import annotations

import io
import os
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pointrend.data.image_io import from_pillow, read_image
from pointrend.data.remote import is_url, read_object

ChannelOrder = Literal["rgb", "bgr"]

FORMS = (
    "a path, a URL, the bytes of an image file, an open file, a Pillow image, a numpy array (H, W, 3) or (H, W) uint8, "
    "or a tensor (3, H, W) uint8, RGB"
)


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
    if isinstance(image, Tensor):
        return _from_tensor(image, channel_order)
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order)
    raise ValueError(f"image: expected {FORMS}; got {type(image).__name__}")


def local_path(source: str | os.PathLike[str]) -> Path:
    """A path from a text: `file://` addresses and `~` too."""
    text = os.fspath(source)
    if text.lower().startswith("file://"):
        text = urllib.request.url2pathname(urllib.parse.urlsplit(text).path)
    return Path(text).expanduser()


def _from_tensor(image: Tensor, order: ChannelOrder) -> Tensor:
    shape = tuple(image.shape)
    if image.ndim == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3):
        raise ValueError(f"image: expected a tensor (3, H, W), got {shape}: use image.permute(2, 0, 1)")
    planes = image[None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[0] not in (1, 3):
        raise ValueError(
            f"image: expected a tensor (3, H, W) or (H, W), got {shape}; give several images as a list"
        )
    _check_values(image.dtype, image.dtype == torch.uint8, shape, ".to(torch.uint8)")
    return _in_order(planes.detach(), order)


def _from_array(image: np.ndarray, order: ChannelOrder) -> Tensor:
    shape = image.shape
    if image.ndim == 3 and shape[2] not in (1, 3) and shape[0] in (1, 3):
        raise ValueError(f"image: expected an array (H, W, 3), got {shape}: use image.transpose(1, 2, 0)")
    if image.ndim == 3 and shape[2] == 4:
        raise ValueError(
            f"image: expected an array (H, W, 3), got {shape}: leave the alpha channel out, image[..., :3]"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"image: expected an array (H, W, 3) or (H, W), got {shape}; give several images as a list"
        )
    _check_values(image.dtype, image.dtype == np.uint8, shape, ".astype(np.uint8)")
    planes = torch.from_numpy(np.array(image.reshape(shape[0], shape[1], -1)))
    return _in_order(planes.permute(2, 0, 1), order)


def _in_order(planes: Tensor, order: ChannelOrder) -> Tensor:
    planes = planes.flip(0) if order == "bgr" else planes
    return planes.expand(3, -1, -1).contiguous()


def _check_values(dtype: object, right: bool, shape: tuple[int, ...], cast: str) -> None:
    if not right:
        integers = "int" in str(dtype)
        way = (
            f"for values 0..255: image{cast}" if integers else f"for values 0..1: (image * 255).round(){cast}"
        )
        raise ValueError(f"image: expected uint8 values 0..255, got {dtype}; {way}")
    if 0 in shape:
        raise ValueError(f"image: expected at least one pixel, got the shape {shape}")
