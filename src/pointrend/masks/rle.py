"""Masks as files know them: COCO run lengths and outlines, straight from the windows, never a full-image
mask.

COCO's run-length encoding reads the image column by column, top to bottom, and counts pixels outside,
inside, outside, ...; the first count (outside) may be 0. The compressed form writes each count, from the
fourth on as the difference to the one two before, in digits of five bits (maskApi.c, `rleToString`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pointrend.structures import InstanceMasks

Ints = npt.NDArray[np.int64]
COLUMN_PIXELS = 2**20
"""Pixels of a window that are looked at together: several bytes each."""
Ring = list[tuple[float, float]]


def encode_windows(masks: InstanceMasks) -> Iterator[dict[str, Any]]:
    """Compressed COCO RLE of each mask in its image: {"size": [H, W], "counts": text}.

    Time and memory go with the windows' areas, not with the image's.
    """
    height, width = masks.image_size
    for window, offset in zip(masks.windows, masks.offsets.tolist(), strict=True):
        counts = run_lengths(window, (int(offset[0]), int(offset[1])), masks.image_size)
        yield {"size": [int(height), int(width)], "counts": compress(counts)}


def run_lengths(window: Tensor, offset: tuple[int, int], image_size: tuple[int, int]) -> Ints:
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
            f"window: {window.shape[0]}x{window.shape[1]} pixels at x = {x}, y = {y} stick out of a "
            f"image of {height}x{width}; cut it to the image first"
        )
    mask = window.detach().cpu().numpy()
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


def _column_runs(mask: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints]:
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
    kept = []
    while alive.any():
        digit = values & 31
        values = values >> 5  # arithmetic: negative numbers end at -1
        more = np.where(digit & 16, values != -1, values != 0)
        digits.append(digit + 32 * more + 48)
        kept.append(alive)
        alive = alive & more
    if not digits:
        return ""
    text = np.stack(digits, axis=1)[np.stack(kept, axis=1)]
    return text.astype(np.uint8).tobytes().decode("ascii")


def decompress(text: str) -> Ints:
    """COCO's text as counts, the inverse of `compress`. ValueError where it is none."""
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63 or codes[-1] & 32):
        raise ValueError("run lengths: expected COCO's compressed counts, got another or a broken text")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)  # of each digit in its number
    if len(place) and place.max() > 11:  # 12 digits of 5 bits: more than any image needs
        raise ValueError("run lengths: expected counts below 2**55, got a longer number")
    values = (
        np.add.reduceat((codes & 31) << (5 * place), starts) if len(ends) else np.zeros(0, dtype=np.int64)
    )
    negative = (codes[ends] & 16) != 0
    values = values - np.where(negative, np.int64(1) << (5 * (ends - starts + 1)), 0)
    for parity in (1, 2):  # from the fourth on, differences to the count two before
        values[parity::2] = values[parity::2].cumsum()
    return values


def decode_window(
    counts: str | bytes | Sequence[int], image_size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """One mask from its counts, compressed or plain: its tight window (h, w) bool and the (x, y) of its first pixel.

    Raises:
        ValueError: the counts do not fill an image of `image_size` (H, W) exactly.
    """
    if isinstance(counts, str | bytes):
        runs = decompress(counts if isinstance(counts, str) else counts.decode("ascii", "replace"))
    else:
        try:
            runs = np.asarray(counts, dtype=np.int64).reshape(-1)
        except OverflowError:
            runs = np.asarray([-1])
    height, width = image_size
    outside = len(runs) and (runs.min() < 0 or runs.max() > height * width)
    if outside or int(runs.sum()) != height * width:
        raise ValueError(
            f"run lengths: expected counts of {height * width} pixels in all, got {int(runs.sum())}"
        )
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


def outline(window: Tensor, offset: tuple[int, int] | list[int]) -> list[Ring]:
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
    mask = np.pad(window.detach().cpu().numpy() != 0, 1)
    corners, across, along = _corner_links(mask)
    rings: list[Ring] = []
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


def _corner_links(mask: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
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


AT_ONCE = 2**18  # characters; some twenty arrays of 64-bit numbers as long are alive meanwhile
UNSURE = -1


def rle_runs(counts: str | bytes | Sequence[int]) -> Ints:
    """Lengths of the runs (zeros first, column by column), int64.

    Args:
        counts: the compressed form, or the lengths themselves.

    Raises:
        ValueError: if it is neither a list of whole numbers nor such a string.
    """
    if not isinstance(counts, str | bytes):
        runs = np.asarray(counts)
        if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
            raise ValueError("expected whole numbers or a compressed string")
        return runs.astype(np.int64)
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise ValueError("expected ASCII") from error
    symbols = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not symbols.size:
        return symbols
    if symbols.min() < 0 or symbols.max() > 63:
        raise ValueError("expected characters from '0' to 'o'")
    last = np.flatnonzero(symbols < 32)
    if not last.size or last[-1] != symbols.size - 1:
        raise ValueError("the string ends within a number")
    first = np.concatenate(([0], last[:-1] + 1))
    digit = np.arange(symbols.size) - np.repeat(first, last - first + 1)
    if digit.max() > 7:  # 40 bits: far more than any image, far less than an overflow
        raise ValueError("a run of more than 2^39 pixels")
    values = _numbers(symbols, first, last, digit)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def measure(texts: Sequence[str | bytes]) -> tuple[Ints, Ints]:
    """Pixels in all and pixels inside of each compressed string; -1 for those that `rle_runs` has to judge.

    Many strings at once, because one by one most of an evaluation's time would go into them. A string with a value has
    no negative runs and is well formed.
    """
    totals, areas = np.full((2, len(texts)), UNSURE, dtype=np.int64)
    for part in _parts(texts):
        totals[part], areas[part] = _measure(texts[part])
    return totals, areas


def _parts(texts: Sequence[str | bytes]) -> Iterator[slice]:
    start = size = 0
    for number, text in enumerate(texts, 1):
        size += len(text)
        if size >= AT_ONCE or number == len(texts):
            yield slice(start, number)
            start, size = number, 0


def _measure(texts: Sequence[str | bytes]) -> tuple[Ints, Ints]:
    raw = [
        text if isinstance(text, bytes) else text.encode("ascii") if text.isascii() else b"" for text in texts
    ]
    lengths = np.array([len(text) for text in raw])
    there = np.flatnonzero(lengths)
    totals, areas = np.full((2, len(texts)), UNSURE, dtype=np.int64)
    if not there.size:
        return totals, areas
    lengths = lengths[there]
    symbols = np.frombuffer(b"".join(raw), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(there.size), lengths)
    ends = lengths.cumsum() - 1
    unsure = (
        symbols[ends] >= 32
    )  # ends within a number; ended here, so that it does not run into the next string
    symbols[ends] &= 31
    unsure[owner[(symbols < 0) | (symbols > 63)]] = True
    last = np.flatnonzero(symbols & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    digit = np.arange(symbols.size) - np.repeat(first, last - first + 1)
    unsure[owner[digit > 5]] = True  # 30 bits: no image has as many pixels, no sum of them overflows
    values = _numbers(symbols, first, last, np.minimum(digit, 5))
    owner = owner[first]
    counts = np.bincount(owner)
    starts = counts.cumsum() - counts
    place = np.arange(values.size) - np.repeat(starts, counts)
    inside = place % 2 == 1
    runs = np.where(place == 0, values, 0)
    for chosen in (inside, ~inside & (place > 0)):
        summed = np.where(chosen, values, 0).cumsum()
        summed -= np.repeat(summed[starts], counts)  # a string's first number belongs to neither
        runs += np.where(chosen, summed, 0)
    unsure[owner[runs < 0]] = True
    totals[there] = np.where(unsure, UNSURE, np.add.reduceat(runs, starts))
    areas[there] = np.where(unsure, UNSURE, np.add.reduceat(np.where(inside, runs, 0), starts))
    return totals, areas


def _numbers(symbols: Ints, first: Ints, last: Ints, digit: Ints) -> Ints:
    """The numbers that the characters `first` to `last` make."""
    values: Ints = np.add.reduceat((symbols & 31) << (5 * digit), first)
    values -= np.where(symbols[last] & 16, np.int64(1) << (5 * (digit[last] + 1)), 0)
    return values
