"""Subdivision of a whole picture without its grids of logits: rows are computed a band at a time and forgotten.

:func:`~pointrend.core.subdivision.subdivide` holds (N, C, H, W) logits several times over; 150 classes on 33 million
pixels are 20 GB each. Here only the coarse logits and the predicted points are kept. They determine every row of every
grid: a row is interpolated from two rows of the grid before, and the points that lie in it are put in. What is wanted
of the finest grid, its most uncertain cells and its labels, is taken from each band while that is in the cache.

The same points and labels as the textbook's; where two classes or two cells are equal up to rounding, the last bit may
decide otherwise, since rows are interpolated along one axis after the other. For inference: no gradients.

Letters: C classes, P points, H W rows and columns of a grid; one picture at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.coordinates import cell_centers
from pointrend.core.subdivision import PredictAt, Size

BAND_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Logits of a band: what stays in a CPU's cache, or few launches on a GPU."""


class Grid(Protocol):
    """Logits (C, H, W) that can be had row by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""

    def rows(self, first: int, last: int) -> Tensor:
        """(C, last - first, W) logits; not to be written to."""

    def known_labels(self) -> Tensor | None:
        """(H, W) best class of each cell, where a pass over the grid has found it already."""


class HeldGrid:
    """A grid of which all logits (C, H, W) are there: the coarse prediction."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.logits.shape
        return channels, height, width

    def rows(self, first: int, last: int) -> Tensor:
        return self.logits[:, first:last]

    def known_labels(self) -> Tensor | None:
        return None


class CroppedGrid:
    """The top left corner of a grid: a picture without its padding."""

    def __init__(self, source: Grid, size: Size) -> None:
        self.source, self.size = source, size

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape[0], *self.size

    def rows(self, first: int, last: int) -> Tensor:
        return self.source.rows(first, last)[..., : self.size[1]]

    def known_labels(self) -> Tensor | None:
        known = self.source.known_labels()
        return None if known is None else known[: self.size[0], : self.size[1]]


class FinerGrid:
    """A grid of any size, interpolated bilinearly from another one (``align_corners=False``), with points put in.

    Args:
        source: the grid before.
        size: rows and columns.
    """

    def __init__(self, source: Grid, size: Size) -> None:
        self.source, self.size = source, (int(size[0]), int(size[1]))
        sample = source.rows(0, 1)
        self.above, self.below, share = _taps(source.shape[1], self.size[0], sample.dtype)
        self.share = share.to(sample.device)[:, None]
        self.index = torch.empty(0, dtype=torch.int64, device=sample.device)
        self.values = sample.new_empty((source.shape[0], 0))
        self.labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape[0], *self.size

    def put_in(self, index: Tensor, values: Tensor) -> None:
        """The cells with ascending flat indices (P,) get the logits (C, P); their labels change with them."""
        self.index, self.values = index, values.to(self.values.dtype)
        if self.labels is not None:
            self.labels.view(-1)[index] = best_classes(self.values, self.values.amax(0))

    def rows(self, first: int, last: int) -> Tensor:
        channels, height, width = self.source.shape
        top, bottom = first, last
        if height != self.size[0]:
            top, bottom = int(self.above[first]), int(self.below[last - 1]) + 1
        band = self.source.rows(top, bottom)  # (C, h, w)
        if width != self.size[1]:
            # One axis at a time: the horizontal one on the fewer rows of the coarser grid.
            lines = band.reshape(1, channels * (bottom - top), width)
            band = F.interpolate(lines, size=self.size[1], mode="linear", align_corners=False)
            band = band.view(channels, bottom - top, self.size[1])
        if height != self.size[0]:
            above, below = (taps[first:last].to(band.device) - top for taps in (self.above, self.below))
            band = torch.lerp(band[:, above], band[:, below], self.share[first:last])
        return self._with_points(band, first, last)

    def known_labels(self) -> Tensor | None:
        return self.labels

    def _with_points(self, band: Tensor, first: int, last: int) -> Tensor:
        index, values, width = self.index, self.values, self.size[1]
        if (first, last) != (0, self.size[0]) and len(index):
            limits = index.new_tensor([first * width, last * width])
            start, end = torch.searchsorted(index, limits).tolist()
            index, values = index[start:end] - first * width, values[:, start:end]
        if not len(index):
            return band
        flat = band.flatten(1) if band.shape[1:] != self.source.shape[1:] else band.flatten(1).clone()
        return flat.index_copy_(1, index, values).view_as(band)


def _taps(source: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``size`` rows the two of ``source`` rows that it lies between, and the share of the second."""
    exact = torch.promote_types(dtype, torch.float32)
    scale = torch.tensor(source, dtype=exact) / size  # in the logits' precision, as F.interpolate has it
    position = ((torch.arange(size, dtype=exact) + 0.5) * scale - 0.5).clamp_(min=0)
    above = position.long().clamp_(max=source - 1)
    below = (above + 1).clamp_(max=source - 1)
    return above, below, (position - above).to(dtype)


def subdivide_in_bands(
    logits: Tensor,
    predict_at: PredictAt,
    *,
    sizes: Sequence[Size],
    count: int,
    certain: float | None = None,
    labels: bool = True,
) -> Grid:
    """What :func:`~pointrend.core.subdivision.subdivide` does, of one picture, as a grid to be read row by row.

    Args:
        logits: (C, H, W) coarse logits.
        predict_at: the point head: (1, P, 2) in the unit square of the picture -> (1, C, P).
        sizes: the grid of each step.
        count: points predicted in each step.
        certain: leave cells alone that are surer than this, see ``subdivide``.
        labels: note the labels of the last grid in passing.
    """
    grid: Grid = HeldGrid(logits)
    for number, size in enumerate(sizes, 1):
        finer = FinerGrid(grid, size)
        index = most_uncertain_in_bands(finer, count, certain=certain, labels=labels and number == len(sizes))
        points = cell_centers(index[None], *finer.size)  # (1, P, 2)
        finer.put_in(index, predict_at(points)[0])
        grid = finer
    return grid


def bands(grid: Grid) -> Iterator[tuple[int, int, Tensor]]:
    """The grid from top to bottom: first row, last row (exclusive) and logits (C, r, W) of each band."""
    channels, height, width = grid.shape
    sample = grid.rows(0, 1)
    budget = BAND_BYTES.get(sample.device.type, BAND_BYTES["cuda"])
    step = max(4, budget // (channels * width * sample.element_size()))
    for first in range(0, height, step):
        last = min(first + step, height)
        yield first, last, grid.rows(first, last)


def most_uncertain_in_bands(
    grid: FinerGrid, count: int, *, certain: float | None = None, labels: bool = False
) -> Tensor:
    """Flat indices (P,) of the most uncertain cells, ascending: as ``most_uncertain_cells``, in one pass.

    Args:
        certain: only those with a margin below this.
        labels: also note each cell's best class in the grid.
    """
    _, height, width = grid.shape
    count = min(count, height * width)
    doubts: list[Tensor] = []
    cells: list[Tensor] = []
    held, least = 0, None
    for first, last, logits in bands(grid):
        best, second = best_two(logits)
        doubt = (second - best).flatten()
        if labels:
            _labels_of(grid, best)[first:last] = best_classes(logits, best)
        if least is None:
            cell = torch.arange(first * width, last * width, device=doubt.device)
        else:  # only what may still be among the most uncertain
            near = torch.nonzero(doubt > least).squeeze(1)
            doubt, cell = doubt[near], near + first * width
        doubts.append(doubt)
        cells.append(cell)
        held += len(cell)
        if held > 4 * count and last < height:
            doubts, cells = _top(doubts, cells, count)
            held, least = count, doubts[0].min()
    (doubt,), (cell,) = _top(doubts, cells, count)
    return (cell if certain is None else cell[doubt > -certain]).sort().values


def _top(doubts: list[Tensor], cells: list[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    doubt, order = torch.topk(torch.cat(doubts), k=count, sorted=False)
    return [doubt], [torch.cat(cells)[order]]


def _labels_of(grid: FinerGrid, like: Tensor) -> Tensor:
    if grid.labels is None:
        grid.labels = torch.empty(grid.size, dtype=label_dtype(grid.shape[0]), device=like.device)
    return grid.labels


def best_two(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the second largest logit over the classes (C, ...), in one pass; of one class l, l and -|l| + l.

    So that their difference is minus the uncertainty of either measure.
    """
    if len(logits) == 1:
        return logits[0], logits[0] - logits[0].abs()
    best = torch.maximum(logits[0], logits[1])
    second = torch.minimum(logits[0], logits[1])
    lower = torch.empty_like(best)
    for one in logits[2:]:
        torch.minimum(best, one, out=lower)
        torch.maximum(second, lower, out=second)
        torch.maximum(best, one, out=best)
    return best, second


def label_dtype(classes: int) -> torch.dtype:
    """The smallest of uint8 and int32 that holds the labels."""
    return torch.uint8 if classes <= 255 else torch.int32


def best_classes(logits: Tensor, best: Tensor) -> Tensor:
    """First class of (C, ...) whose logit is the ``best`` (...) one; of one class, whether it is at least 0.

    Three passes over bytes instead of an arg max over floats, which is ten times slower across the outer axis.
    """
    classes = len(logits)
    if classes == 1:
        return (logits[0] >= 0).to(torch.uint8)
    order = torch.arange(classes, 0, -1, dtype=label_dtype(classes), device=logits.device)
    ranks = (logits == best) * order.view(-1, *[1] * best.ndim)
    return (classes - ranks.amax(0)).clamp_(max=classes - 1)  # a NaN equals nothing


def label_map(grid: Grid) -> Tensor:
    """(H, W) best class of each cell."""
    known = grid.known_labels()
    if known is not None:
        return known
    parts = [best_classes(logits, logits.amax(0)) for _, _, logits in bands(grid)]
    return torch.cat(parts)


def label_doubt(grid: Grid) -> Tensor:
    """(H, W) float32 in [0, 1]: 1 minus the margin between the two best probabilities."""
    parts = []
    for _, _, logits in bands(grid):
        best, second = best_two(logits)
        share = (logits - best).exp_().sum(0).reciprocal_()  # probability of the best class
        parts.append(1 - share * (1 - (second - best).exp_()))
    return torch.cat(parts).float()
