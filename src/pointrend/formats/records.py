"""What annotation files say, of whichever format: images, categories, objects, and what is wrong with them."""

from __future__ import annotations

import reprlib
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import RunLengths, decode_window

Id = int | str
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Shape = Polygons | RunLengths
MAX_PIXELS = 2**28
"""Of an image: a COCO image has 0.3 million, a Cityscapes one 2 million; beyond, one mask takes over 256 MB."""
MAX_POINTS = 1000
"""Labelled, of one object; PointSup has 10."""


@dataclass(frozen=True)
class ImageRecord:
    """One entry of "images"."""

    id: Id
    file_name: str
    height: int
    width: int
    url: str = ""
    """Where COCO keeps it."""
    neg_category_ids: tuple[int, ...] | None = None
    """LVIS: categories that the image does not show."""
    not_exhaustive_category_ids: tuple[int, ...] | None = None
    """LVIS: categories of which not every object is annotated."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True)
class Category:
    """One entry of "categories"."""

    id: int
    name: str
    supercategory: str | None = None
    synset: str | None = None
    """In WordNet; LVIS files have it."""
    frequency: str | None = None
    """LVIS: r(are), c(ommon) or f(requent)."""


@dataclass(frozen=True)
class PointLabels:
    """P labelled points of one object, in place of its mask (PointSup, arXiv 2104.06404)."""

    coords: Ints
    """(P, 2) x, y: indices of pixels, 0 <= x < width, 0 <= y < height."""
    labels: Ints
    """(P,) 1 on the object, 0 beside it."""

    def __len__(self) -> int:
        return len(self.labels)

    def to_coco(self) -> dict[str, object]:
        """The two fields of an annotation."""
        return {"point_coords": self.coords.tolist(), "point_labels": self.labels.tolist()}


@dataclass(frozen=True)
class Annotation:
    """One object, everything in pixels of its image."""

    id: Id
    image_id: Id
    category_id: int
    bbox: Floats
    """(4,) x, y, width, height."""
    shape: Shape | None
    """None only where masks were not asked for, or there are points in its place."""
    area: float
    crowd: bool
    points: PointLabels | None = None
    """PointSup: labelled points; in a file all objects have as many, or none has any."""

    def to_coco(self) -> dict[str, object]:
        """The form of COCO files; run lengths compressed."""
        record: dict[str, object] = {
            "id": self.id,
            "image_id": self.image_id,
            "category_id": self.category_id,
            "bbox": self.bbox.tolist(),
            "area": self.area,
            "iscrowd": int(self.crowd),
        }
        if self.points is not None:
            record |= self.points.to_coco()
        return record if self.shape is None else {**record, "segmentation": self.shape.to_coco()}


@dataclass(frozen=True)
class CocoFile:
    """Images and categories by id, in the order of their ids, and each image's objects in the file's order."""

    source: str
    """File name, for messages."""
    images: dict[Id, ImageRecord]
    categories: dict[int, Category]
    objects: dict[Id, list[Annotation]]

    def part(self, image_ids: Collection[Id]) -> CocoFile:
        """Of these images only, in the file's order."""
        images = {number: image for number, image in self.images.items() if number in image_ids}
        return replace(self, images=images, objects={number: self.objects[number] for number in images})


@dataclass(frozen=True)
class Fault:
    """Something wrong with one record of a file."""

    kind: str
    """A few words under which faults are counted, such as "duplicate id"."""
    place: str
    """Record, id and field: "annotations[3] (id 7), bbox"."""
    text: str
    repairable: bool = False
    """What is meant is certain; it is read, and by `pointrend data check --fix` written, as that."""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True)
class Inspection:
    """All that can be read of a file, and all that is wrong with it."""

    file: CocoFile
    faults: list[Fault]
    content: dict[str, Any]
    """The file's content, faults whose meaning is certain mended; other faulty records as they were."""


def checked(found: Inspection) -> CocoFile:
    """What was read, if no fault is left whose meaning is not certain; a warning for the others.

    Raises:
        ValueError: naming file, record, id and field of the first fault.
    """
    name = found.file.source
    grave = [fault for fault in found.faults if not fault.repairable]
    if grave:
        more = f" ({len(grave) - 1} more faults; `pointrend data check` lists them)" if len(grave) > 1 else ""
        raise ValueError(f"{name}, {grave[0]}{more}")
    if found.faults:
        kinds = ", ".join(f"{n} x {kind}" for kind, n in Counter(f.kind for f in found.faults).items())
        warnings.warn(
            f"{name}: faults of certain meaning, read as meant: {kinds}. `pointrend data check` lists them,"
            " --fix writes a repaired copy",
            stacklevel=3,
        )
    return found.file


def brief(value: object) -> str:
    """The value for a message: what is long is cut and what is deeply nested, however deeply, is left out."""
    if value is None:
        return "nothing"
    text = _SHORTENED.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_SHORTENED = reprlib.Repr()
_SHORTENED.maxlevel, _SHORTENED.maxstring, _SHORTENED.maxother = 3, 60, 60
_SHORTENED.maxlist = _SHORTENED.maxtuple = _SHORTENED.maxdict = 8


def extent_of(shape: Shape) -> list[float]:
    """x1, y1, x2, y2 of a polygon's points, or of a mask's pixels."""
    if isinstance(shape, Polygons):
        return shape.extent.tolist()
    window, (x, y) = decode_window(shape.counts.tolist(), shape.size)
    return [x, y, x + window.shape[1], y + window.shape[0]]


def parse_points(coords: object, labels: object, size: tuple[int, int]) -> PointLabels:
    """Checked points of an annotation.

    Args:
        coords: `point_coords` of the file. labels: `point_labels`.
        size: (height, width) of the image.

    Raises:
        ValueError: with the field, what was expected, and what came.
    """
    places = _whole_numbers("point_coords", coords, "a list of [x, y] pixel indices", dims=2)
    values = _whole_numbers("point_labels", labels, "a list of 0 and 1", dims=1)
    if places.shape[1] != 2:
        raise ValueError(f"point_coords: expected [x, y] pairs, got {places.shape[1]} numbers each")
    if len(places) != len(values):
        raise ValueError(
            f"point_labels: expected a label for each of {len(places)} point_coords, got {len(values)}"
        )
    height, width = size
    outside = ((places < 0) | (places >= (width, height))).any(axis=1)
    if outside.any():
        raise ValueError(
            f"point_coords: expected pixels of the {width}x{height} image, got {places[outside][0].tolist()}"
        )
    if ((values != 0) & (values != 1)).any():
        raise ValueError(
            f"point_labels: expected 0 or 1, got {values[(values != 0) & (values != 1)][:5].tolist()}"
        )
    return PointLabels(places, values)


def _whole_numbers(field: str, value: object, expected: str, *, dims: int) -> Ints:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_POINTS:
        got = f"{len(value)} of them" if isinstance(value, list | tuple) else type(value).__name__
        raise ValueError(f"{field}: expected {expected}, 1 to {MAX_POINTS} points, got {got}")
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # of different lengths
        array = np.array(None)
    if array.ndim != dims or array.dtype.kind not in "iuf":  # no texts, no true and false
        raise ValueError(f"{field}: expected {expected}, got something else")
    if not (np.isfinite(array).all() and (array == np.floor(array)).all() and (abs(array) < 2**31).all()):
        raise ValueError(f"{field}: expected {expected}, got fractions or numbers that are no index")
    return array.astype(np.int64)
