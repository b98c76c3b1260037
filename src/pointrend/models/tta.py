"""Slower, better ways of running a semantic model: flipped, at several scales, window by window.

As in MMSegmentation 1.x, whose published "ms+flip" numbers come from the first.

Letters: C classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend.core.grids import CroppedGrid, Grid
from pointrend.core.subdivision import Size
from pointrend.models.images import batch_images, check_image, resize_image, resize_to
from pointrend.models.semantic import SemanticSegmenter, resized

MMSEGMENTATION_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@torch.no_grad()
def augmented_probabilities(
    model: SemanticSegmenter,
    image: Tensor,
    *,
    scales: Sequence[float] = MMSEGMENTATION_SCALES,
    flip: bool = True,
    refine: bool = True,
    count: int | None = None,
) -> Tensor:
    """Mean class probabilities of a picture over sizes and mirror images: uint8 (3, H, W) -> float32 (C, H, W).

    Args:
        scales: sizes relative to the picture's own (not to the model's test size, as MMSegmentation 0.x had it: the
            same for Cityscapes, not for ADE20K); pixels are resized in uint8 the model's way.
        flip: each size also mirrored left to right.
        refine, count: as of the model's `predict`.

    Raises ValueError for no scales, or one that is not positive.
    """
    grid = augmented_grid(model, image, scales=scales, flip=flip, refine=refine, count=count)
    return grid.rows(0, grid.shape[1])


@torch.no_grad()
def augmented_grid(
    model: SemanticSegmenter,
    image: Tensor,
    *,
    scales: Sequence[float] = MMSEGMENTATION_SCALES,
    flip: bool = True,
    refine: bool = True,
    count: int | None = None,
) -> Grid:
    """The probabilities of `augmented_probabilities` to be read band by band: their labels cost no (C, H, W)."""
    check_image(image)
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales: expected one or more positive numbers, got {tuple(scales)}")
    height, width = image.shape[1:]
    views: list[Grid] = []
    for scale in scales:
        size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        view = resize_to(image, size, model.config.preprocessing.resize)
        for mirrored in (False, True) if flip else (False,):
            batch = batch_images(
                [view.flip(-1) if mirrored else view], model.config.preprocessing, model.device
            )
            grid: Grid = CroppedGrid(model.grids(batch, refine=refine, count=count)[0], size)
            views.append(resized(MirroredGrid(grid) if mirrored else grid, (height, width)))
    return MeanProbabilities(views)


class MirroredGrid:
    """A grid seen in a mirror, left to right."""

    def __init__(self, source: Grid) -> None:
        self.source = source

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape

    @property
    def kind(self) -> Tensor:
        return self.source.kind

    def rows(self, first: int, last: int) -> Tensor:
        return self.source.rows(first, last).flip(-1)

    def known_labels(self) -> Tensor | None:
        return None


class MeanProbabilities:
    """The mean over several grids of logits of one size, each as probabilities."""

    def __init__(self, views: Sequence[Grid]) -> None:
        self.views = views

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.views[0].shape

    @property
    def kind(self) -> Tensor:
        return self.views[0].kind

    def rows(self, first: int, last: int) -> Tensor:
        total = self.views[0].rows(first, last).softmax(0)
        for view in self.views[1:]:
            total += view.rows(first, last).softmax(0)
        return total / len(self.views)

    def known_labels(self) -> Tensor | None:
        return None


@torch.no_grad()
def sliding_logits(
    model: SemanticSegmenter, image: Tensor, *, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Logits of a picture seen through overlapping windows, averaged: uint8 (3, H, W) -> float32 (C, H, W).

    The picture is first resized to the model's test size, where `window` and `stride` are (rows, columns) in
    pixels; the last window of each row and column is shifted back inside. Memory for the network is that of
    one window; :func:`sliding_grid` never holds the (C, H, W) either.

    Raises ValueError for a window or stride below 1, or a stride that leaves gaps.
    """
    grid = sliding_grid(model, image, window=window, stride=stride)
    return grid.rows(0, grid.shape[1])


@torch.no_grad()
def sliding_grid(
    model: SemanticSegmenter,
    image: Tensor,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    refine: bool = True,
    count: int | None = None,
) -> Grid:
    """The logits of `sliding_logits` to be read band by band: of each window, coarse logits and points are kept."""
    check_image(image)
    check_windows(window, stride)
    preprocessing = model.config.preprocessing
    picture = resize_image(image, preprocessing)
    height, width = picture.shape[1:]
    views = []
    for rows in _windows(height, window[0], stride[0]):
        for columns in _windows(width, window[1], stride[1]):
            part = picture[:, rows, columns]
            grid = model.grids(batch_images([part], preprocessing, model.device), refine=refine, count=count)
            views.append((rows.start, columns.start, CroppedGrid(grid[0], (part.shape[1], part.shape[2]))))
    return resized(SlidingGrid(views, (height, width)), image.shape[1:])


def check_windows(window: tuple[int, int], stride: tuple[int, int]) -> None:
    """ValueError for a window or stride below 1, or a stride that leaves gaps."""
    if min(window) < 1:
        raise ValueError(f"window: expected at least one row and one column, got {window}")
    if not all(1 <= step <= side for step, side in zip(stride, window, strict=True)):
        raise ValueError(f"stride: expected 1 to the window's {window} (rows, columns), got {stride}")


class SlidingGrid:
    """The mean of grids of logits that lie on a larger one and overlap; together they cover it.

    Args:
        views: first row, first column and logits of each.
        size: rows and columns of the whole.
    """

    def __init__(self, views: Sequence[tuple[int, int, Grid]], size: Size) -> None:
        self.views, self.size = views, size

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.views[0][2].shape[0], *self.size

    @property
    def kind(self) -> Tensor:
        return self.views[0][2].kind

    def rows(self, first: int, last: int) -> Tensor:
        total = self.kind.new_zeros((self.shape[0], last - first, self.size[1]))
        counts = self.kind.new_zeros((last - first, self.size[1]))
        for top, left, view in self.views:
            start, end = max(first, top), min(last, top + view.shape[1])
            if start < end:
                here = (..., slice(start - first, end - first), slice(left, left + view.shape[2]))
                total[here] += view.rows(start - top, end - top)
                counts[here] += 1
        return total.div_(counts)

    def known_labels(self) -> Tensor | None:
        return None


def _windows(length: int, window: int, stride: int) -> list[slice]:
    """Windows along one axis; together they cover it."""
    count = max(0, -(-(length - window) // stride)) + 1
    starts = [max(0, min(i * stride, length - window)) for i in range(count)]
    return [slice(start, min(start + window, length)) for start in starts]
