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

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pointrend.core.coordinates import cell_centers
from pointrend.core.grids import FinerGrid, Grid, HeldGrid, best_classes, best_two, label_dtype
from pointrend.core.subdivision import PredictAt, Size

BAND_BYTES = {"cpu": 2**21, "cuda": 2**28}
"""Logits of a band: what stays in a CPU's cache, or few launches on a GPU."""


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
    budget = BAND_BYTES.get(grid.kind.device.type, BAND_BYTES["cuda"])
    step = max(4, budget // (channels * width * grid.kind.element_size()))
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
    top = _Top(count, height * width, like=grid.kind)
    for first, last, logits in bands(grid):
        best, second = best_two(logits)
        doubt = (second - best).flatten()
        if labels:
            _labels_of(grid, best)[first:last] = best_classes(logits, best)
        top.see(doubt, first * width)
    doubt, cell = top.best()
    return (cell if certain is None else cell[doubt > -certain]).sort().values


class _Top:
    """The ``count`` most uncertain of the cells seen so far, in memory that is there from the start.

    Small tensors kept from each band would lie between the freed bands, which then could not be used again: a heap of
    gigabytes for a picture of 33 million pixels.
    """

    def __init__(self, count: int, cells: int, *, like: Tensor) -> None:
        room = min(5 * count, cells)
        self.count, self.held = count, 0
        self.doubts = like.new_empty(room)
        self.cells = torch.empty(room, dtype=torch.int64, device=like.device)
        self.least: Tensor | None = None

    def see(self, doubt: Tensor, start: int) -> None:
        """The cells ``start``, ``start + 1``, ... have these doubts (P,)."""
        near = None
        if self.least is not None and doubt.device.type == "cpu":  # a GPU would have to wait for their number
            near = torch.nonzero(doubt > self.least).squeeze(1)
        if near is None or len(near) > self.count:
            near = torch.topk(doubt, min(self.count, len(doubt)), sorted=False).indices
        if self.held + len(near) > len(self.doubts):
            self._keep_best()
        held = slice(self.held, self.held + len(near))
        self.doubts[held], self.cells[held] = doubt[near], near + start
        self.held += len(near)
        if self.held > 4 * self.count:
            self._keep_best()

    def best(self) -> tuple[Tensor, Tensor]:
        """Doubts and cells (count,)."""
        self._keep_best()
        return self.doubts[: self.held], self.cells[: self.held]

    def _keep_best(self) -> None:
        if self.held <= self.count:
            return
        doubt, order = torch.topk(self.doubts[: self.held], self.count, sorted=False)
        self.doubts[: self.count], self.cells[: self.count] = doubt, self.cells[: self.held][order]
        self.held, self.least = self.count, doubt.min()


def _labels_of(grid: FinerGrid, like: Tensor) -> Tensor:
    if grid.labels is None:
        grid.labels = torch.empty(grid.size, dtype=label_dtype(grid.shape[0]), device=like.device)
    return grid.labels


def label_map(grid: Grid) -> Tensor:
    """(H, W) best class of each cell."""
    known = grid.known_labels()
    if known is not None:
        return known
    return _whole(grid, label_dtype(grid.shape[0]), lambda logits: best_classes(logits, logits.amax(0)))


def label_doubt(grid: Grid) -> Tensor:
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
