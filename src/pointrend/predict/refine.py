"""Sharpen masks from anywhere: `pointrend.refine_mask` and what `pointrend refine` reads and writes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor

from pointrend.data.image_io import read_image, to_image
from pointrend.data.label_io import label_colors, read_labels
from pointrend.io import atomic_write, read_json, write_png, write_text
from pointrend.masks.rle import decode_window, encode_windows
from pointrend.models.mask_refiner import MaskRefiner
from pointrend.predict.predictor import Image
from pointrend.structures import IGNORE_LABEL, InstanceMasks
from pointrend.zoo.bundled import REFINER

MAX_LABELS = 64
"""Of a label map; each costs as much as a mask of its own."""
MAX_PIXELS = 2**27
ROUNDING = 0.1
"""Probabilities may lie so far outside of 0 to 1, as bicubic enlargement makes them."""
Mask = Tensor | np.ndarray | PILImage.Image | Mapping[str, object]
"""What :func:`refine_mask` takes."""


def refine_mask(image: Image, mask: Mask, *, refiner: MaskRefiner | None = None) -> Tensor:
    """A mask or label map of an image, with its outlines moved to where the image has them.

    Args:
        image: a path, a Pillow image, an array (H, W, 3), a tensor (3, H, W), .., as for a `Predictor`.
        mask: over the whole image, (h, w) of any size with the image's proportions; also a Pillow image of one channel.
            Boolean, or integers of which one beside 0 occurs: a mask. Floating: probabilities, or logits where some lie
            outside of 0 to 1 by more than 0.1. Integers of which several occur: a label map; 255 stays where it is. Or
            COCO's run lengths, {"size", "counts"}.
        refiner: another one than that which comes with the package.

    Returns:
        (H, W) bool of a mask, the labels (H, W) int32 of a label map.

    Raises:
        ValueError: the image cannot be read; a mask of another form or other proportions.
    """
    pixels = to_image(image)
    given = _checked(mask)
    _check_proportions((given.shape[0], given.shape[1]), (pixels.shape[1], pixels.shape[2]))
    refiner = load_bundled_refiner() if refiner is None else refiner
    if given.is_floating_point():
        return refiner.logits(pixels, given) > 0
    labels = given.unique().tolist()
    if sum(label != 0 for label in labels) <= 1:
        return refiner.logits(pixels, (given != 0).float()) > 0
    return _refine_labels(refiner, pixels, given, [label for label in labels if label != IGNORE_LABEL])


def _refine_labels(refiner: MaskRefiner, pixels: Tensor, given: Tensor, labels: list[int]) -> Tensor:
    """Each label against the rest; a pixel gets the one with the highest logit."""
    if len(labels) > MAX_LABELS:
        raise ValueError(
            f"mask: {len(labels)} labels are more than {MAX_LABELS}, and each is refined by itself; refine some of "
            "them, or hand over the grey values of one soft mask as mask / 255 (--soft)"
        )
    size = (pixels.shape[1], pixels.shape[2])
    best, refined = torch.full(size, -torch.inf), torch.full(size, IGNORE_LABEL, dtype=torch.int32)
    for label in labels:
        logits = refiner.logits(pixels, (given == label).float())
        refined[logits > best] = label
        best = torch.maximum(best, logits)
    ignored = F.interpolate((given == IGNORE_LABEL)[None, None].float(), size=size, mode="nearest")[0, 0]
    refined[ignored > 0] = IGNORE_LABEL
    return refined


def _checked(mask: Mask) -> Tensor:
    """(h, w) bool, integers, or probabilities."""
    if isinstance(mask, Mapping):
        return _from_run_lengths(mask)
    if isinstance(mask, PILImage.Image):
        mask = np.asarray(mask)
    given: object = mask
    if isinstance(mask, np.ndarray):
        kind = {"b": bool, "i": np.int64, "u": np.int64, "f": np.float32}.get(mask.dtype.kind)
        if kind is None:
            raise ValueError(f"mask: expected booleans, integers or floats, got {mask.dtype}")
        given = torch.from_numpy(np.array(mask, dtype=kind, order="C"))
    if not isinstance(given, Tensor):
        raise ValueError(
            f"mask: expected an array, a tensor or COCO's run lengths, got {type(mask).__name__}"
        )
    given = given.detach().cpu().to_dense()
    while given.ndim > 2 and 1 in (given.shape[0], given.shape[-1]):  # (1, h, w), (h, w, 1), (1, 1, h, w)
        given = given.squeeze(0 if given.shape[0] == 1 else -1)
    if given.ndim != 2 or given.numel() == 0:
        raise ValueError(
            f"mask: expected (h, w) with h, w >= 1, got {tuple(given.shape)}; refine one at a time"
        )
    if given.is_complex():
        raise ValueError(f"mask: expected booleans, integers or floats, got {given.dtype}")
    if not given.is_floating_point():
        return given if given.dtype == torch.bool else given.long()
    if bool(given.isnan().any()):
        raise ValueError("mask: expected probabilities or logits, got NaN")
    given = given.float()
    least, most = float(given.min()), float(given.max())
    if least >= -ROUNDING and most <= 1 + ROUNDING:
        return given.clamp(0, 1)
    if least >= 0:  # logits have both signs; these may be 0..255, or labels
        raise ValueError(
            f"mask: expected probabilities from 0 to 1, or logits, some of them negative, got floats from {least:g} to "
            f"{most:g}; hand labels over as integers, and 0..255 as mask > 127"
        )
    return given.sigmoid()


def _from_run_lengths(mask: Mapping[str, Any]) -> Tensor:
    size, counts = mask.get("size"), mask.get("counts")
    numbers = isinstance(size, list | tuple) and [type(side) for side in size] == [int, int]
    if not numbers or counts is None:
        raise ValueError(
            f'mask: expected COCO\'s run lengths {{"size": [H, W], "counts": ..}}, got {sorted(mask)}'
        )
    height, width = size  # type: ignore[misc]
    if not 0 < height * width <= MAX_PIXELS or height < 0:
        raise ValueError(f"mask: expected a size of 1 to {MAX_PIXELS:,} pixels, got {size}")
    window, offset = decode_window(counts, (height, width))
    return InstanceMasks([window], torch.tensor([offset]), (height, width)).full(0)


def _check_proportions(mask: tuple[int, int], image: tuple[int, int]) -> None:
    """A mask of another size covers the whole image: its sides fit to a cell."""
    scale = max(mask[0] / image[0], mask[1] / image[1])
    if abs(image[0] * scale - mask[0]) > 1 or abs(image[1] * scale - mask[1]) > 1:
        raise ValueError(
            f"mask: expected the proportions of the image, {image[1]}x{image[0]} pixels, got {mask[1]}x{mask[0]}; cut "
            "or extend a mask over a padded or cropped image to the image first"
        )


@functools.cache
def load_bundled_refiner() -> MaskRefiner:
    """The refiner that comes with the package."""
    from pointrend.checkpoints.mask_refiner import load_refiner

    return load_refiner(REFINER.path)


def read_mask(path: str | Path, *, soft: bool = False) -> Mask:
    """A mask from its file: an image of labels, .npy, or .json with COCO's run lengths or an annotation of them.

    Colours of an image are labels where all are grey, or where there is one beside black.

    Args:
        soft: an image's grey values are one object's probabilities, from black to white.

    Raises:
        ValueError: naming the file, if it holds none.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if soft:
            return read_image(path).float().mean(0) / 255
        if suffix == ".npy":
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if found.dtype.kind not in "biuf" or found.size > MAX_PIXELS:
                raise ValueError(
                    f"expected numbers, at most {MAX_PIXELS:,}, got {found.size:,} of {found.dtype}"
                )
            kind = {"b": bool, "f": np.float32}.get(found.dtype.kind, np.int32)
            return np.array(found, dtype=kind)
        if suffix == ".json":
            content = read_json(path)
            if isinstance(content, dict):
                content = content.get("segmentation", content)
            if not isinstance(content, dict):
                raise ValueError("expected COCO's run lengths of one mask, or an annotation with them")
            return content
        colors = label_colors(path)
        grey = all(min(color) == max(color) for color in colors)
        if grey or (len(colors) == 2 and (0, 0, 0) in colors):
            return read_labels(path, {color: max(color) for color in colors} or None)
        return read_labels(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def write_mask(refined: Tensor, path: Path) -> None:
    """A mask (0 and 255 in a PNG) or a label map: .png or .npy, a mask also as COCO's run lengths in .json.

    Raises:
        ValueError: another ending; labels that a PNG does not hold.
    """
    mask = refined.dtype == torch.bool
    if path.suffix == ".npy":
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, refined.numpy())
    elif path.suffix == ".json" and mask:
        run_lengths = next(encode_windows(InstanceMasks.from_dense(refined[None])))
        write_text(path, json.dumps(run_lengths) + "\n")
    elif path.suffix == ".png":
        least, most = int(refined.min()), int(refined.max())
        if not mask and not 0 <= least <= most < 2**16:
            raise ValueError(f"{path}: labels from {least} to {most} do not fit a PNG; write .npy")
        pixels = refined.numpy()
        write_png(
            pixels.astype(np.uint8) * 255 if mask else pixels.astype(np.uint8 if most < 256 else np.uint16),
            path,
        )
    else:
        raise ValueError(f"{path}: expected a name ending in .png, .npy or, for a mask, .json")
