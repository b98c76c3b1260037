"""An exported model with what surrounds its graph: reading and resizing of images in front, pasting of masks behind.

Images are uint8 (H, W, 3) RGB here, as Pillow and numpy have them. The numbers are those of `pointrend.Predictor` up to
rounding; tests hold the two together.

Shapes: H W rows and columns of the image, h w those the network sees, D detections, S side of a mask.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend.data.decode import decode, to_rgb_array
from pointrend.preprocessing import Pixels, Preprocessing, resize_array, resized_size
from pointrend.runtime.sessions import Session

Float = NDArray[np.float32]
AnyImage = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Instances:
    """The objects of an image, best first, in its pixels; masks on the windows in which they live."""

    boxes: NDArray[np.float32]
    """(D, 4)."""
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    windows: list[NDArray[np.bool_]]
    """One (h, w) for each object."""
    offsets: list[tuple[int, int]]
    """(x, y) of each window's top left pixel."""
    image_size: tuple[int, int]

    def above(self, score: float) -> Instances:
        """The objects with at least this score."""
        kept = np.flatnonzero(self.scores >= score)
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            scores=self.scores[kept],
            windows=[self.windows[number] for number in kept],
            offsets=[self.offsets[number] for number in kept],
        )

    def masks(self) -> NDArray[np.bool_]:
        """(D, H, W), in full."""
        masks = np.zeros((len(self.windows), *self.image_size), dtype=bool)
        for mask, window, (x, y) in zip(masks, self.windows, self.offsets, strict=True):
            mask[y : y + window.shape[0], x : x + window.shape[1]] = window
        return masks


class ExportedModel:
    """What the two kinds share: the file's metadata, and images on their way in."""

    def __init__(self, session: Session) -> None:
        try:
            self.class_names: tuple[str, ...] = tuple(json.loads(session.metadata["classes"]))
            self.palette = tuple(tuple(color) for color in json.loads(session.metadata["palette"]))
            self.preprocessing = Preprocessing(**_tuples(json.loads(session.metadata["preprocessing"])))
            sides = session.metadata["size"]
            self.metadata = dict(session.metadata) | {"gives": session.metadata["gives"]}
            self.size = None if sides == "dynamic" else tuple(int(side) for side in sides.split("x"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{session.path}: metadata cannot be read ({error!r})") from error
        self.session = session

    def resize(self, image: Pixels) -> Pixels:
        """The image (H, W, 3) as the network sees it, (h, w, 3).

        Raises:
            ValueError: the file is for another, fixed size.
        """
        size = resized_size(image.shape[0], image.shape[1], self.preprocessing)
        if self.size not in (None, size):
            raise ValueError(
                f"{self.session.path}: for images of {self.size} rows and columns, got {size}; export with --size "
                "dynamic, or resize the image"
            )
        return resize_array(image, size, self.preprocessing.resize)

    def _run(self, image: Pixels, **more: np.ndarray) -> list[np.ndarray]:
        planes = np.ascontiguousarray(self.resize(image).transpose(2, 0, 1))
        return self.session.run({"image": planes, **more})


class SemanticModel(ExportedModel):
    """Label maps."""

    task = "semantic"

    def predict(self, image: AnyImage) -> np.ndarray:
        """Class numbers (H, W), uint8 up to 255 classes, of an image in its own size.

        Raises:
            ValueError: an image that cannot be read, has another form, or another size than the file is for.
        """
        pixels = to_pixels(image)
        size = {"size": np.array(pixels.shape[:2], dtype=np.int64)} if "size" in self.session.inputs else {}
        if self.metadata["gives"] == "logits":
            raise ValueError(
                f"{self.session.path}: gives logits; use session.run, or export without --logits"
            )
        (labels,) = self._run(pixels, **size)
        if labels.shape != pixels.shape[:2]:  # of a fixed size: its graph does not know the image's
            height, width = pixels.shape[:2]
            return np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        return labels


class InstanceModel(ExportedModel):
    """Objects."""

    task = "instance"

    def predict(self, image: AnyImage) -> dict[str, np.ndarray]:
        """boxes (D, 4), labels (D,), scores (D,) and masks (D, H, W) bool in the image's own pixels, best first.

        Raises:
            ValueError: as of the semantic model.
        """
        found = self.find(image)
        return {
            "boxes": found.boxes,
            "labels": found.labels,
            "scores": found.scores,
            "masks": found.masks(),
        }

    def find(self, image: AnyImage) -> Instances:
        """What :meth:`predict` gives, each mask on its window: D * H * W bytes less."""
        pixels = to_pixels(image)
        height, width = pixels.shape[:2]
        rows, columns = resized_size(height, width, self.preprocessing)
        boxes, labels, scores, masks = self._run(pixels)
        if self.metadata["gives"] == "logits":
            masks = 1 / (1 + np.exp(-masks))
        scale = np.array([width / columns, height / rows] * 2, dtype=np.float32)
        limit = np.array([width, height] * 2, dtype=np.float32)
        boxes = (boxes * scale).clip(0, limit)
        keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        pasted = [
            paste(mask, box, (height, width)) for mask, box in zip(masks[keep], boxes[keep], strict=True)
        ]
        return Instances(
            boxes[keep],
            labels[keep],
            scores[keep],
            [window for window, _ in pasted],
            [offset for _, offset in pasted],
            (height, width),
        )


def to_pixels(image: AnyImage) -> Pixels:
    """uint8 (H, W, 3) RGB of a path, a Pillow image or an array.

    Raises:
        ValueError: none of these, or a file that cannot be read.
    """
    if isinstance(image, str | Path):
        return to_rgb_array(decode(image), image)
    if isinstance(image, Image.Image):
        return to_rgb_array(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"image: expected a path, a Pillow image or a uint8 array (H, W, 3) RGB, got {found}"
        )
    if 0 in image.shape:
        raise ValueError(f"image: expected at least one pixel, got {image.shape}")
    return image


def _tuples(values: Mapping[str, object]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def paste(
    mask: Float, box: Float, image_size: tuple[int, int], threshold: float = 0.5
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """A window (h, w) of the image and its top left pixel (x, y), from probabilities (S, S) over a box (4,) in pixels.

    The arithmetic of `models.paste_masks`.

    A pixel belongs to the object where the probability, interpolated bilinearly at the pixel's centre, is at least the
    threshold; outside of the S x S cells probabilities fade to zero within half a cell.
    """
    side = mask.shape[0]
    height, width = image_size
    left, right, columns, to_columns = _axis(box[0], box[2], width, side)
    top, bottom, rows, to_rows = _axis(box[1], box[3], height, side)
    if right <= left or bottom <= top:
        return np.zeros((max(bottom - top, 0), max(right - left, 0)), dtype=bool), (left, top)
    around = np.pad(mask, 1)  # zeros, which positions outside are interpolated with
    # One axis after the other: the columns first, on the S rows.
    lines = around[:, columns] * (1 - to_columns) + around[:, columns + 1] * to_columns
    values = lines[rows] * (1 - to_rows)[:, None] + lines[rows + 1] * to_rows[:, None]
    return values >= threshold, (left, top)


def _axis(start: float, end: float, limit: int, side: int) -> tuple[int, int, NDArray[np.int64], Float]:
    """First and last pixel (exclusive), and for each the padded cell before it and the share of the next one."""
    first = min(max(math.floor(start) - 1, 0), limit)
    last = min(max(math.ceil(end) + 1, 0), limit)
    centres = np.arange(first, max(last, first), dtype=np.float32) + np.float32(0.5)
    # As grid_sample has it: from the box to [-1, 1], and from there to cells.
    unit = (centres - start) / (end - start) * np.float32(2) - np.float32(1)
    position = ((unit + 1) * np.float32(side) - 1) / np.float32(2)
    position = position.clip(-1, side) + np.float32(1)
    cell = np.floor(position).clip(0, side).astype(np.int64)
    return first, last, cell, (position - cell).astype(np.float32)
