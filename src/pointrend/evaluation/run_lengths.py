"""COCO's run lengths, read from strings that nobody has checked.

The compressed form packs each length in base 32, five bits to a character from "0" on, bit 5 meaning "more follows" and
bit 4 of the last one the sign; from the fourth run on, the difference to the length two runs before is stored
(cocodataset/cocoapi: common/maskApi.c, rleFrString).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["UNSURE", "measure", "rle_runs"]

Ints = npt.NDArray[np.int64]

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
    if digit.max() > 7:  # 40 bits: far more than any picture, far less than an overflow
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
    unsure[owner[digit > 5]] = True  # 30 bits: no picture has as many pixels, no sum of them overflows
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
