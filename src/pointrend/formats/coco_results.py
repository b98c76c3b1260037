"""COCO results: detections as records, checked against the images and categories they claim to belong to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeGuard, TypeVar

import numpy as np

from pointrend.formats.records import CocoFile, Id, brief
from pointrend.masks.rle import FAULTY, CocoDetection, CocoMask, checked_runs, compress, measure

__all__ = ["KnownIds", "Records", "check_records", "consumed"]

Records = list[CocoDetection]
"""Detections in the format of COCO's results, as `InstanceResult.to_coco` gives them."""
T = TypeVar("T")
AT_ONCE = 4096
"""Records whose run lengths are decoded together."""


@dataclass(frozen=True)
class KnownIds:
    """The images and categories that detections may belong to."""

    source: str
    """File name, or "the data set", for messages."""
    sizes: Mapping[Id, tuple[int, int]]
    """(height, width) by image id."""
    categories: Collection[int]

    @classmethod
    def of(cls, file: CocoFile) -> KnownIds:
        """Those of an annotation file."""
        return cls(file.source, {image.id: image.size for image in file.images.values()}, file.categories)


def check_records(
    records: Iterable[object],
    truth: KnownIds,
    *,
    source: str = "predictions",
    boxes: bool = True,
    masks: bool = True,
    other_categories: Collection[int] = (),
    other_images: Collection[Id] = (),
    numbers: Sequence[int] | None = None,
) -> Records:
    """Check COCO-format detections against the data set they claim to belong to; fresh records come back.

    Args:
        records: `image_id`, `category_id`, `score`, and `bbox` (x, y, width, height) and/or `segmentation` (RLE).
        truth: what the data set has.
        source: file name for messages.
        boxes: whether boxes will be scored (a record with a mask needs none).
        masks: whether masks will be scored.
        other_categories: ids that records may have though the data set has no such category; of these nothing but
            ids and score is checked and returned.
        other_images: the same for images; these are left out.
        numbers: of the records in their file, for messages; counted from 0 if not given.

    Raises:
        ValueError: naming file, record and field.
    """
    checked: Records = []
    seen: set[Id] = set()
    numbered = zip(count() if numbers is None else numbers, records, strict=False)
    while batch := list(islice(numbered, AT_ONCE)):
        for (number, record), measured in zip(batch, _measured(batch), strict=True):
            where = _Place(source, number)
            if not isinstance(record, Mapping):
                raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
            if isinstance(record.get("image_id"), int | str) and record["image_id"] in other_images:
                continue
            image_id = _known_id(where, "image_id", record.get("image_id"), truth.sizes, truth.source)
            where.image_id = image_id
            own = record.get("id")
            if own is not None:  # ids of detections are optional, but must not repeat where given
                if not isinstance(own, int | str) or own in seen:
                    raise ValueError(f"{where}: id: {brief(own)} appears twice or is no id")
                seen.add(own)
            category = record.get("category_id")
            other = isinstance(category, int) and category in other_categories
            categories = other_categories if other else truth.categories
            category_id = _known_id(where, "category_id", category, categories, truth.source)
            # Only the order of scores counts: logits are fine.
            score = _finite(where, "score", record.get("score"))
            fresh: CocoDetection = {"image_id": image_id, "category_id": category_id, "score": score}
            checked.append(fresh)
            if other:
                continue
            if record.get("segmentation") is not None:
                mask = _mask(where, record["segmentation"], truth.sizes[image_id], *measured)
                fresh["segmentation"], fresh["area"] = mask
            elif masks:
                raise ValueError(f"{where}: segmentation: missing; score boxes only, or predict masks")
            if record.get("bbox") is not None:
                fresh["bbox"] = _box(where, record["bbox"])
            elif boxes and "segmentation" not in fresh:
                raise ValueError(f"{where}: bbox: missing")
    return checked


def consumed(records: list[T]) -> Iterator[T]:
    """The records one by one, each let go when the next one is asked for; the list is empty afterwards."""
    records.reverse()
    while records:
        yield records.pop()


class _Place:
    """Which record of which file, spelled out only if something is wrong with it."""

    __slots__ = ("image_id", "number", "source")

    def __init__(self, source: str, number: int) -> None:
        self.source, self.number = source, number
        self.image_id: Id | None = None

    def __str__(self) -> str:
        known = "" if self.image_id is None else f" (image_id {brief(self.image_id)})"
        return f"{self.source}: record {self.number}{known}"


def _measured(batch: Sequence[tuple[int, object]]) -> list[tuple[int, int]]:
    """Pixels in all and inside of each record's mask, where its run lengths are compressed and sound."""
    texts: list[str | bytes] = []
    for _, record in batch:
        mask = record.get("segmentation") if isinstance(record, Mapping) else None
        counts = mask.get("counts") if isinstance(mask, Mapping) else None
        texts.append(counts if isinstance(counts, str | bytes) else "")
    totals, areas = measure(texts)
    return list(zip(totals.tolist(), areas.tolist(), strict=True))


def _mask(
    where: _Place, mask: object, size: tuple[int, int], total: int = FAULTY, area: int = FAULTY
) -> tuple[CocoMask, int]:
    """The mask, compressed, and its area, both of which are known already where its `total` is the image's."""
    if not isinstance(mask, Mapping) or "counts" not in mask or "size" not in mask:
        raise ValueError(f"{where}: segmentation: expected an RLE {{size, counts}}, got {brief(mask)}")
    if not isinstance(mask["size"], Sequence) or tuple(mask["size"]) != size:
        raise ValueError(
            f"{where}: segmentation: size: expected the image's (height, width) {size},"
            f" got {brief(mask['size'])}"
        )
    counts = mask["counts"]
    if total == size[0] * size[1]:
        return {"size": list(size), "counts": counts}, area
    try:
        runs = checked_runs(counts, size)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: segmentation: counts: {error}") from error
    return {"size": list(size), "counts": compress(runs)}, int(runs[1::2].sum())


def _box(where: _Place, box: object) -> list[float]:
    """x, y, width and height in pixels, wherever in or out of the image."""
    if not isinstance(box, Sequence) or isinstance(box, str) or len(box) != 4:
        raise ValueError(f"{where}: bbox: expected x, y, width, height, got {brief(box)}")
    x, y, width, height = (_finite(where, "bbox", value) for value in box)
    if width < 0 or height < 0:
        raise ValueError(f"{where}: bbox: expected a width and height of at least 0, got {brief(box)}")
    return [x, y, width, height]


def _known_id(where: _Place, field: str, value: object, ids: Collection[T], source: str) -> T:
    """The id, as one of `ids`, which are those of `source`."""
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not _among(value, ids):
        raise ValueError(f"{where}: {field}: {brief(value)} is not in {source}")
    return value


def _among(value: object, ids: Collection[T]) -> TypeGuard[T]:
    return value in ids


def _finite(where: _Place, field: str, value: object) -> float:
    """A number that neither JSON's NaN nor its endless integers are."""
    if type(value) is float and abs(value) <= 1e300:
        return value
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    # Not math.isfinite: it fails on JSON's endless integers.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise ValueError(f"{where}: {field}: expected a finite number, got {brief(value)}")
    return float(value)
