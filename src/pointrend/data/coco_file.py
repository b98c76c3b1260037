"""A COCO annotation file, read and checked: nothing malformed gets past this page.

Every complaint is a `ValueError` that names the file, the annotation's or picture's id and the field.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointrend.data.objects import Floats, Polygons, RunLengths, decode_counts

Shape = Polygons | RunLengths
MOST_POLYGONS = (
    10_000  # of one object; each takes as much memory as the picture has columns while it is drawn
)


@dataclass(frozen=True)
class Picture:
    """One entry of "images"."""

    id: int | str
    file_name: str
    height: int
    width: int
    url: str = ""
    """Where COCO keeps it."""


@dataclass(frozen=True)
class Category:
    """One entry of "categories"."""

    id: int
    name: str
    supercategory: str | None
    synset: str | None = None
    """In WordNet; LVIS files have it."""


@dataclass(frozen=True)
class Annotation:
    """One object: `box` is (x1, y1, x2, y2), everything in pixels of its picture."""

    id: int | str
    image_id: int | str
    category_id: int
    box: Floats
    shape: Shape
    area: float
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """Pictures and categories by id, in the order of their ids, and each picture's objects in the file's
    order."""

    path: Path
    pictures: dict[int | str, Picture]
    categories: dict[int, Category]
    objects: dict[int | str, list[Annotation]]


def read_coco(path: str | Path) -> CocoFile:
    """The checked content of a COCO (or LVIS) instances file.

    Raises ValueError for anything malformed, naming file, id and field.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected an object with "images", "annotations" and "categories"')
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{path}, {key}: expected a list, got {_short(content.get(key))}")
    pictures = {picture.id: picture for picture in _unique(path, "images", content["images"], _picture)}
    categories = {
        category.id: category for category in _unique(path, "categories", content["categories"], _category)
    }
    if not categories:
        raise ValueError(f"{path}, categories: expected at least one category, got none")
    objects: dict[int | str, list[Annotation]] = {number: [] for number in pictures}

    def annotation(entry: _Entry) -> Annotation:
        return _annotation(entry, pictures, categories)

    for item in _unique(path, "annotations", content["annotations"], annotation):
        objects[item.image_id].append(item)
    return CocoFile(
        path,
        dict(sorted(pictures.items(), key=_by_id)),
        dict(sorted(categories.items(), key=_by_id)),
        objects,
    )


def _by_id(item: tuple[int | str, object]) -> tuple[bool, int | str]:
    return isinstance(item[0], str), item[0]


class _Entry:
    """One object of a list in the file, and how to complain about it."""

    def __init__(self, path: Path, key: str, number: int, fields: object) -> None:
        self.place = f"{path}, {key}[{number}]"
        if not isinstance(fields, dict):
            raise ValueError(f"{self.place}: expected an object, got {_short(fields)}")
        self.fields: dict[str, Any] = fields
        if "id" not in fields:
            raise self.wrong("id", "a number", None)
        self.place = f"{path}, {key}[{number}] (id {_short(fields['id'])})"

    def wrong(self, field: str, expected: str, got: object) -> ValueError:
        return ValueError(f"{self.place}, {field}: expected {expected}, got {_short(got)}")

    def id(self, field: str = "id") -> int | str:
        value = self.fields.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise self.wrong(field, "a number", value)
        return value

    def text(self, field: str) -> str:
        value = self.fields.get(field)
        if not isinstance(value, str) or not value:
            raise self.wrong(field, "a text", value)
        return value

    def whole(self, field: str, default: int | None = None) -> int:
        value = self.fields.get(field, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(field, "a whole number", value)
        return value

    def numbers(self, field: str, values: object) -> Floats:
        if not isinstance(values, list):
            raise self.wrong(field, "a list of numbers", values)
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(field, "a list of numbers", values) from None
        if array.ndim != 1 or not np.isfinite(array).all():
            raise self.wrong(field, "a flat list of finite numbers", values)
        return array


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(path: Path, key: str, entries: list[Any], read: Any) -> list[Any]:
    """Every entry of a list read, and no id twice."""
    result: dict[int | str, Any] = {}
    for number, fields in enumerate(entries):
        entry = _Entry(path, key, number, fields)
        item = read(entry)
        if item.id in result:
            raise entry.wrong("id", "every id once", f"{item.id} again")
        result[item.id] = item
    return list(result.values())


def _picture(entry: _Entry) -> Picture:
    height, width = entry.whole("height"), entry.whole("width")
    if height < 1 or width < 1:
        raise entry.wrong("height, width", "1 or more", (height, width))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise entry.wrong(
            "height, width", f"at most {limit} pixels (PIL.Image.MAX_IMAGE_PIXELS)", (height, width)
        )
    url = entry.text("coco_url") if "coco_url" in entry.fields else ""
    # LVIS v1 has addresses only.
    name = url.rsplit("/", 1)[-1] if url and "file_name" not in entry.fields else entry.text("file_name")
    return Picture(entry.id(), name, height, width, url)


def _category(entry: _Entry) -> Category:
    supercategory = entry.fields.get("supercategory")
    synset = entry.fields.get("synset")
    return Category(
        entry.whole("id"),
        entry.text("name"),
        supercategory if isinstance(supercategory, str) else None,
        synset if isinstance(synset, str) else None,
    )


def _annotation(
    entry: _Entry, pictures: dict[int | str, Picture], categories: dict[int, Category]
) -> Annotation:
    image_id, category_id = entry.id("image_id"), entry.whole("category_id")
    if image_id not in pictures:
        raise entry.wrong("image_id", 'an id from "images"', image_id)
    if category_id not in categories:
        raise entry.wrong("category_id", 'an id from "categories"', category_id)
    crowd = entry.whole("iscrowd", default=0)
    if crowd not in (0, 1):
        raise entry.wrong("iscrowd", "0 or 1", crowd)
    box = entry.numbers("bbox", entry.fields.get("bbox"))
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise entry.wrong("bbox", "[x, y, width, height]", entry.fields.get("bbox"))
    shape = _shape(entry, pictures[image_id])
    area = entry.fields.get("area")
    if area is None:
        area = shape.area
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not math.isfinite(area) or area < 0:
        raise entry.wrong("area", "a number, 0 or more", area)
    corners = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    return Annotation(entry.id(), image_id, category_id, corners, shape, float(area), bool(crowd))


def _shape(entry: _Entry, picture: Picture) -> Shape:
    value = entry.fields.get("segmentation")
    if isinstance(value, dict):
        return _run_lengths(entry, value, picture)
    if isinstance(value, list) and value:
        if len(value) > MOST_POLYGONS:
            raise entry.wrong("segmentation", f"at most {MOST_POLYGONS} polygons", f"{len(value)} polygons")
        return Polygons(tuple(_ring(entry, ring, picture) for ring in value))
    raise entry.wrong(
        "segmentation", "polygons [[x, y, x, y, ...], ...] or run lengths {size, counts}", value
    )


def _ring(entry: _Entry, values: object, picture: Picture) -> Floats:
    ring = entry.numbers("segmentation", values)
    if len(ring) % 2 or len(ring) < 6:
        raise entry.wrong("segmentation", "polygons of three or more x, y pairs", f"{len(ring)} numbers")
    ring = ring.reshape(-1, 2)
    size = np.array([picture.width, picture.height])
    if (ring < -size).any() or (ring > 2 * size).any():
        raise entry.wrong("segmentation", f"polygons near the {size[0]}x{size[1]} picture", ring.tolist())
    # The COCO API walks along the outline in steps of a fifth of a pixel and keeps each one in memory.
    # Within the limits above, 300 corners cannot make it long.
    path = np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() if len(ring) > 300 else 0.0
    if path > 1000 * size.sum():
        raise entry.wrong("segmentation", "an outline", f"a path {path:.0f} pixels long")
    return ring


def _run_lengths(entry: _Entry, value: dict[str, Any], picture: Picture) -> RunLengths:
    size, counts = value.get("size"), value.get("counts")
    if size != [picture.height, picture.width]:
        raise entry.wrong("segmentation.size", f"[{picture.height}, {picture.width}] as its picture", size)
    if isinstance(counts, str):
        try:
            runs = decode_counts(counts)
        except ValueError as error:
            raise entry.wrong("segmentation.counts", "run lengths", str(error)) from error
    else:
        runs = entry.numbers("segmentation.counts", counts).astype(np.int64)
    # No run may pass the whole, or a sum of huge ones could wrap round to the right total.
    total = picture.height * picture.width
    if len(runs) == 0 or runs.min() < 0 or runs.max() > total or runs.sum() != total:
        raise entry.wrong("segmentation.counts", f"runs that add up to {total} pixels", counts)
    return RunLengths(runs, (picture.height, picture.width))
