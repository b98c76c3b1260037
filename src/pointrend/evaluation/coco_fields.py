"""Checks of single fields of COCO-format records, each a ValueError that names file, record and field.

`where` is the record's place for messages, anything that `str` can spell out: "file: annotation 3".
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from pointrend.evaluation.run_lengths import UNSURE, rle_runs

__all__ = [
    "brief",
    "checked_box",
    "checked_mask",
    "checked_rle",
    "finite_number",
    "known_id",
    "whole_number",
]

# The rasterizer keeps five points for every pixel along an outline; real ones are a few times as long as the picture.
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
    """The mask and its area, both of which are known already where its `total` is the picture's."""
    if not isinstance(mask, Mapping) or "counts" not in mask or "size" not in mask:
        raise ValueError(f"{where}: segmentation: expected an RLE {{size, counts}}, got {brief(mask)}")
    if not isinstance(mask["size"], Sequence) or tuple(mask["size"]) != size:
        raise ValueError(
            f"{where}: segmentation: size: expected the picture's (height, width) {size},"
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
    """x, y, width and height in pixels, wherever in or out of the picture."""
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
