"""COCO's run-length encoding (RLE) of masks, encoded from windows and decoded into windows.

The encoding reads the image column by column, top to bottom, and counts pixels outside, inside, outside, ...; the
first count (outside) may be 0. The compressed form writes each count, from the fourth on as the difference to the one
two before, in digits of five bits (maskApi.c, `rleToString` and `rleFrString`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from pointrend.structures import InstanceMasks

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]  # top, left, height, width
Counts = str | bytes | Sequence[int]
COLUMN_PIXELS = 2**20
"""Pixels of a window that are encoded together: several bytes each."""
TEXT_BATCH = 2**18
"""Characters that are decoded together: some twenty arrays of 64-bit numbers as long are alive meanwhile."""
MOST_DIGITS = 6
"""Of a count: 30 bits. No image has as many pixels, and no sum of such counts overflows."""
FAULTY = -1


class CocoMask(TypedDict):
    """A mask as COCO files have it: `size` is (H, W) of the image."""

    size: list[int]
    counts: str | bytes


class CocoDetection(TypedDict, total=False):
    """A record of COCO's results: image, category, score, and a box or a mask."""

    image_id: int | str
    category_id: int
    score: float
    bbox: list[float]
    """x, y, width, height."""
    segmentation: CocoMask
    area: float
    """Pixels inside."""


@dataclass(frozen=True)
class RunLengths:
    """A mask as uncompressed counts: pixels outside, inside, outside, ... down the image's columns."""

    counts: Ints
    size: tuple[int, int]
    """(H, W) of the image."""

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """(4,) x1, y1, x2, y2 of the columns with a pixel inside; all rows."""
        ends = self.counts.cumsum()
        filled = self.counts[1::2] > 0
        if not filled.any():
            return np.zeros(4)
        first, last = ends[0::2][: len(filled)][filled][0], ends[1::2][filled][-1] - 1
        height = self.size[0]
        return np.array([first // height, 0, last // height + 1, height], dtype=np.float64)

    @property
    def area(self) -> float:
        """Pixels inside."""
        return float(self.counts[1::2].sum())

    def to_coco(self) -> CocoMask:
        """The compressed form of COCO files."""
        return {"size": list(self.size), "counts": compress(self.counts)}

    def pixels(self, window: Window) -> Bits:
        """(height, width) of a window inside the image, 1 inside."""
        top, left, height, width = window
        rows = self.size[0]
        ends = self.counts.cumsum().clip(left * rows, (left + width) * rows)
        lengths = np.diff(ends, prepend=left * rows)
        values = np.arange(len(lengths), dtype=np.uint8) % 2
        return np.repeat(values, lengths).reshape(width, rows)[:, top : top + height].T


def encode_windows(masks: InstanceMasks) -> Iterator[CocoMask]:
    """Compressed COCO RLE of each mask in its image: {"size": [H, W], "counts": text}.

    Time and memory go with the windows' areas, not with the image's.
    """
    height, width = masks.image_size
    for window, (x, y) in zip(masks.windows, masks.offsets.tolist(), strict=True):
        counts = run_lengths(window, (int(x), int(y)), masks.image_size)
        yield {"size": [int(height), int(width)], "counts": compress(counts)}


def run_lengths(window: Tensor | np.ndarray, offset: tuple[int, int], image_size: tuple[int, int]) -> Ints:
    """Uncompressed counts of one mask: pixels outside, inside, outside, ... down the image's columns.

    Args:
        window: (h, w), non-zero inside.
        offset: (x, y) of its top-left pixel; the window lies inside the image.
        image_size: (H, W) of the image.

    Raises:
        ValueError: the window sticks out of the image.
    """
    (x, y), (height, width) = offset, image_size
    if x < 0 or y < 0 or y + window.shape[0] > height or x + window.shape[1] > width:
        raise ValueError(
            f"window: {window.shape[0]}x{window.shape[1]} pixels at x = {x}, y = {y} stick out of an "
            f"image of {height}x{width}; cut it to the image first"
        )
    mask = as_array(window)
    at_once = max(1, COLUMN_PIXELS // max(window.shape[0], 1))
    parts = [_column_runs(mask[:, c : c + at_once]) for c in range(0, max(window.shape[1], 1), at_once)]
    columns = np.concatenate([part[0] + number * at_once for number, part in enumerate(parts)])
    first, last = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    base = (columns + x) * height + y
    starts, ends = base + first, base + last
    # A run that reaches the bottom goes on in the next column where that one begins at the top.
    apart = starts[1:] != ends[:-1]
    starts = starts[np.concatenate([[True], apart])] if len(starts) else starts
    ends = ends[np.concatenate([apart, [True]])] if len(ends) else ends
    edges = np.stack([starts, ends], axis=1).reshape(-1).astype(np.int64)
    counts: Ints = np.diff(edges, prepend=0, append=height * width)
    return counts if counts[-1] > 0 or len(counts) == 1 else counts[:-1]


def as_array(window: Tensor | np.ndarray) -> np.ndarray:
    """The same pixels in numpy."""
    return window if isinstance(window, np.ndarray) else window.detach().cpu().numpy()


def _column_runs(mask: np.ndarray) -> tuple[Ints, Ints, Ints]:
    """Runs of pixels inside in each column of (h, w), column by column: column, first row, last row (exclusive)."""
    inside = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=np.int8)  # columns as rows, a margin each end
    inside[:, 1:-1] = mask.T != 0
    steps = np.diff(inside, axis=1)
    columns, first = np.nonzero(steps == 1)
    return columns, first, np.nonzero(steps == -1)[1]


def compress(counts: Ints) -> str:
    """The counts as COCO's text."""
    values = counts.astype(np.int64).copy()
    values[3:] -= counts[1:-2]
    digits, alive = [], np.ones(len(values), dtype=bool)
    used = []
    while alive.any():
        digit = values & 31
        values = values >> 5  # arithmetic: negative numbers end at -1
        more = np.where(digit & 16, values != -1, values != 0)
        digits.append(digit + 32 * more + 48)
        used.append(alive)
        alive = alive & more
    if not digits:
        return ""
    text = np.stack(digits, axis=1)[np.stack(used, axis=1)]
    return text.astype(np.uint8).tobytes().decode("ascii")


def decompress(text: str | bytes) -> Ints:
    """COCO's text as counts, all of 0 or more: the inverse of `compress`.

    Raises:
        ValueError: it is empty, another or a broken text, or holds a negative or impossibly long run.
    """
    runs, _, faulty = _decode([text])
    if faulty[0]:
        raise ValueError(
            "run lengths: expected COCO's compressed text (characters '0' to 'o', runs of 0 or more pixels),"
            f" got {text[:40]!r}"
        )
    return runs


def measure(texts: Sequence[str | bytes]) -> tuple[Ints, Ints]:
    """Pixels in all and pixels inside of each compressed text; `FAULTY` for those that `decompress` refuses.

    Many texts together: one by one most of an evaluation's time would go into them.
    """
    totals, areas = np.zeros((2, len(texts)), dtype=np.int64)
    start = size = 0
    for number, text in enumerate(texts, 1):
        size += len(text)
        if size >= TEXT_BATCH or number == len(texts):
            runs, edges, faulty = _decode(texts[start:number])
            inside = runs * ((np.arange(len(runs)) - np.repeat(edges[:-1], np.diff(edges))) % 2)
            for sums, values in ((totals, runs), (areas, inside)):
                before = np.concatenate([[0], values.cumsum()])
                sums[start:number] = np.where(faulty, FAULTY, np.diff(before[edges]))
            start, size = number, 0
    return totals, areas


def _decode(texts: Sequence[str | bytes]) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Runs of all N texts, where each text's runs begin (N + 1,), and which texts are faulty (N,)."""
    raw = [
        text if isinstance(text, bytes) else text.encode("ascii") if text.isascii() else b"" for text in texts
    ]
    lengths = np.array([len(text) for text in raw], dtype=np.int64)
    faulty = lengths == 0
    if faulty.all():
        return np.zeros(0, dtype=np.int64), np.zeros(len(raw) + 1, dtype=np.int64), faulty
    symbols = np.frombuffer(b"".join(raw), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(raw)), lengths)
    faulty[owner[(symbols < 0) | (symbols > 63)]] = True
    ends = lengths.cumsum()[lengths > 0] - 1
    faulty[owner[ends[symbols[ends] >= 32]]] = True  # it ends within a number
    symbols[ends] &= 31  # so that it does not run into the next text
    last = np.flatnonzero(symbols & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    digit = np.arange(len(symbols)) - np.repeat(first, last - first + 1)
    faulty[owner[digit >= MOST_DIGITS]] = True
    digit = np.minimum(digit, MOST_DIGITS - 1)
    values: Ints = np.add.reduceat((symbols & 31) << (5 * digit), first)
    values -= np.where(symbols[last] & 16, np.int64(1) << (5 * (digit[last] + 1)), 0)
    owner = owner[first]
    counts = np.bincount(owner, minlength=len(raw))
    edges = np.concatenate([[0], counts.cumsum()])
    place = np.arange(len(values)) - np.repeat(edges[:-1], counts)
    runs = np.where(place == 0, values, 0)
    for chosen in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        summed = np.where(chosen, values, 0).cumsum()
        runs += np.where(chosen, summed - np.repeat(summed[edges[:-1][counts > 0]], counts[counts > 0]), 0)
    faulty[owner[(runs < 0) | (runs >= 2**29)]] = True
    return runs, edges, faulty


def checked_runs(counts: Counts, image_size: tuple[int, int]) -> Ints:
    """Runs from a file's counts, compressed or plain, that fill an image of (H, W) exactly.

    Raises:
        ValueError: they do not, or are neither whole numbers nor such a text.
    """
    if isinstance(counts, str | bytes):
        runs = decompress(counts)
    else:
        plain = np.asarray(counts)
        whole = plain.dtype.kind in "iu" or (plain.dtype.kind == "f" and bool((plain == plain.round()).all()))
        if plain.ndim != 1 or not plain.size or not whole:
            raise ValueError("run lengths: expected whole numbers or COCO's compressed text")
        runs = plain.clip(-1, 2**40).astype(np.int64)
    pixels = image_size[0] * image_size[1]
    # No run may pass the whole, or a sum of huge ones could wrap round to the right total.
    if runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise ValueError(
            f"run lengths: expected runs of 0 or more that add up to {pixels} pixels"
            f" ({image_size[0]}x{image_size[1]}), got {int(runs.sum())}"
        )
    return runs


def decode_window(counts: Counts, image_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """One mask from its counts, compressed or plain: its tight window (h, w) bool and the (x, y) of its first pixel.

    Raises:
        ValueError: the counts do not fill an image of `image_size` (H, W) exactly.
    """
    import torch

    runs, height = checked_runs(counts, image_size), image_size[0]
    edges = runs.cumsum()
    starts, ends = edges[0:-1:2], edges[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return torch.zeros((0, 0), dtype=torch.bool), (0, 0)
    left, right = int(starts[0] // height), int((ends[-1] - 1) // height) + 1
    turns = np.zeros((right - left) * height + 1, dtype=np.int8)
    np.add.at(turns, starts - left * height, 1)
    np.add.at(turns, ends - left * height, -1)
    mask = turns[:-1].cumsum(dtype=np.int8).reshape(right - left, height).T > 0
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return torch.from_numpy(mask[top:bottom].copy()), (left, top)
