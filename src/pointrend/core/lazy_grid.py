"""Grids of logits that are read a band of rows at a time, and computed when they are read.

:mod:`pointrend.core.lazy_grid` subdivides with them. For inference: no gradients.

Shapes: C classes, P points, H W rows and columns of a grid; one image at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.sampling import cell_centers
from pointrend.core.subdivision import PredictAt, Size


class Grid(Protocol):
    """Logits (C, H, W) that can be had row by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""

    @property
    def kind(self) -> Tensor:
        """(0,): type and device of the logits, without computing any."""

    def rows(self, first: int, last: int) -> Tensor:
        """(C, last - first, W) logits; not to be written to."""

    def known_labels(self) -> Tensor | None:
        """(H, W) best class of each cell, where a pass over the grid has found it already."""


class DenseLogits:
    """A grid of which all logits (C, H, W) are there: the coarse prediction."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.logits.shape
        return channels, height, width

    @property
    def kind(self) -> Tensor:
        return self.logits.new_empty(0)

    def rows(self, first: int, last: int) -> Tensor:
        return self.logits[:, first:last]

    def known_labels(self) -> Tensor | None:
        return None


class CroppedLogits:
    """The top left corner of a grid: an image without its padding."""

    def __init__(self, source: Grid, size: Size) -> None:
        self.source, self.size = source, size

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape[0], *self.size

    @property
    def kind(self) -> Tensor:
        return self.source.kind

    def rows(self, first: int, last: int) -> Tensor:
        return self.source.rows(first, last)[..., : self.size[1]]

    def known_labels(self) -> Tensor | None:
        known = self.source.known_labels()
        return None if known is None else known[: self.size[0], : self.size[1]]


class UpsampledLogits:
    """A grid of any size, interpolated bilinearly from another one (``align_corners=False``), with points put in.

    Args:
        source: the grid before.
        size: rows and columns.
    """

    def __init__(self, source: Grid, size: Size) -> None:
        self.source, self.size = source, (int(size[0]), int(size[1]))
        self.kind = source.kind
        self.above, self.below, share = _taps(source.shape[1], self.size[0], self.kind.dtype)
        self.share = share.to(self.kind.device)[:, None]
        self.index = self.kind.new_empty(0, dtype=torch.int64)
        self.values = self.kind.new_empty((source.shape[0], 0))
        self.starts: list[int] | None = None
        self.labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape[0], *self.size

    def put_in(self, index: Tensor, values: Tensor) -> None:
        """The cells with ascending flat indices (P,) get the logits (C, P); their labels change with them."""
        self.index, self.values, self.starts = index, values.to(self.values.dtype), None
        if self.labels is not None:
            self.labels.view(-1)[index] = best_classes(self.values, self.values.amax(0))

    def rows(self, first: int, last: int) -> Tensor:
        channels, height, width = self.source.shape
        top, bottom = (first, last) if height == self.size[0] else (0, height)
        if height != self.size[0] and (first, last) != (0, self.size[0]):
            top, bottom = self._between(first, last)
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

    def _between(self, first: int, last: int) -> tuple[int, int]:
        """The rows of the source that these lie between: counted here, since ``above`` may be on a GPU."""
        height, size = self.source.shape[1], self.size[0]
        upper, lower = (max(0.0, (row + 0.5) * height / size - 0.5) for row in (first, last - 1))
        # 0.01: more than rounding may move a position.
        return max(0, math.floor(upper - 0.01)), min(height, math.floor(lower + 0.01) + 2)

    def _with_points(self, band: Tensor, first: int, last: int) -> Tensor:
        index, values = self.index, self.values
        if (first, last) != (0, self.size[0]) and len(index):
            if index.device.type != "cpu":
                return self._with_points_unread(band, first, last)
            start, end = self._starts()[first], self._starts()[last]
            index, values = index[start:end] - first * self.size[1], values[:, start:end]
        if not len(index):
            return band
        flat = band.flatten(1) if band.shape[1:] != self.source.shape[1:] else band.flatten(1).clone()
        return flat.index_copy_(1, index, values).view_as(band)

    def _starts(self) -> list[int]:
        """For each row, and behind the last, how many points lie above it."""
        if self.starts is None:
            ends = torch.arange(self.size[0] + 1, device=self.index.device) * self.size[1]
            self.starts = torch.searchsorted(self.index, ends).tolist()
        return self.starts

    def _with_points_unread(self, band: Tensor, first: int, last: int) -> Tensor:
        """A GPU would have to wait for the number of points in a band: all are put in, those of other bands aside."""
        cells = (last - first) * self.size[1]
        local = self.index - first * self.size[1]
        local = torch.where((local >= 0) & (local < cells), local, cells)
        flat = F.pad(band.flatten(1), (0, 1)).index_copy_(1, local, self.values)  # one cell more, for "aside"
        return flat[:, :cells].view_as(band)


def _taps(source: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``size`` rows the two of ``source`` rows that it lies between, and the share of the second."""
    exact = torch.promote_types(dtype, torch.float32)
    scale = torch.tensor(source, dtype=exact) / size  # in the logits' precision, as F.interpolate has it
    position = ((torch.arange(size, dtype=exact) + 0.5) * scale - 0.5).clamp_(min=0)
    above = position.long().clamp_(max=source - 1)
    below = (above + 1).clamp_(max=source - 1)
    return above, below, (position - above).to(dtype)


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


BAND_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Logits of a band: what stays in a CPU's cache, or few launches on a GPU."""


def subdivide_lazily(
    logits: Tensor,
    predict_at: PredictAt,
    *,
    sizes: Sequence[Size],
    num_points: int,
    min_uncertainty: float | None = None,
    labels: bool = True,
) -> Grid:
    """What :func:`~pointrend.core.subdivision.subdivide` does, of one image, as a grid to be read row by row.

    Args:
        logits: (C, H, W) coarse logits.
        predict_at: the point head: (1, P, 2) in the unit square of the image -> (1, C, P).
        sizes: the grid of each step.
        num_points: points predicted in each step.
        min_uncertainty: leave cells alone whose uncertainty is not above this, see ``subdivide``.
        labels: note the labels of the last grid in passing.
    """
    grid: Grid = DenseLogits(logits)
    for number, size in enumerate(sizes, 1):
        finer = UpsampledLogits(grid, size)
        index = most_uncertain_in_bands(
            finer, num_points, min_uncertainty=min_uncertainty, labels=labels and number == len(sizes)
        )
        points = cell_centers(index[None], *finer.size)  # (1, P, 2)
        finer.put_in(index, predict_at(points)[0])
        grid = finer
    return grid


def bands(grid: Grid) -> Iterator[tuple[int, int, Tensor]]:
    """The grid from top to bottom: first row, last row (exclusive) and logits (C, r, W) of each band."""
    channels, height, width = grid.shape
    budget = BAND_BYTES.get(grid.kind.device.type, BAND_BYTES["cuda"])
    step = max(4, budget // (channels * width * grid.kind.element_size()))
    for first in range(0, height, step):
        last = min(first + step, height)
        yield first, last, grid.rows(first, last)


def most_uncertain_in_bands(
    grid: UpsampledLogits, num_points: int, *, min_uncertainty: float | None = None, labels: bool = False
) -> Tensor:
    """Flat indices (P,) of the most uncertain cells, ascending: as ``most_uncertain_cells``, in one pass.

    Args:
        min_uncertainty: only those whose uncertainty is above this.
        labels: also note each cell's best class in the grid.
    """
    _, height, width = grid.shape
    num_points = min(num_points, height * width)
    top = _Top(num_points, height * width, like=grid.kind)
    for first, last, logits in bands(grid):
        best, second = best_two(logits)
        doubt = (second - best).flatten()
        if labels:
            _labels_of(grid, best)[first:last] = best_classes(logits, best)
        top.see(doubt, first * width)
    doubt, cell = top.best()
    return (cell if min_uncertainty is None else cell[doubt > min_uncertainty]).sort().values


class _Top:
    """The ``num_points`` most uncertain of the cells seen so far, in memory that is there from the start.

    Small tensors kept from each band would lie between the freed bands, which then could not be used again: a heap of
    gigabytes for an image of 33 million pixels.
    """

    def __init__(self, num_points: int, cells: int, *, like: Tensor) -> None:
        room = min(5 * num_points, cells)
        self.num_points, self.held = num_points, 0
        self.doubts = like.new_empty(room)
        self.cells = torch.empty(room, dtype=torch.int64, device=like.device)
        self.least: Tensor | None = None

    def see(self, doubt: Tensor, start: int) -> None:
        """The cells ``start``, ``start + 1``, ... have these doubts (P,)."""
        near = None
        if self.least is not None and doubt.device.type == "cpu":  # a GPU would have to wait for their number
            near = torch.nonzero(doubt > self.least).squeeze(1)
        if near is None or len(near) > self.num_points:
            near = torch.topk(doubt, min(self.num_points, len(doubt)), sorted=False).indices
        if self.held + len(near) > len(self.doubts):
            self._keep_best()
        held = slice(self.held, self.held + len(near))
        self.doubts[held], self.cells[held] = doubt[near], near + start
        self.held += len(near)
        if self.held > 4 * self.num_points:
            self._keep_best()

    def best(self) -> tuple[Tensor, Tensor]:
        """Uncertainties and cells (num_points,)."""
        self._keep_best()
        return self.doubts[: self.held], self.cells[: self.held]

    def _keep_best(self) -> None:
        if self.held <= self.num_points:
            return
        doubt, order = torch.topk(self.doubts[: self.held], self.num_points, sorted=False)
        self.doubts[: self.num_points], self.cells[: self.num_points] = doubt, self.cells[: self.held][order]
        self.held, self.least = self.num_points, doubt.min()


def _labels_of(grid: UpsampledLogits, like: Tensor) -> Tensor:
    if grid.labels is None:
        grid.labels = torch.empty(grid.size, dtype=label_dtype(grid.shape[0]), device=like.device)
    return grid.labels


def label_map(grid: Grid) -> Tensor:
    """(H, W) best class of each cell."""
    known = grid.known_labels()
    if known is not None:
        return known
    return _whole(grid, label_dtype(grid.shape[0]), lambda logits: best_classes(logits, logits.amax(0)))


def label_uncertainty(grid: Grid) -> Tensor:
    """(H, W) float32 in [0, 1]: 1 minus the margin between the two best probabilities."""

    def doubt(logits: Tensor) -> Tensor:
        best, second = best_two(logits)
        share = (logits - best).exp_().sum(0).reciprocal_()  # probability of the best class
        return 1 - share * (1 - (second - best).exp_())

    return _whole(grid, torch.float32, doubt)


def _whole(grid: Grid, dtype: torch.dtype, of_band: Callable[[Tensor], Tensor]) -> Tensor:
    """(H, W) of what is computed from each band's logits."""
    whole = torch.empty(grid.shape[1:], dtype=dtype, device=grid.kind.device)
    for first, last, logits in bands(grid):
        whole[first:last] = of_band(logits)
    return whole
