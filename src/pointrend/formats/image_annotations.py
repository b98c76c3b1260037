"""Annotations that lie in a file for each image, brought together as a `CocoFile`."""

from __future__ import annotations

import io
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pointrend.formats.records import (
    MAX_PIXELS,
    Annotation,
    Category,
    CocoFile,
    Fault,
    ImageRecord,
    Inspection,
    Shape,
    brief,
    extent_of,
)
from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import RunLengths, run_lengths

NO_OBJECTS = frozenset({"background", "_background_", "__background__", "__ignore__"})
"""Class names that tools give to what is no object."""


ImageSize = Callable[[Path], tuple[int, int]]
"""(height, width) of an image file, upright; ValueError if it is none."""


@dataclass
class AnnotatedImage:
    """An image and its objects: class name and shape of each."""

    file_name: str
    """As seen from the folder of images."""
    size: tuple[int, int]
    """(H, W)."""
    objects: list[tuple[str, Shape]] = field(default_factory=list)


class ImageAnnotations:
    """The images that were read of a data set, and what is wrong with it."""

    def __init__(self) -> None:
        self.images: list[AnnotatedImage] = []
        self.faults: list[Fault] = []
        self.without_area: Counter[str] = Counter()
        """Kinds of shapes that were left out, since they have no area."""

    @contextmanager
    def recording(self, kind: str, place: str) -> Iterator[None]:
        """A ValueError of what is read here is noted as a fault, and ends only that."""
        try:
            yield
        except ValueError as error:
            self.faults.append(Fault(kind, place, str(error)))

    def merged(self, source: str, class_names: Sequence[str] = ()) -> Inspection:
        """The images as one file; categories are numbered from 1 in the order of `class_names`, or by name."""
        for kind, count in self.without_area.items():
            text = f"of kind {kind} are left out"
            self.faults.append(Fault("shape without area", f"{count} shapes", text, repairable=True))
        names = list(class_names) or sorted(
            {name for image in self.images for name, _ in image.objects} - NO_OBJECTS
        )
        ids = {name: number for number, name in enumerate(names, start=1)}
        records: dict[int | str, ImageRecord] = {}
        objects: dict[int | str, list[Annotation]] = {}
        numbers = itertools.count(1)
        for image_id, image in enumerate(self.images, start=1):
            records[image_id] = ImageRecord(image_id, image.file_name, *image.size)
            objects[image_id] = []
            for name, shape in image.objects:
                if name in ids:
                    x1, y1, x2, y2 = extent_of(shape)
                    box = np.array([x1, y1, x2 - x1, y2 - y1], dtype=np.float64)
                    objects[image_id].append(
                        Annotation(next(numbers), image_id, ids[name], box, shape, shape.area, False)
                    )
        categories = {number: Category(number, name) for name, number in ids.items()}
        return Inspection(CocoFile(source, records, categories, objects), self.faults, {})


def checked_size(height: object, width: object) -> tuple[int, int]:
    """(H, W) from a file.

    Raises:
        ValueError: they are no size of an image.
    """
    sides = [side for side in (height, width) if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) == 2 and min(sides) > 0 and sides[0] * sides[1] <= MAX_PIXELS:
        return sides[0], sides[1]
    raise ValueError(f"height, width: expected 1 to {MAX_PIXELS} pixels in all, got {brief((height, width))}")


def png_mask(png: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask in a PNG file of an annotation: (h, w), at most `size`; where it is opaque if it has transparent parts,
    else where it is not black.

    Raises:
        ValueError: no readable image, or a larger one.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError("larger than its image")
            alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
            return np.array(alpha or image.convert("L")) != 0
    except (OSError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image ({error})") from error


def mask_shape(mask: np.ndarray, offset: tuple[int, int], size: tuple[int, int]) -> RunLengths | None:
    """A mask (h, w) at `offset` (x, y) of an image of `size` (H, W), cut to the image; None without a pixel."""
    (x, y), (height, width) = offset, size
    top, left = max(-y, 0), max(-x, 0)
    inside = mask[top : max(height - y, 0), left : max(width - x, 0)]
    if not inside.any():
        return None
    window = torch.from_numpy(np.ascontiguousarray(inside))
    return RunLengths(run_lengths(window, (max(x, 0), max(y, 0)), size), size)


def polygon_shape(points: object, size: tuple[int, int]) -> Polygons:
    """A polygon of three or more finite points (x, y) in or near the image.

    Raises:
        ValueError: it is none.
    """
    try:
        ring = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        ring = np.zeros(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("expected three or more points [x, y]")
    if np.abs(ring).max() > 2 * max(size):
        raise ValueError(f"a point at {np.abs(ring).max():.0f} is far outside of the image")
    return Polygons((ring,))
