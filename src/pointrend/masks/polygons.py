"""Masks as polygons and back: rings along pixel edges, holes at their outlines, simplified as far as wanted.

A polygon is a list of rings, each (V, 2) float64 points (x, y) in pixels of the image without the first point
repeated: first the outer ring, clockwise as seen on the screen, then its holes, counter-clockwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pointrend.masks.rle import Ints, Window, as_array

if TYPE_CHECKING:
    from torch import Tensor

Ring = NDArray[np.float64]
Polygon = list[Ring]
Outline = list[tuple[float, float]]


@dataclass(frozen=True)
class Polygons:
    """A mask as COCO's polygons: the union of rings, each (V, 2) points (x, y) in continuous pixels."""

    rings: tuple[Ring, ...]

    @property
    def extent(self) -> Ring:
        """(4,) x1, y1, x2, y2 of the points."""
        points = np.concatenate(self.rings)
        return np.concatenate([points.min(axis=0), points.max(axis=0)])

    @property
    def area(self) -> float:
        """Sum of the rings' areas, in square pixels."""
        return sum(abs(area(ring)) for ring in self.rings)

    def to_coco(self) -> list[list[float]]:
        """The form of COCO files."""
        return [ring.ravel().tolist() for ring in self.rings]


def outline(window: Tensor | np.ndarray, offset: tuple[int, int] | list[int]) -> list[Outline]:
    """The exact outlines of a mask along pixel edges, in pixels of the image, corners only.

    Every ring is a closed path of alternating horizontal and vertical edges (the last corner joins the
    first). Outer rings run clockwise as seen on the screen (y points down), so their shoelace area is
    positive; rings round holes run counter-clockwise and count as negative: the areas add up to the number of
    pixels. Pixels that touch at a corner only belong to different rings. Filling all rings by the even-odd
    rule gives the mask back.

    Args:
        window: (h, w), non-zero inside.
        offset: (x, y) of its top-left pixel.
    """
    mask = np.pad(as_array(window) != 0, 1)
    corners, across, along = _corner_links(mask)
    rings: list[Outline] = []
    seen = np.zeros(len(corners), dtype=bool)
    for start in range(len(corners)):  # by rows, then columns: a ring is met at the left end of its top edge
        if seen[start]:
            continue
        ring, here, link = [], start, across
        while not seen[here]:
            seen[here] = True
            ring.append(here)
            here, link = int(link[here]), along if link is across else across
        row, column = corners[start]
        if not mask[
            row, column
        ]:  # the pixel below right of that corner is outside: the ring goes round a hole
            ring = ring[:1] + ring[:0:-1]
        rings.append(
            [(float(corners[i][1] - 1 + offset[0]), float(corners[i][0] - 1 + offset[1])) for i in ring]
        )
    return rings


def _corner_links(mask: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Corners (K, 2) as (row, column) of the padded mask's pixel grid, and the corner each one leads to.

    On any row, edges run from the first corner to the second, from the third to the fourth, ...; the same on
    any column. Where two pixels touch diagonally there are two corners in one place: the first has the edge
    to the left, the second the edge to the right; up and down go to them so that each keeps round its own
    pixel.
    """
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    diagonal = (a == d) & (b == c) & (a != b)
    turns = (a ^ b ^ c ^ d) | diagonal
    rows, columns = np.nonzero(turns)
    twice = diagonal[rows, columns]
    order = np.repeat(np.arange(len(rows)), 1 + twice)
    second = np.concatenate([[False], order[1:] == order[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    rows, columns = rows[order] + 1, columns[order] + 1  # a corner is named by the pixel below right of it
    # Left goes with up where the pixel above left is inside; else left goes with down.
    rising = ~mask[rows - 1, columns - 1]
    down = np.where(np.repeat(twice, 1 + twice) if len(order) else False, second ^ rising, False)
    across, along = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    by_row, by_column = np.lexsort((second, columns, rows)), np.lexsort((down, rows, columns))
    for links, sequence in ((across, by_row), (along, by_column)):
        links[sequence[0::2]], links[sequence[1::2]] = sequence[1::2], sequence[0::2]
    return np.stack([rows, columns], axis=1), across, along


def mask_polygons(window: Tensor, offset: Sequence[int], tolerance: float = 0.0) -> list[Polygon]:
    """The polygons of one mask, one for each part whose pixels hang together by their edges.

    Args:
        window: (h, w), non-zero inside. offset: (x, y) of its top-left pixel in the image.
        tolerance: no point of the exact outline is farther, in pixels, from the simplified one, and no pixel whose
            centre is farther than this from the outline changes sides. 0 keeps every corner; from about 0.75 on the
            stairs of slanted edges become straight. Each ring is simplified alone, so that at large tolerances a hole
            may touch its outer ring. No ring vanishes.

    Raises:
        ValueError: the tolerance is negative.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected 0 or more pixels, got {tolerance}")
    rings = [np.asarray(ring) for ring in outline(window, list(offset))]
    outer = sorted((ring for ring in rings if area(ring) > 0), key=area)
    polygons: list[Polygon] = [[ring] for ring in outer]
    boxes = np.array([[*ring.min(0), *ring.max(0)] for ring in outer]).reshape(-1, 4)
    for hole in (ring for ring in rings if area(ring) < 0):
        # A ring starts at the left end of its top edge: the pixel above that corner belongs to the part round the hole.
        x, y = hole[0] + (0.5, -0.5)
        near = (boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])
        owner = next(
            i for i in np.flatnonzero(near) if _contains(outer[i], x, y)
        )  # the smallest that holds it
        polygons[owner].append(hole)
    order = sorted(range(len(outer)), key=lambda i: tuple(outer[i][0][::-1]))  # by rows, then columns
    return [[simplify(ring, tolerance) for ring in polygons[i]] for i in order]


def simplify(ring: Ring, tolerance: float) -> Ring:
    """The ring with fewer corners, none of which moves; every corner left out lies within `tolerance` of its edge.

    Douglas and Peucker's algorithm on the two halves between the first corner and the one farthest from it. A ring that
    would lose its area stays as it is.
    """
    if tolerance <= 0 or len(ring) < 4:
        return ring
    closed = np.concatenate([ring, ring[:1]])
    far = int(np.argmax(np.square(ring - ring[0]).sum(1)))
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, len(ring)]] = True
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    simple = closed[:-1][keep[:-1]]
    # The sign, too: a simplified ring may cross itself and turn round.
    return simple if len(simple) >= 3 and area(simple) * area(ring) > 0 else ring


def fill(polygons: Iterable[Polygon], image_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Pixels whose centres lie inside: a window (h, w) bool and the (x, y) of its top-left pixel.

    Rings may turn either way: the first of each polygon is filled, the others are cut out. What lies outside of the
    image (H, W) is left out.

    Raises:
        ValueError: a ring has fewer than three points, or a point that is not finite.
    """
    import torch

    turned = [[_turned(ring, hole=number > 0) for number, ring in enumerate(polygon)] for polygon in polygons]
    if not turned:
        return torch.zeros((0, 0), dtype=torch.bool), (0, 0)
    top, left, height, width = window = bounds([ring for polygon in turned for ring in polygon], *image_size)
    mask = np.zeros((height, width), dtype=bool)
    if height and width:
        for polygon in turned:
            mask |= inside(polygon, window)
    return torch.from_numpy(mask), (left, top)


def keyholed(polygon: Polygon) -> Ring:
    """A polygon with holes as one ring: each hole is reached and left over the same edge, from the nearest corner."""
    ring = polygon[0]
    for hole in polygon[1:]:
        distances = np.square(ring[:, None] - hole[None]).sum(2)
        i, j = np.unravel_index(int(np.argmin(distances)), distances.shape)
        ring = np.concatenate([ring[: i + 1], hole[j:], hole[: j + 1], ring[i:]])
    return ring


def area(ring: Ring) -> float:
    """Signed area in pixels, positive for rings that run clockwise on the screen (y points down)."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _turned(ring: Ring, *, hole: bool) -> Ring:
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(
            f"polygon: expected rings of three or more finite points (x, y), got {ring.tolist()[:4]}"
        )
    return ring[::-1] if (area(ring) < 0) != hole else ring


def _contains(ring: Ring, x: float, y: float) -> bool:
    """Whether a pixel's centre lies inside the ring: its window is that one pixel."""
    return bool(inside([ring], (int(y), int(x), 1, 1))[0, 0])


def _distances(points: Ring, start: Ring, end: Ring) -> NDArray[np.float64]:
    """Distances (V,) of points to the edge between two corners."""
    along = end - start
    length = float(along @ along)
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    return np.hypot(*(points - start - share[:, None] * along).T)


def inside(contours: Sequence[Ring], window: Window) -> NDArray[np.bool_]:
    """(height, width): whether each pixel's centre lies inside."""
    top, left, height, width = window
    row, x, sign = _crossings(contours, top, height, rows_per_pixel=1)
    first = np.ceil(np.clip(x - left, 0, width) - 0.5).astype(
        np.int64
    )  # the first centre right of the crossing
    turns = np.bincount(row * (width + 1) + first, sign, minlength=height * (width + 1))
    return np.abs(turns.reshape(height, width + 1).cumsum(axis=1)[:, :width]) > 0.5


def coverage(contours: Sequence[Ring], window: Window, rows_per_pixel: int = 5) -> NDArray[np.float32]:
    """(height, width): the share of each pixel inside, exact along x, from this many rows along y."""
    top, left, height, width = window
    row, x, sign = _crossings(contours, top, height, rows_per_pixel)
    x = np.clip(x - left, 0, width)
    pixel = np.floor(x).astype(np.int64)
    part = x - pixel  # how far into its pixel the crossing lies: so much of it is still before
    cell = row // rows_per_pixel * (width + 2) + pixel
    sums = np.bincount(cell, sign * (1 - part), minlength=height * (width + 2) + 1)
    sums += np.bincount(cell + 1, sign * part, minlength=height * (width + 2) + 1)
    share = sums[:-1].reshape(height, width + 2).cumsum(axis=1)[:, :width] / rows_per_pixel
    return np.abs(share).clip(0, 1).astype(np.float32)


def _crossings(
    contours: Sequence[Ring], top: int, height: int, rows_per_pixel: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Where edges cross the sampled rows: row number from the window's top, x, and direction, +1 or -1."""
    start = np.concatenate(list(contours))
    end = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    x, slope = start[:, 0], end - start
    # Row r lies at y = top + (r + .5) / rows_per_pixel. An edge owns the rows from its upper end to just
    # before its lower end, so a row through a vertex is counted once.
    first, last = (
        np.ceil((y - top) * rows_per_pixel - 0.5).clip(0, height * rows_per_pixel).astype(np.int64)
        for y in (np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1]))
    )
    count = last - first
    edge = np.repeat(np.arange(len(start)), count)
    row = np.arange(len(edge)) - np.repeat(count.cumsum() - count - first, count)
    y = top + (row + 0.5) / rows_per_pixel
    crossing = x[edge] + (y - start[edge, 1]) * slope[edge, 0] / slope[edge, 1]
    return row, crossing, np.sign(slope[edge, 1])


def bounds(contours: Sequence[Ring], height: int, width: int) -> Window:
    """The window that holds the contours, cut to the image; without pixels if they lie outside."""
    low = np.floor(np.min([contour.min(axis=0) for contour in contours], axis=0)).astype(int)
    high = np.ceil(np.max([contour.max(axis=0) for contour in contours], axis=0)).astype(int)
    left, top = np.clip(low, 0, (width, height))
    right, bottom = np.clip(high, 0, (width, height))
    return int(top), int(left), int(max(bottom - top, 0)), int(max(right - left, 0))
