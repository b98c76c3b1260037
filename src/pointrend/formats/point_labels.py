"""Labelled points in place of masks, as in PointSup's COCO files (arXiv 2104.06404): `point_coords`, `point_labels`.

Shapes: P points of an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MAX_POINTS = 1000
"""Of one object; PointSup has 10."""


@dataclass(frozen=True)
class PointLabels:
    """Points of one object in its image."""

    coords: Ints
    """(P, 2) x, y: indices of pixels, 0 <= x < width, 0 <= y < height."""
    labels: Ints
    """(P,) 1 on the object, 0 beside it."""

    def __len__(self) -> int:
        return len(self.labels)

    def to_coco(self) -> dict[str, Any]:
        """The two fields of an annotation."""
        return {"point_coords": self.coords.tolist(), "point_labels": self.labels.tolist()}


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
