"""Objects of an image as they were annotated, and where they lie in the image now.

Polygons and run lengths stay what they are while the image is resized, mirrored and cropped: only two
scales and two shifts change. At the end each object is rasterized once, at the final scale, inside its own
window. So memory grows with the objects' outlines, never with objects x pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from faster_coco_eval.core import mask as mask_api
from numpy.typing import NDArray

from pointrend.formats.records import PointLabels
from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import Bits, RunLengths, Window, decompress
from pointrend.structures import InstanceMasks, InstanceTarget, LabelledPoints

Floats = NDArray[np.float64]
EMPTY: Bits = np.zeros((0, 0), dtype=np.uint8)


@dataclass(frozen=True)
class Bitmap:
    """Pixels inside a window, 0 outside of it."""

    bits: Bits  # (h, w)
    top: int
    left: int

    @property
    def extent(self) -> Floats:
        """(4,) x1, y1, x2, y2 of the window."""
        height, width = self.bits.shape
        return np.array([self.left, self.top, self.left + width, self.top + height], dtype=np.float64)

    @property
    def area(self) -> float:
        """Pixels inside."""
        return float((self.bits != 0).sum())

    def pixels(self, window: Window) -> Bits:
        """(height, width) of a window inside the image, 1 inside."""
        top, left, height, width = window
        result = np.zeros((height, width), dtype=np.uint8)
        y0, x0 = max(top, self.top), max(left, self.left)
        y1 = min(top + height, self.top + self.bits.shape[0])
        x1 = min(left + width, self.left + self.bits.shape[1])
        if y0 < y1 and x0 < x1:
            part = self.bits[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left]
            result[y0 - top : y1 - top, x0 - left : x1 - left] = part != 0
        return result


Shape = Polygons | RunLengths | Bitmap


@dataclass(frozen=True)
class PlacedPoints:
    """Labelled points of G objects, P of each, in the pixels they were annotated in; continuous coordinates."""

    coords: Floats  # (G, P, 2)
    labels: NDArray[np.float32]  # (G, P) 1, 0 or -1 (ignored)

    @classmethod
    def of(cls, points: Sequence[PointLabels | None]) -> PlacedPoints | None:
        """From pixel indices, whose centres are at + 0.5; None if no object has points. A crowd may have none."""
        count = max((len(own) for own in points if own is not None), default=0)
        if count == 0:
            return None
        none = PointLabels(np.zeros((count, 2), dtype=np.int64), np.full(count, -1))
        known = [none if own is None else own for own in points]
        return cls(
            np.stack([own.coords for own in known]).astype(np.float64) + 0.5,
            np.stack([own.labels for own in known]).astype(np.float32),
        )

    def chosen(self, index: NDArray[np.int64]) -> PlacedPoints:
        """(G, S) some of each object's points, by number."""
        coords = np.take_along_axis(self.coords, index[..., None], axis=1)
        return PlacedPoints(coords, np.take_along_axis(self.labels, index, axis=1))


@dataclass(frozen=True)
class PlacedObjects:
    """The G objects of an image, and the way from the pixels they were annotated in to the image's own.

    A point lies at `x * scale[0] + shift[0]`, `y * scale[1] + shift[1]`; mirrored, the first scale is
    negative.
    """

    shapes: Sequence[Shape | None]  # None: it has points in place of a mask
    boxes: Floats  # (G, 4) x1, y1, x2, y2 as annotated
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    source_size: tuple[int, int]  # height, width of the annotated image
    image_size: tuple[int, int]  # of the image now
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    tight_boxes: bool = False  # after a crop the annotated box says little about what is left
    points: PlacedPoints | None = None

    @classmethod
    def of(cls, target: InstanceTarget) -> PlacedObjects:
        """Masks that exist already, so that they can be moved too."""
        corners = zip(target.masks.windows, target.masks.offsets.tolist(), strict=True)
        return cls(
            shapes=[Bitmap(window.numpy().astype(np.uint8), top=y, left=x) for window, (x, y) in corners],
            boxes=target.boxes.numpy().astype(np.float64),
            labels=target.labels.numpy(),
            crowd=target.crowd.numpy(),
            source_size=target.masks.image_size,
            image_size=target.masks.image_size,
            points=None
            if target.points is None
            else PlacedPoints(target.points.coords.numpy().astype(np.float64), target.points.labels.numpy()),
        )

    def resized(self, height: int, width: int) -> PlacedObjects:
        """In the image scaled to this size."""
        x, y = width / self.image_size[1], height / self.image_size[0]
        return replace(
            self,
            image_size=(height, width),
            scale=(self.scale[0] * x, self.scale[1] * y),
            shift=(self.shift[0] * x, self.shift[1] * y),
        )

    def flipped(self) -> PlacedObjects:
        """In the image with left and right exchanged."""
        shift = (self.image_size[1] - self.shift[0], self.shift[1])
        return replace(self, scale=(-self.scale[0], self.scale[1]), shift=shift)

    def cropped(self, top: int, left: int, height: int, width: int) -> PlacedObjects:
        """In this window of the image."""
        shift = (self.shift[0] - left, self.shift[1] - top)
        return replace(self, image_size=(height, width), shift=shift, tight_boxes=True)

    def target(self) -> InstanceTarget:
        """Boxes, masks and labelled points in the image's pixels.

        Boxes are the annotated ones, moved and cut to the image (Detectron2's way); after a crop those of masks
        are tight round the pixels. Polygons are rasterized as the COCO API does in the whole image, run lengths
        are read at the pixel centres. Points outside of the image are ignored. Objects of which no box is left
        are dropped, those without points also where no pixel is left.
        """
        boxes = self._moved(self.boxes)
        height, width = self.image_size
        np.clip(boxes, 0, (width, height, width, height), out=boxes)
        kept: list[int] = []
        windows, corners = [], []
        for number, shape in enumerate(self.shapes):
            bits, top, left = (EMPTY, 0, 0) if shape is None else tight(*self._rasterized(shape))
            bottom, right = top + bits.shape[0], left + bits.shape[1]
            if self.tight_boxes and self.points is None:
                boxes[number] = (left, top, right, bottom)
            if (bits.size or self.points is not None) and (
                boxes[number, 2:] - boxes[number, :2] > 1e-5
            ).all():
                kept.append(number)
                windows.append(torch.from_numpy(bits))
                corners.append((left, top))
        offsets = torch.tensor(corners, dtype=torch.int64).reshape(-1, 2)
        return InstanceTarget(
            boxes=torch.from_numpy(boxes[kept].astype(np.float32)).reshape(-1, 4),
            labels=torch.from_numpy(self.labels[kept]),
            masks=InstanceMasks(windows, offsets, self.image_size),
            crowd=torch.from_numpy(self.crowd[kept]),
            points=None if self.points is None else self._moved_points(self.points, kept),
        )

    def _moved_points(self, points: PlacedPoints, kept: Sequence[int]) -> LabelledPoints:
        coords = points.coords[kept] * self.scale + self.shift
        height, width = self.image_size
        outside = ((coords < 0) | (coords > (width, height))).any(axis=-1)
        labels = np.where(outside, np.float32(-1), points.labels[kept])
        return LabelledPoints(torch.from_numpy(coords.astype(np.float32)), torch.from_numpy(labels))

    def _moved(self, boxes: Floats) -> Floats:
        """(..., 4) boxes in the image's pixels, not cut."""
        moved = boxes * (self.scale * 2) + self.shift * 2
        if self.scale[0] < 0:
            moved = moved[..., [2, 1, 0, 3]]
        return moved

    def _rasterized(self, shape: Shape) -> tuple[Bits, int, int]:
        """The object's pixels in a window of the image, and that window's top and left."""
        height, width = self.image_size
        # One pixel of margin: the COCO API rounds outlines to fifths of a pixel.
        low_x, low_y, high_x, high_y = self._moved(shape.extent)
        left, top = max(int(np.floor(low_x)) - 1, 0), max(int(np.floor(low_y)) - 1, 0)
        right, bottom = min(int(np.ceil(high_x)) + 1, width), min(int(np.ceil(high_y)) + 1, height)
        if left >= right or top >= bottom:
            return EMPTY, 0, 0
        window = (top, left, bottom - top, right - left)
        if isinstance(shape, Polygons):
            rings = [ring * self.scale + self.shift for ring in shape.rings]
            return rasterized(rings, self.image_size).pixels(window), top, left
        return self._read(shape, window), top, left

    def _read(self, shape: RunLengths | Bitmap, window: Window) -> Bits:
        """Annotated pixels under the centres of the window's pixels, 0 outside of the annotated image."""
        top, left, height, width = window
        columns = np.floor((np.arange(left, left + width) + 0.5 - self.shift[0]) / self.scale[0]).astype(int)
        rows = np.floor((np.arange(top, top + height) + 0.5 - self.shift[1]) / self.scale[1]).astype(int)
        known_rows = (rows >= 0) & (rows < self.source_size[0])
        known_columns = (columns >= 0) & (columns < self.source_size[1])
        result = np.zeros((height, width), dtype=np.uint8)
        if known_rows.any() and known_columns.any():
            rows, columns = rows[known_rows], columns[known_columns]
            y, x = int(rows.min()), int(columns.min())
            bits = shape.pixels((y, x, int(rows.max()) - y + 1, int(columns.max()) - x + 1))
            result[np.ix_(known_rows, known_columns)] = bits[np.ix_(rows - y, columns - x)]
        return result


def rasterized(rings: Sequence[Floats], size: tuple[int, int]) -> RunLengths:
    """The union of polygons (N, 2) in an image of (height, width), as the COCO API draws it."""
    merged = mask_api.merge(mask_api.frPyObjects([ring.ravel() for ring in rings], *size))
    return RunLengths(decompress(merged["counts"]), size)


def tight(bits: Bits, top: int, left: int) -> tuple[Bits, int, int]:
    """The window without empty rows and columns round it; 0x0 if nothing is inside."""
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if len(rows) == 0:
        return EMPTY, 0, 0
    bits = bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(bits), top + int(rows[0]), left + int(columns[0])
