"""Reading COCO-format ground truth and result records, and refusing what cannot be scored honestly.

Files are untrusted: every id, size, box and mask is checked here, before the C++ scorer sees it, so that a
mistake is an error which names file, record and field, and never a silently lower score.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from pointrend.evaluation.coco_fields import (
    brief,
    checked_box,
    checked_mask,
    checked_rle,
    finite_number,
    known_id,
    whole_number,
)
from pointrend.evaluation.run_lengths import measure

__all__ = ["GroundTruth", "check_records", "consumed", "read_ground_truth", "read_json"]

# A COCO picture has 0.3 million pixels, a Cityscapes one 2 million; beyond this, one mask takes over 256 MB.
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
        """(height, width) of a picture."""
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
        other_images: the same for pictures; these are left out.
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
