"""A COCO annotation file, read and checked: nothing malformed gets past this page.

Every complaint is a `ValueError` that names the file, the annotation's or image's id and the field.
"""

from __future__ import annotations

import json
import math
import operator
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

from pointrend.data.annotations import Floats, Polygons, RunLengths, decode_counts
from pointrend.masks.rle import UNSURE, measure, rle_runs

Shape = Polygons | RunLengths
MOST_POLYGONS = 10_000  # of one object; each takes as much memory as the image has columns while it is drawn


@dataclass(frozen=True)
class ImageRecord:
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
    """One object: `box` is (x1, y1, x2, y2), everything in pixels of its image."""

    id: int | str
    image_id: int | str
    category_id: int
    box: Floats
    shape: Shape
    area: float
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """Images and categories by id, in the order of their ids, and each image's objects in the file's
    order."""

    path: Path
    images: dict[int | str, ImageRecord]
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
    images = {image.id: image for image in _unique(path, "images", content["images"], _image)}
    categories = {
        category.id: category for category in _unique(path, "categories", content["categories"], _category)
    }
    if not categories:
        raise ValueError(f"{path}, categories: expected at least one category, got none")
    objects: dict[int | str, list[Annotation]] = {number: [] for number in images}

    def annotation(entry: _Entry) -> Annotation:
        return _annotation(entry, images, categories)

    for item in _unique(path, "annotations", content["annotations"], annotation):
        objects[item.image_id].append(item)
    return CocoFile(
        path,
        dict(sorted(images.items(), key=_numbers_first)),
        dict(sorted(categories.items(), key=_numbers_first)),
        objects,
    )


def _numbers_first(item: tuple[int | str, object]) -> tuple[bool, int | str]:
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


def _image(entry: _Entry) -> ImageRecord:
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
    return ImageRecord(entry.id(), name, height, width, url)


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
    entry: _Entry, images: dict[int | str, ImageRecord], categories: dict[int, Category]
) -> Annotation:
    image_id, category_id = entry.id("image_id"), entry.whole("category_id")
    if image_id not in images:
        raise entry.wrong("image_id", 'an id from "images"', image_id)
    if category_id not in categories:
        raise entry.wrong("category_id", 'an id from "categories"', category_id)
    crowd = entry.whole("iscrowd", default=0)
    if crowd not in (0, 1):
        raise entry.wrong("iscrowd", "0 or 1", crowd)
    box = entry.numbers("bbox", entry.fields.get("bbox"))
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise entry.wrong("bbox", "[x, y, width, height]", entry.fields.get("bbox"))
    shape = _shape(entry, images[image_id])
    area = entry.fields.get("area")
    if area is None:
        area = shape.area
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not math.isfinite(area) or area < 0:
        raise entry.wrong("area", "a number, 0 or more", area)
    corners = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    return Annotation(entry.id(), image_id, category_id, corners, shape, float(area), bool(crowd))


def _shape(entry: _Entry, image: ImageRecord) -> Shape:
    value = entry.fields.get("segmentation")
    if isinstance(value, dict):
        return _run_lengths(entry, value, image)
    if isinstance(value, list) and value:
        if len(value) > MOST_POLYGONS:
            raise entry.wrong("segmentation", f"at most {MOST_POLYGONS} polygons", f"{len(value)} polygons")
        return Polygons(tuple(_ring(entry, ring, image) for ring in value))
    raise entry.wrong(
        "segmentation", "polygons [[x, y, x, y, ...], ...] or run lengths {size, counts}", value
    )


def _ring(entry: _Entry, values: object, image: ImageRecord) -> Floats:
    ring = entry.numbers("segmentation", values)
    if len(ring) % 2 or len(ring) < 6:
        raise entry.wrong("segmentation", "polygons of three or more x, y pairs", f"{len(ring)} numbers")
    ring = ring.reshape(-1, 2)
    size = np.array([image.width, image.height])
    if (ring < -size).any() or (ring > 2 * size).any():
        raise entry.wrong("segmentation", f"polygons near the {size[0]}x{size[1]} image", ring.tolist())
    # The COCO API walks along the outline in steps of a fifth of a pixel and keeps each one in memory.
    # Within the limits above, 300 corners cannot make it long.
    path = np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() if len(ring) > 300 else 0.0
    if path > 1000 * size.sum():
        raise entry.wrong("segmentation", "an outline", f"a path {path:.0f} pixels long")
    return ring


def _run_lengths(entry: _Entry, value: dict[str, Any], image: ImageRecord) -> RunLengths:
    size, counts = value.get("size"), value.get("counts")
    if size != [image.height, image.width]:
        raise entry.wrong("segmentation.size", f"[{image.height}, {image.width}] as its image", size)
    if isinstance(counts, str):
        try:
            runs = decode_counts(counts)
        except ValueError as error:
            raise entry.wrong("segmentation.counts", "run lengths", str(error)) from error
    else:
        runs = entry.numbers("segmentation.counts", counts).astype(np.int64)
    # No run may pass the whole, or a sum of huge ones could wrap round to the right total.
    total = image.height * image.width
    if len(runs) == 0 or runs.min() < 0 or runs.max() > total or runs.sum() != total:
        raise entry.wrong("segmentation.counts", f"runs that add up to {total} pixels", counts)
    return RunLengths(runs, (image.height, image.width))


# The rasterizer keeps five points for every pixel along an outline; real ones are a few times as long as the image.
MAX_POLYGONS = 10_000  # of one object
MAX_OUTLINE = 1000  # times (height + width)


def checked_mask(where: object, mask: Any, size: tuple[int, int]) -> Any:
    """An annotation's polygons as they are, or its RLE as :func:`checked_rle` gives it."""
    if not isinstance(mask, Sequence) or isinstance(mask, str):
        return checked_rle(where, mask, size)[0]
    if len(mask) > MAX_POLYGONS:
        raise ValueError(f"{where}: segmentation: expected at most {MAX_POLYGONS} polygons, got {len(mask)}")
    reach = 2 * max(size)  # the rasterizer's memory grows with the length of the outline
    for polygon in mask:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            points = np.full(1, np.nan)
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
            raise ValueError(
                f"{where}: segmentation: expected polygons x1, y1, x2, y2, x3, y3, ..., got {brief(polygon)}"
            )
        if abs(points).max() > reach:
            raise ValueError(
                f"{where}: segmentation: a point at {abs(points).max():.0f} is far outside of {size}"
            )
        corners = points.reshape(-1, 2)
        path = float(np.abs(np.diff(corners, axis=0, append=corners[:1])).sum())
        if path > MAX_OUTLINE * sum(size):
            raise ValueError(f"{where}: segmentation: expected an outline, got a path {path:.0f} pixels long")
    if not mask:
        raise ValueError(f"{where}: segmentation: expected at least one polygon, got none")
    return mask


def checked_rle(
    where: object, mask: Any, size: tuple[int, int], total: int = UNSURE, area: int = UNSURE
) -> tuple[dict[str, Any], int]:
    """The mask and its area, both of which are known already where its `total` is the image's."""
    if not isinstance(mask, Mapping) or "counts" not in mask or "size" not in mask:
        raise ValueError(f"{where}: segmentation: expected an RLE {{size, counts}}, got {brief(mask)}")
    if not isinstance(mask["size"], Sequence) or tuple(mask["size"]) != size:
        raise ValueError(
            f"{where}: segmentation: size: expected the image's (height, width) {size},"
            f" got {brief(mask['size'])}"
        )
    counts, pixels = mask["counts"], size[0] * size[1]
    if total == pixels:
        return {"size": list(size), "counts": counts}, area
    try:
        runs = rle_runs(counts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: segmentation: counts: malformed RLE, {error}") from error
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise ValueError(
            f"{where}: segmentation: counts: malformed RLE, expected runs of 0 or more that add up to"
            f" {pixels} pixels, got {brief(runs.tolist())}"
        )
    fresh = {"size": list(size), "counts": counts}
    if not isinstance(counts, str | bytes):  # the scorer takes lists of runs as crowds only
        fresh = rle.frPyObjects({**fresh, "counts": runs.tolist()}, *size)
    return fresh, int(runs[1::2].sum())


def checked_box(where: object, box: Any) -> list[float]:
    """x, y, width and height in pixels, wherever in or out of the image."""
    if not isinstance(box, Sequence) or isinstance(box, str) or len(box) != 4:
        raise ValueError(f"{where}: bbox: expected x, y, width, height, got {brief(box)}")
    x, y, width, height = (finite_number(where, "bbox", value) for value in box)
    if width < 0 or height < 0:
        raise ValueError(f"{where}: bbox: expected a width and height of at least 0, got {brief(box)}")
    return [x, y, width, height]


def known_id(where: object, field: str, value: Any, ids: Mapping[Any, Any], source: str) -> Any:
    """The id, as one of `ids`, which are those of `source`."""
    if type(value) is int and value in ids:
        return value
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in ids:
        raise ValueError(f"{where}: {field}: {brief(value)} is not in {source}")
    return value


def finite_number(where: object, field: str, value: Any) -> float:
    """A number that neither JSON's NaN nor its endless integers are."""
    if type(value) is float and abs(value) <= 1e300:
        return value
    plain = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    # False for NaN too; math.isfinite fails on JSON's endless integers.
    if not plain or not abs(value) <= 1e300:
        raise ValueError(f"{where}: {field}: expected a finite number, got {brief(value)}")
    return float(value)


def whole_number(where: object, field: str, value: Any) -> int:
    """An integer of any library, no fraction."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{where}: {field}: expected a whole number, got {brief(value)}") from None


def brief(value: Any) -> str:
    """The value for a message: what is long is cut and what is deeply nested, however deeply, is left out."""
    text = _SHORTENED.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_SHORTENED = reprlib.Repr()
_SHORTENED.maxlevel, _SHORTENED.maxstring, _SHORTENED.maxother = 3, 60, 60
_SHORTENED.maxlist = _SHORTENED.maxtuple = _SHORTENED.maxdict = 8


# A COCO image has 0.3 million pixels, a Cityscapes one 2 million; beyond this, one mask takes over 256 MB.
MAX_PIXELS = 2**28
AT_ONCE = 4096  # records looked at together


@dataclass(frozen=True)
class GroundTruth:
    """A COCO-format data set, checked.

    Attributes:
        source: file name (or "ground truth") for messages.
        images: image id -> its record, sorted by id; `height` and `width` in pixels.
        categories: category id -> its record, sorted by id.
        annotations: fresh records with `id` counted from 1 (the scorer takes 0 for "no match"), `image_id`,
            `category_id`, `bbox` (x, y, width, height) in pixels, `area` in pixels, `iscrowd`, and
            `segmentation` if there is one.
    """

    source: str
    images: dict[int | str, dict[str, Any]]
    categories: dict[int, dict[str, Any]]
    annotations: list[dict[str, Any]]

    def size(self, image_id: int | str) -> tuple[int, int]:
        """(height, width) of an image."""
        record = self.images[image_id]
        return record["height"], record["width"]


def read_json(path: str | Path) -> Any:
    """The file's content; ValueError naming the file if it cannot be read as JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both ValueErrors
        raise ValueError(f"{path}: expected a JSON file, {error}") from error


def read_ground_truth(source: str | Path | Mapping[str, Any], *, masks: bool = True) -> GroundTruth:
    """Read and check a COCO- or LVIS-format data set.

    Args:
        source: a file, or its content (which is left as it is).
        masks: whether every annotation must have a mask (polygons or RLE).

    Raises:
        ValueError: naming file, record and field, for unknown or duplicated ids, sizes, boxes and masks that
            do not fit.
    """
    name = "ground truth" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_json(source)
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: expected an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), Sequence) or isinstance(content.get(key), str):
            raise ValueError(f"{name}: {key}: expected a list, got {type(content.get(key)).__name__}")
    images = _by_id(name, "image", content["images"], number=False)
    for image_id, image in images.items():
        where = f"{name}: image {brief(image_id)}"
        size = [whole_number(where, key, image.get(key)) for key in ("height", "width")]
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"{where}: height, width: expected 1 to {MAX_PIXELS} pixels in all, got {size}")
    categories = _by_id(name, "category", content["categories"], number=True)
    annotations = _by_id(name, "annotation", content["annotations"], number=False, sort=False)
    truth = GroundTruth(name, images, categories, [])
    for number, (annotation_id, annotation) in enumerate(annotations.items(), 1):
        where = f"{name}: annotation {brief(annotation_id)}"
        truth.annotations.append({**_checked_annotation(where, annotation, truth, masks), "id": number})
    return truth


def check_records(
    records: Iterable[Mapping[str, Any]],
    truth: GroundTruth,
    *,
    source: str = "predictions",
    boxes: bool = True,
    masks: bool = True,
    other_categories: Collection[int] = (),
    other_images: Collection[int | str] = (),
    numbers: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Check COCO-format detections against the data set they claim to belong to; fresh records come back.

    Args:
        records: `image_id`, `category_id`, `score`, and `bbox` (x, y, width, height) and/or `segmentation`
            (RLE).
        truth: the data set.
        source: file name for messages.
        boxes: whether boxes will be scored (a record with a mask needs none).
        masks: whether masks will be scored.
        other_categories: ids that records may have though the data set has no such category; of these nothing but
            ids and score is looked at and kept.
        other_images: the same for images; these are left out.
        numbers: of the records in their file, for messages; counted from 0 if not given.

    Raises:
        ValueError: naming file, record and field.
    """
    checked: list[dict[str, Any]] = []
    seen: set[object] = set()
    numbered = zip(count() if numbers is None else numbers, records, strict=False)
    while batch := list(islice(numbered, AT_ONCE)):
        for (number, record), measured in zip(batch, _measured(batch), strict=True):
            where = _Place(source, number)
            if not isinstance(record, Mapping):
                raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
            if isinstance(record.get("image_id"), int | str) and record["image_id"] in other_images:
                continue
            image_id = known_id(where, "image_id", record.get("image_id"), truth.images, truth.source)
            where.image_id = image_id
            own = record.get("id")
            if own is not None:  # ids of detections are optional, but must not repeat where given
                if not isinstance(own, int | str) or own in seen:
                    raise ValueError(f"{where}: id: {brief(own)} appears twice or is no id")
                seen.add(own)
            category_id = record.get("category_id")
            other = isinstance(category_id, int) and category_id in other_categories
            if not other:
                category_id = known_id(where, "category_id", category_id, truth.categories, truth.source)
            score = finite_number(
                where, "score", record.get("score")
            )  # only their order counts: logits are fine
            fresh: dict[str, Any] = {"image_id": image_id, "category_id": category_id, "score": score}
            checked.append(fresh)
            if other:
                continue
            if record.get("segmentation") is not None:
                size = truth.size(image_id)
                fresh["segmentation"], fresh["area"] = checked_rle(
                    where, record["segmentation"], size, *measured
                )
            elif masks:
                raise ValueError(f"{where}: segmentation: missing; score boxes only, or predict masks")
            if record.get("bbox") is not None:
                fresh["bbox"] = checked_box(where, record["bbox"])
            elif boxes and "segmentation" not in fresh:
                raise ValueError(f"{where}: bbox: missing")
    return checked


def consumed(records: list[Any]) -> Iterator[Any]:
    """The records one by one, each let go when the next one is asked for; the list is empty afterwards."""
    records.reverse()
    while records:
        yield records.pop()


class _Place:
    """Which record of which file, spelled out only if something is wrong with it."""

    __slots__ = ("image_id", "number", "source")

    def __init__(self, source: str, number: int) -> None:
        self.source, self.number = source, number
        self.image_id: int | str | None = None

    def __str__(self) -> str:
        known = "" if self.image_id is None else f" (image_id {brief(self.image_id)})"
        return f"{self.source}: record {self.number}{known}"


def _measured(batch: Sequence[tuple[int, Any]]) -> list[tuple[int, int]]:
    """Pixels in all and inside of each record's mask, as far as `run_lengths.measure` can tell."""
    texts: list[str | bytes] = []
    for _, record in batch:
        mask = record.get("segmentation") if isinstance(record, Mapping) else None
        counts = mask.get("counts") if isinstance(mask, Mapping) else None
        texts.append(counts if isinstance(counts, str | bytes) else "")
    totals, areas = measure(texts)
    return list(zip(totals.tolist(), areas.tolist(), strict=True))


def _by_id(
    name: str, kind: str, records: Iterable[Any], *, number: bool, sort: bool = True
) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise ValueError(
                f"{name}: {kind} number {index}: expected an object, got {type(record).__name__}"
            )
        key = record.get("id")
        if isinstance(key, bool) or not isinstance(key, int if number else int | str):
            raise ValueError(f"{name}: {kind} number {index}: id: expected a whole number, got {brief(key)}")
        if key in found:
            raise ValueError(f"{name}: {kind} {brief(key)}: id: appears twice")
        found[key] = dict(record)
    if sort and len({type(key) for key in found}) > 1:
        raise ValueError(f"{name}: {kind}: id: expected all numbers or all strings, got both")
    return dict(sorted(found.items())) if sort else found


def _checked_annotation(
    where: str, annotation: Mapping[str, Any], truth: GroundTruth, masks: bool
) -> dict[str, Any]:
    image_id = known_id(where, "image_id", annotation.get("image_id"), truth.images, truth.source)
    category_id = known_id(
        where, "category_id", annotation.get("category_id"), truth.categories, truth.source
    )
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{where}: iscrowd: expected 0 or 1, got {brief(crowd)}")
    fresh = {
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": int(crowd),
        "bbox": checked_box(where, annotation.get("bbox")),
        "area": finite_number(where, "area", annotation.get("area")),
    }
    if fresh["area"] < 0:
        raise ValueError(f"{where}: area: expected 0 or more, got {fresh['area']}")
    if masks:
        fresh["segmentation"] = checked_mask(where, annotation.get("segmentation"), truth.size(image_id))
    return fresh
