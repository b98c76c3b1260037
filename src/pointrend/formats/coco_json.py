"""COCO (and LVIS) annotation files, read and validated.

Every fault is named by file, record, id and field. A fault whose meaning is certain (`iscrowd: false`, numbers written
as text, a two-point ring beside a good one) is read as it is meant, with a warning; any other is a `ValueError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

import numpy as np

from pointrend.formats.records import (
    MAX_PIXELS,
    Annotation,
    Category,
    CocoFile,
    Fault,
    Floats,
    Id,
    ImageRecord,
    Inspection,
    PointLabels,
    Shape,
    brief,
    checked,
    extent_of,
    parse_points,
)
from pointrend.io import read_json
from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import RunLengths, checked_runs

__all__ = ["inspect_coco", "read_coco"]

MAX_POLYGONS = 10_000
"""Of one object; each takes as much memory as the image has columns while it is drawn."""
MAX_OUTLINE = 1000
"""Times (height + width). The COCO API walks along an outline in steps of a fifth of a pixel and keeps each one."""


def read_coco(
    source: str | Path | Mapping[str, object], *, masks: bool = True, file_names: bool = False
) -> CocoFile:
    """The checked content of a COCO (or LVIS) instances file.

    Args:
        source: a file, or its content (which is left as it is).
        masks: whether every annotation must have a segmentation, or labelled points.
        file_names: whether every image must have a file name (or an address).

    Raises:
        ValueError: for anything malformed, naming file, record, id and field of the first fault.
    """
    return checked(inspect_coco(source, masks=masks, file_names=file_names))


def inspect_coco(
    source: str | Path | BinaryIO | Mapping[str, object],
    *,
    masks: bool = True,
    file_names: bool = False,
    name: str | None = None,
) -> Inspection:
    """As `read_coco`, but with every fault instead of an error for the first; `name` of the source, for messages.

    Raises:
        ValueError: the file is no JSON object with lists "images", "annotations" and "categories".
    """
    if name is None:
        name = "annotations" if isinstance(source, Mapping) else str(source)
    content: Any = source if isinstance(source, Mapping) else read_json(source)
    if not isinstance(content, Mapping):
        raise ValueError(f'{name}: expected an object with "images", "annotations" and "categories"')
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list | tuple):
            raise ValueError(f"{name}, {key}: expected a list, got {brief(content.get(key))}")
    faults: list[Fault] = []
    images = _List("images", content["images"], lambda record: _image(record, file_names), faults)
    categories = _List("categories", content["categories"], _category, faults)
    annotations = _List(
        "annotations",
        content["annotations"],
        lambda record: _annotation(record, images, categories, masks),
        faults,
        renumber=True,
    )
    _check_point_counts(annotations)
    objects: dict[Id, list[Annotation]] = {number: [] for number in images.found}
    for item in annotations.found.values():
        objects[item.image_id].append(item)
    file = CocoFile(name, _in_order(images.found), _in_order(categories.found), objects)
    lists = {"images": images.mended, "annotations": annotations.mended, "categories": categories.mended}
    return Inspection(file, faults, {**content, **lists})


K = TypeVar("K", bound=Id)
V = TypeVar("V")


def _in_order(found: dict[K, V]) -> dict[K, V]:
    """By id, numbers before texts."""
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


class _HasId(Protocol):
    @property
    def id(self) -> Id: ...


T = TypeVar("T", bound=_HasId)


class _List(Generic[T]):
    """Every readable entry of a list in the file by its id, and the mended entries as the file has them.

    Args:
        renumber: nothing refers to these ids: a missing or repeated one is replaced.
    """

    def __init__(
        self,
        key: str,
        entries: Sequence[object],
        read: Callable[[_Record], T],
        faults: list[Fault],
        *,
        renumber: bool = False,
    ) -> None:
        self.faults = faults
        self.found: dict[Any, T] = {}
        self.refused: set[Id] = set()
        self.mended: list[object] = []
        fresh = self._fresh_ids(entries) if renumber else None
        for number, fields in enumerate(entries):
            self.mended.append(fields)
            try:
                record = _Record(key, number, fields, faults)
                self._check_id(record, fresh)
                item = read(record)
            except _FaultError as error:
                faults.append(error.fault)
                own = fields.get("id") if isinstance(fields, Mapping) else None
                self.refused.update([own] if isinstance(own, int | str) else [])
                continue
            except _BelongsToFaultyError:
                continue
            self.found[item.id] = item
            self.mended[-1] = record.fields

    @staticmethod
    def _fresh_ids(entries: Sequence[object]) -> Iterator[int]:
        ids = (entry.get("id") for entry in entries if isinstance(entry, Mapping))
        return count(1 + max((one for one in ids if type(one) is int), default=0))

    def _check_id(self, record: _Record, fresh: Iterator[int] | None) -> None:
        known = record.fields.get("id")
        repeated = isinstance(known, int | str) and known in self.found
        if fresh is not None and (known is None or repeated):
            kind = "duplicate id" if repeated else "missing id"
            record.mend(kind, "id", next(fresh), f"{brief(known)}; another number was given")
        elif repeated:
            place = f"{record.place}, id"
            raise _FaultError(
                Fault("duplicate id", place, f"expected every id once, got {brief(known)} again")
            )


class _BelongsToFaultyError(ValueError):
    """An object of an image or category that is refused already: no fault of its own."""


class _FaultError(ValueError):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Record:
    """One entry of a list: its fields by type, and how to complain about them."""

    def __init__(self, key: str, number: int, fields: object, faults: list[Fault]) -> None:
        self.place, self.faults = f"{key}[{number}]", faults
        if not isinstance(fields, Mapping):
            raise _FaultError(Fault("no record", self.place, f"expected an object, got {brief(fields)}"))
        self.fields: dict[str, object] = dict(fields)
        if "id" in fields:
            self.place += f" (id {brief(fields['id'])})"

    def wrong(
        self, field: str, expected: str, got: object, kind: str = "missing or wrong field"
    ) -> _FaultError:
        return _FaultError(Fault(kind, f"{self.place}, {field}", f"expected {expected}, got {brief(got)}"))

    def mend(self, kind: str, field: str, value: object, text: str) -> None:
        """Take `value` for the field, and note the fault."""
        self.fields[field] = value
        self.note(kind, field, text)

    def note(self, kind: str, field: str, text: str) -> None:
        """Note a fault that is read as it is meant."""
        self.faults.append(Fault(kind, f"{self.place}, {field}", text, repairable=True))

    def id(self, field: str = "id") -> Id:
        value = self.fields.get(field)
        if isinstance(value, str) and value:
            return value
        return self.integer(field)

    def text(self, field: str) -> str:
        value = self.fields.get(field)
        if type(value) is int:
            self.mend("number for a text", field, str(value), f"{value} is a number")
            value = self.fields[field]
        if not isinstance(value, str) or not value:
            raise self.wrong(field, "a text", value)
        return value

    def optional_text(self, field: str) -> str | None:
        value = self.fields.get(field)
        return value if isinstance(value, str) else None

    def number(self, field: str, expected: str = "a number") -> float:
        value = self.fields.get(field)
        if isinstance(value, str):
            try:
                meant = float(value)
            except ValueError:
                raise self.wrong(field, expected, value) from None
            value = int(meant) if meant.is_integer() else meant
            self.mend("text for a number", field, value, f"{brief(self.fields[field])} is a text")
        if isinstance(value, np.integer | np.floating):
            value = value.item()
        # Not math.isfinite: it fails on JSON's endless integers.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
            raise self.wrong(field, expected, value)
        return value

    def integer(self, field: str) -> int:
        value = self.number(field, "a whole number")
        if value != int(value):
            raise self.wrong(field, "a whole number", value)
        return int(value)

    def numbers(self, field: str, values: object) -> Floats:
        """A flat list of finite numbers; of pairs or texts where these are certain."""
        try:
            array = np.array(values)
        except (ValueError, OverflowError):  # of different lengths
            array = np.array(None)
        if array.dtype.kind == "U" and isinstance(values, list):
            with suppress(ValueError):
                array = array.astype(np.float64)
                self.note("text for a number", field, brief(values))
        if array.ndim == 2 and array.shape[1] == 2 and len(array) > 2:
            self.note("pairs for a flat list", field, brief(values))
            array = array.ravel()
        if (
            not isinstance(values, list | tuple)
            or array.ndim != 1
            or (array.size and array.dtype.kind not in "iuf")
        ):
            raise self.wrong(field, "a list of numbers", values)
        if not np.isfinite(array.astype(np.float64)).all():
            raise self.wrong(field, "a flat list of finite numbers", values)
        return array.astype(np.float64)


def _image(record: _Record, file_names: bool) -> ImageRecord:
    height, width = record.integer("height"), record.integer("width")
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise record.wrong("height, width", f"1 to {MAX_PIXELS} pixels in all", (height, width), "image size")
    url = record.optional_text("coco_url") or ""
    name = record.optional_text("file_name")
    if name is None and url:  # LVIS v1 has addresses only
        name = url.rsplit("/", 1)[-1]
    if file_names and not name:
        name = record.text("file_name")
    lists = (_ids(record, key) for key in ("neg_category_ids", "not_exhaustive_category_ids"))
    return ImageRecord(record.id(), name or "", height, width, url, *lists)


def _ids(record: _Record, field: str) -> tuple[int, ...] | None:
    value = record.fields.get(field)
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        return None
    return tuple(value)


def _category(record: _Record) -> Category:
    texts = (record.optional_text(key) for key in ("supercategory", "synset", "frequency"))
    return Category(record.integer("id"), record.text("name"), *texts)


def _annotation(
    record: _Record, images: _List[ImageRecord], categories: _List[Category], masks: bool
) -> Annotation:
    own = record.id()
    image_id, category_id = record.fields.get("image_id"), record.fields.get("category_id")
    if _among(image_id, images.refused) or _among(category_id, categories.refused):
        raise _BelongsToFaultyError
    if isinstance(image_id, str) and image_id not in images.found and image_id.isdecimal():
        record.integer("image_id")  # a text for a number
    elif type(image_id) is int and image_id not in images.found and str(image_id) in images.found:
        record.mend(
            "number for a text", "image_id", str(image_id), f"{image_id} is a number, the image's id a text"
        )
    image_id, category_id = record.id("image_id"), record.integer("category_id")
    if image_id not in images.found:
        raise record.wrong("image_id", 'an id from "images"', image_id, "unknown image")
    if category_id not in categories.found:
        raise record.wrong("category_id", 'an id from "categories"', category_id, "unknown category")
    crowd = record.fields.get("iscrowd")
    if isinstance(crowd, bool):
        record.mend("true or false for iscrowd", "iscrowd", int(crowd), f"{crowd} is no number")
    crowd = 0 if crowd is None else record.integer("iscrowd")
    if crowd not in (0, 1):
        raise record.wrong("iscrowd", "0 or 1", crowd)
    points = _points(record, images.found[image_id])
    with_mask = masks and (points is None or record.fields.get("segmentation") is not None)
    shape = _shape(record, images.found[image_id]) if with_mask else None
    bbox = _box(record, shape)
    area = record.fields.get("area")
    if area is None:
        area = shape.area if shape is not None else float(bbox[2] * bbox[3])
    elif (area := record.number("area")) < 0:
        raise record.wrong("area", "a number, 0 or more", area)
    return Annotation(own, image_id, category_id, bbox, shape, float(area), bool(crowd), points)


def _points(record: _Record, image: ImageRecord) -> PointLabels | None:
    coords, labels = (record.fields.get(field) for field in ("point_coords", "point_labels"))
    if coords is None and labels is None:
        return None
    try:
        return parse_points(coords, labels, image.size)
    except ValueError as error:
        raise _FaultError(Fault("labelled points", record.place, str(error))) from error


def _check_point_counts(annotations: _List[Annotation]) -> None:
    """Objects are learnt from together, so all but crowds have as many points: a fault for each that has not."""
    items = [item for item in annotations.found.values() if item.points is not None or not item.crowd]
    counts = {item.id: 0 if item.points is None else len(item.points) for item in items}
    usual = Counter(counts.values()).most_common(1)[0][0] if any(counts.values()) else 0
    for item in items:
        if counts[item.id] != usual:
            text = (
                f"expected {usual} labelled points, as most of the file's objects have, got {counts[item.id]}"
            )
            place = f"annotations (id {brief(item.id)}), point_labels"
            annotations.faults.append(Fault("labelled points", place, text))
            del annotations.found[item.id]


def _among(value: object, ids: set[Id]) -> bool:
    return isinstance(value, int | str) and value in ids


def _box(record: _Record, shape: Shape | None) -> Floats:
    value = record.fields.get("bbox")
    if value is None and shape is not None:
        x1, y1, x2, y2 = extent_of(shape)
        record.mend("missing box", "bbox", [x1, y1, x2 - x1, y2 - y1], "taken from the segmentation")
        value = record.fields["bbox"]
    before = len(record.faults)
    box = record.numbers("bbox", value)
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise record.wrong("bbox", "[x, y, width, height]", value)
    if len(record.faults) > before:
        record.fields["bbox"] = box.tolist()
    return box


def _shape(record: _Record, image: ImageRecord) -> Shape:
    value = record.fields.get("segmentation")
    if isinstance(value, Mapping):
        return _run_lengths(record, value, image)
    if not isinstance(value, list | tuple) or not value:
        expected = "polygons [[x, y, x, y, ...], ...] or run lengths {size, counts}"
        raise record.wrong("segmentation", expected, value, "missing mask")
    if len(value) > MAX_POLYGONS and isinstance(value[0], list):
        raise record.wrong(
            "segmentation",
            f"at most {MAX_POLYGONS} polygons",
            len(value),
        )
    meant: Sequence[object] = value
    if len(value) >= 3 and all(isinstance(one, list) and len(one) == 2 for one in value):
        meant = [value]  # the pairs of one polygon, and noted as that
    if len(value) >= 6 and not any(isinstance(one, list | tuple | Mapping) for one in value):
        record.mend("flat polygon", "segmentation", [value], "a list of lists of numbers is meant")
        meant = [value]
    before = len(record.faults)
    rings = [record.numbers("segmentation", ring) for ring in meant]
    good = [ring for ring in rings if len(ring) >= 6]
    odd = any(len(ring) % 2 for ring in rings)
    if odd or not good:
        lengths = ", ".join(str(len(ring)) for ring in rings[:4])
        raise record.wrong(
            "segmentation",
            "polygons of three or more x, y pairs",
            f"{lengths} numbers",
            "odd polygon" if odd else "polygon of fewer than three points",
        )
    if len(good) < len(rings):
        text = f"{len(rings) - len(good)} of {len(rings)} polygons have fewer than three points; left out"
        record.mend("two-point polygon beside a good one", "segmentation", None, text)
    if len(record.faults) > before:
        record.fields["segmentation"] = [ring.tolist() for ring in good]
    return Polygons(tuple(_ring(record, ring.reshape(-1, 2), image) for ring in good))


def _ring(record: _Record, ring: Floats, image: ImageRecord) -> Floats:
    reach = 2 * max(image.size)
    if np.abs(ring).max() > reach:
        near = f"polygons near the {image.width}x{image.height} image"
        raise record.wrong("segmentation", near, ring.tolist(), "object far outside")
    # Within the limit above, 100 corners cannot make the outline long.
    path = np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() if len(ring) > 100 else 0.0
    if path > MAX_OUTLINE * sum(image.size):
        raise record.wrong("segmentation", "an outline", f"a path {path:.0f} pixels long")
    return ring


def _run_lengths(record: _Record, value: Mapping[str, object], image: ImageRecord) -> RunLengths:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list | tuple) or tuple(size) != image.size:
        own = f"{list(image.size)} as its image"
        raise record.wrong("segmentation.size", own, size, "mask of another size")
    if not isinstance(counts, str | bytes | list | tuple):
        raise record.wrong("segmentation.counts", "run lengths", counts)
    try:
        return RunLengths(checked_runs(counts, image.size), image.size)
    except (ValueError, OverflowError) as error:
        raise _FaultError(
            Fault("broken run lengths", f"{record.place}, segmentation.counts", str(error))
        ) from error
