"""Logits of one image that are read a chunk of rows at a time, and computed when they are read.

The grids of :func:`~pointrend.core.subdivision.render` for whole images: each step keeps its points, never its
(C, H, W) logits. For inference: no gradients.

Shapes: C classes, P points, H W rows and columns of a grid; one image at a time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend.core.gather import neighbours
from pointrend.core.subdivision import Size

CHUNK_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Logits of a chunk of rows: what stays in a CPU's cache, or few launches on a GPU."""


class LazyGrid(ABC):
    """Logits (C, H, W) that can be had row by row; a grid of `core.subdivision` with N = 1.

    Args:
        shape: C, H, W.
        labels_at: a pass over a grid of this size for its most uncertain cells notes the labels in passing.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        labels_at: Size | None = None,
    ) -> None:
        self.shape, self.dtype, self.device, self.labels_at = shape, dtype, device, labels_at
        self.labels: Tensor | None = None
        """(H, W) best class of each cell, where it is known already."""

    @property
    def size(self) -> Size:
        return self.shape[1], self.shape[2]

    @abstractmethod
    def rows(self, first: int, last: int) -> Tensor:
        """(C, last - first, W) logits; not to be written to."""

    def row_chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """The grid from top to bottom: first row, last row (exclusive) and logits (C, r, W) of each chunk."""
        channels, height, width = self.shape
        budget = CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cuda"])
        step = max(4, budget // (channels * width * self.dtype.itemsize))
        for first in range(0, height, step):
            last = min(first + step, height)
            yield first, last, self.rows(first, last)

    def upsample(self, size: Size) -> LazyGrid:
        """The grid interpolated bilinearly to so many rows and columns."""
        return UpsampledLogits(self, size)

    def most_uncertain(self, num_points: int, min_uncertainty: float | None = None) -> Tensor:
        """Flat indices (1, P) of the most uncertain cells, ascending: as ``most_uncertain_cells``, in one pass."""
        _, height, width = self.shape
        top = _TopCells(min(num_points, height * width), height * width, self.dtype, self.device)
        labels = None
        if self.labels_at == self.size:
            labels = torch.empty(self.size, dtype=label_dtype(self.shape[0]), device=self.device)
        for first, last, logits in self.row_chunks():
            best, second = best_two(logits)
            if labels is not None:
                labels[first:last] = best_classes(logits, best)
            top.add((second - best).flatten(), first * width)
        self.labels = labels
        uncertainty, cells = top.best()
        if min_uncertainty is not None:
            cells = cells[uncertainty > min_uncertainty]
        return cells.sort().values[None]

    def put(self, cells: Tensor, values: Tensor) -> LazyGrid:
        """The grid in which the cells (1, P), ascending, hold the logits (1, C, P)."""
        return UpsampledLogits(self, self.size).put(cells, values)

    def crop(self, size: Size) -> LazyGrid:
        """The top left corner: an image without its padding."""
        return CroppedLogits(self, size)

    def resize(self, size: Size) -> LazyGrid:
        """The grid in another size; itself where it has that size."""
        return self if self.size == size else UpsampledLogits(self, size)

    def label_map(self) -> Tensor:
        """(H, W) best class of each cell, uint8 or int32."""
        if self.labels is not None:
            return self.labels
        return self._map(label_dtype(self.shape[0]), lambda logits: best_classes(logits, logits.amax(0)))

    def label_uncertainty(self) -> Tensor:
        """(H, W) float32 in [0, 1]: 1 minus the margin between the two best probabilities."""

        def uncertainty(logits: Tensor) -> Tensor:
            best, second = best_two(logits)
            share = (logits - best).exp_().sum(0).reciprocal_()  # probability of the best class
            return 1 - share * (1 - (second - best).exp_())

        return self._map(torch.float32, uncertainty)

    def _map(self, dtype: torch.dtype, of_chunk: Callable[[Tensor], Tensor]) -> Tensor:
        """(H, W) of what is computed from each chunk's logits."""
        values = torch.empty(self.size, dtype=dtype, device=self.device)
        for first, last, logits in self.row_chunks():
            values[first:last] = of_chunk(logits)
        return values


class DenseLogits(LazyGrid):
    """A grid of which all logits (C, H, W) are there: the coarse prediction."""

    def __init__(self, logits: Tensor, labels_at: Size | None = None) -> None:
        channels, height, width = logits.shape
        super().__init__((channels, height, width), logits.dtype, logits.device, labels_at)
        self.logits = logits

    def rows(self, first: int, last: int) -> Tensor:
        return self.logits[:, first:last]


class CroppedLogits(LazyGrid):
    """The top left corner of a grid."""

    def __init__(self, source: LazyGrid, size: Size) -> None:
        super().__init__((source.shape[0], *size), source.dtype, source.device)
        self.source = source
        if source.labels is not None:
            self.labels = source.labels[: size[0], : size[1]]

    def rows(self, first: int, last: int) -> Tensor:
        return self.source.rows(first, last)[..., : self.shape[2]]


class UpsampledLogits(LazyGrid):
    """A grid of any size, interpolated bilinearly from another one (``align_corners=False``), with points put in."""

    def __init__(self, source: LazyGrid, size: Size) -> None:
        super().__init__((source.shape[0], *size), source.dtype, source.device, source.labels_at)
        self.source = source
        self.above, self.below, share = _taps(source.shape[1], size[0], self.dtype)
        self.share = share.to(self.device)[:, None]
        self.index = torch.empty(0, dtype=torch.int64, device=self.device)
        self.values = torch.empty((source.shape[0], 0), dtype=self.dtype, device=self.device)
        self.starts: list[int] | None = None

    def put(self, cells: Tensor, values: Tensor) -> UpsampledLogits:
        """This grid itself, in which the cells (1, P), ascending, hold the logits (1, C, P)."""
        self.index, self.values, self.starts = cells[0], values[0].to(self.dtype), None
        if self.labels is not None:
            self.labels.view(-1)[self.index] = best_classes(self.values, self.values.amax(0))
        return self

    def rows(self, first: int, last: int) -> Tensor:
        channels, height, width = self.source.shape
        top, bottom = self._between(first, last)
        chunk = self.source.rows(top, bottom)  # (C, h, w)
        if width != self.size[1]:
            # One axis at a time: the horizontal one on the fewer rows of the coarser grid.
            lines = chunk.reshape(1, channels * (bottom - top), width)
            chunk = F.interpolate(lines, size=self.size[1], mode="linear", align_corners=False)
            chunk = chunk.view(channels, bottom - top, self.size[1])
        if height != self.size[0]:
            above, below = (taps[first:last].to(chunk.device) - top for taps in (self.above, self.below))
            chunk = torch.lerp(chunk[:, above], chunk[:, below], self.share[first:last])
        return self._with_points(chunk, first, last)

    def _between(self, first: int, last: int) -> tuple[int, int]:
        """The rows of the source that these lie between: counted here, since ``above`` may be on a GPU."""
        height, size = self.source.shape[1], self.size[0]
        if height == size or (first, last) == (0, size):
            return (first, last) if height == size else (0, height)
        upper, lower = (max(0.0, (row + 0.5) * height / size - 0.5) for row in (first, last - 1))
        # 0.01: more than rounding may move a position.
        return max(0, math.floor(upper - 0.01)), min(height, math.floor(lower + 0.01) + 2)

    def _with_points(self, chunk: Tensor, first: int, last: int) -> Tensor:
        index, values = self.index, self.values
        if (first, last) != (0, self.size[0]) and len(index):
            if index.device.type != "cpu":
                return self._with_points_unread(chunk, first, last)
            start, end = self._starts()[first], self._starts()[last]
            index, values = index[start:end] - first * self.size[1], values[:, start:end]
        if not len(index):
            return chunk
        flat = chunk.flatten(1).clone() if self.source.size == self.size else chunk.flatten(1)
        return flat.index_copy_(1, index, values).view_as(chunk)

    def _starts(self) -> list[int]:
        """For each row, and behind the last, how many points lie above it."""
        if self.starts is None:
            ends = torch.arange(self.size[0] + 1, device=self.index.device) * self.size[1]
            self.starts = torch.searchsorted(self.index, ends).tolist()
        return self.starts

    def _with_points_unread(self, chunk: Tensor, first: int, last: int) -> Tensor:
        """A GPU would have to wait for the number of points in a chunk: all are put in, those of others aside."""
        cells = (last - first) * self.size[1]
        local = self.index - first * self.size[1]
        local = torch.where((local >= 0) & (local < cells), local, cells)  # one cell more, for "aside"
        flat = F.pad(chunk.flatten(1), (0, 1)).index_copy_(1, local, self.values)
        return flat[:, :cells].view_as(chunk)


def _taps(source: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``size`` rows the two of ``source`` rows that it lies between, and the share of the second."""
    exact = torch.promote_types(dtype, torch.float32)
    scale = torch.tensor(source, dtype=exact) / size  # in the logits' precision, as F.interpolate has it
    position = (torch.arange(size, dtype=exact) + 0.5) * scale - 0.5
    above, below, _, share = neighbours(position, source, border=True)
    return above, below, share.to(dtype)


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


class _TopCells:
    """The ``num_points`` most uncertain of the cells seen so far, in memory that is there from the start.

    Small tensors kept from each chunk would lie between the freed chunks, which then could not be used again: a heap of
    gigabytes for an image of 33 million pixels.
    """

    def __init__(self, num_points: int, cells: int, dtype: torch.dtype, device: torch.device) -> None:
        room = min(5 * num_points, cells)
        self.num_points, self.held = num_points, 0
        self.uncertainties = torch.empty(room, dtype=dtype, device=device)
        self.cells = torch.empty(room, dtype=torch.int64, device=device)
        self.least: Tensor | None = None

    def add(self, uncertainty: Tensor, start: int) -> None:
        """The cells ``start``, ``start + 1``, ... have these uncertainties (P,)."""
        near = None
        # A GPU would have to wait for their number.
        if self.least is not None and uncertainty.device.type == "cpu":
            near = torch.nonzero(uncertainty > self.least).squeeze(1)
        if near is None or len(near) > self.num_points:
            near = torch.topk(uncertainty, min(self.num_points, len(uncertainty)), sorted=False).indices
        if self.held + len(near) > len(self.uncertainties):
            self._keep_best()
        held = slice(self.held, self.held + len(near))
        self.uncertainties[held], self.cells[held] = uncertainty[near], near + start
        self.held += len(near)
        if self.held > 4 * self.num_points:
            self._keep_best()

    def best(self) -> tuple[Tensor, Tensor]:
        """Uncertainties and cells (num_points,)."""
        self._keep_best()
        return self.uncertainties[: self.held], self.cells[: self.held]

    def _keep_best(self) -> None:
        if self.held <= self.num_points:
            return
        uncertainty, order = torch.topk(self.uncertainties[: self.held], self.num_points, sorted=False)
        self.uncertainties[: self.num_points] = uncertainty
        self.cells[: self.num_points] = self.cells[: self.held][order]
        self.held, self.least = self.num_points, uncertainty.min()
