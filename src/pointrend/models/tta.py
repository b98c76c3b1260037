"""Slower, better ways of running a semantic model: flipped, at several scales, window by window.

As in MMSegmentation 1.x, whose published "ms+flip" numbers come from the first.

Shapes: C classes, H W rows and columns.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pointrend.core.lazy_grid import LazyGrid
from pointrend.core.subdivision import Size
from pointrend.models.base import ModelConfig, Pretrained
from pointrend.models.box_head import Detections
from pointrend.models.boxes import clip_boxes, grouped_nms
from pointrend.models.inputs import batch_images, check_image, resize_image, resize_to
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.semantic_model import LabelMapConfig, SemanticModel
from pointrend.results import InstanceResult, SemanticResult

MMSEGMENTATION_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class MirroredGrid(LazyGrid):
    """A grid seen in a mirror, left to right."""

    def __init__(self, source: LazyGrid) -> None:
        super().__init__(source.shape, source.dtype, source.device)
        self.source = source

    def rows(self, first: int, last: int) -> Tensor:
        return self.source.rows(first, last).flip(-1)


class MeanProbabilities(LazyGrid):
    """The mean over several grids of logits of one size, each as probabilities."""

    def __init__(self, views: Sequence[LazyGrid]) -> None:
        super().__init__(views[0].shape, views[0].dtype, views[0].device)
        self.views = views

    def rows(self, first: int, last: int) -> Tensor:
        total = self.views[0].rows(first, last).softmax(0)
        for view in self.views[1:]:
            total += view.rows(first, last).softmax(0)
        return total / len(self.views)


class SlidingGrid(LazyGrid):
    """The mean of grids of logits that lie on a larger one and overlap; together they cover it.

    Args:
        views: first row, first column and logits of each.
        size: rows and columns of the whole.
    """

    def __init__(self, views: Sequence[tuple[int, int, LazyGrid]], size: Size) -> None:
        first = views[0][2]
        super().__init__((first.shape[0], *size), first.dtype, first.device)
        self.views = views

    def rows(self, first: int, last: int) -> Tensor:
        shape = (self.shape[0], last - first, self.shape[2])
        total = torch.zeros(shape, dtype=self.dtype, device=self.device)
        counts = torch.zeros(shape[1:], dtype=self.dtype, device=self.device)
        for top, left, view in self.views:
            start, end = max(first, top), min(last, top + view.shape[1])
            if start < end:
                here = (..., slice(start - first, end - first), slice(left, left + view.shape[2]))
                total[here] += view.rows(start - top, end - top)
                counts[here] += 1
        return total.div_(counts)


def _windows(length: int, window: int, stride: int) -> list[slice]:
    """Windows along one axis; together they cover it."""
    number = max(0, -(-(length - window) // stride)) + 1
    starts = [max(0, min(i * stride, length - window)) for i in range(number)]
    return [slice(start, min(start + window, length)) for start in starts]


# What Detectron2 keeps when it merges the views (test_time_augmentation.py): every detection was above the model's own
# threshold already.
MERGE_THRESHOLD = 1e-8


class ModelWrapper(nn.Module):
    """A stand-in for a model, which is a part of it: it is moved, and put into evaluation mode, with it."""

    config: ModelConfig
    model: Pretrained
    options: tuple[object, ...] = ()
    """What else its predictions depend on."""

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.task = model.task
        self.train(model.training)


class _SemanticWrapper(ModelWrapper, ABC):
    """A stand-in for a semantic model; its kinds say where the scores of an image come from."""

    config: LabelMapConfig
    model: SemanticModel

    @abstractmethod
    def grid(self, image: Tensor, *, refine: bool = True, num_points: int | None = None) -> LazyGrid:
        """Logits or probabilities (C, H, W) of one image uint8 (3, H, W), in its own size, to be read in row chunks."""

    @torch.no_grad()
    def predict(
        self, images: Sequence[Tensor], *, refine: bool = True, num_points: int | None = None
    ) -> list[SemanticResult]:
        """Label maps of images uint8 (3, H, W), each in its own size; options as of the model's `predict`."""
        grids = (self.grid(image, refine=refine, num_points=num_points) for image in images)
        return [self.config.result(grid.label_map()) for grid in grids]


class AugmentedSemantic(_SemanticWrapper):
    """A semantic model whose class probabilities are the mean over sizes and mirror images.

    Args:
        scales: sizes relative to the image's own (not to the model's test size, as MMSegmentation 0.x had it: the
            same for Cityscapes, not for ADE20K); pixels are resized in uint8 the model's way.
        flip: each size also mirrored left to right.

    Raises ValueError for no scales, or one that is not positive and finite.
    """

    def __init__(
        self,
        model: SemanticModel,
        *,
        scales: Sequence[float] = MMSEGMENTATION_SCALES,
        flip: bool = True,
    ) -> None:
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"scales: expected one or more positive numbers, got {tuple(scales)}")
        super().__init__(model)
        self.scales, self.flip = tuple(scales), flip
        self.options = (self.scales, flip)

    @torch.no_grad()
    def grid(self, image: Tensor, *, refine: bool = True, num_points: int | None = None) -> LazyGrid:
        check_image(image)
        model, preprocessing = self.model, self.config.preprocessing
        height, width = image.shape[1:]
        views: list[LazyGrid] = []
        for scale in self.scales:
            size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
            view = resize_to(image, size, preprocessing.resize)
            for mirrored in (False, True) if self.flip else (False,):
                batch = batch_images([view.flip(-1) if mirrored else view], preprocessing, model.device)
                grid = model.grids(batch, refine=refine, num_points=num_points)[0].crop(size)
                views.append((MirroredGrid(grid) if mirrored else grid).resize((height, width)))
        return MeanProbabilities(views)


class SlidingSemantic(_SemanticWrapper):
    """A semantic model that looks through overlapping windows and averages their logits.

    The network holds the features of one window at a time, and of each window coarse logits and points are kept;
    labels at boundaries are as fine as ever, and what a class is must show within a window. The last window of each
    row and column is shifted back inside.

    Args:
        window: rows and columns in pixels, at the model's test size.
        stride: from one window to the next; two thirds of the window if not given.

    Raises ValueError for a window or stride below 1, or a stride that leaves gaps.
    """

    def __init__(
        self, model: SemanticModel, window: tuple[int, int], stride: tuple[int, int] | None = None
    ) -> None:
        super().__init__(model)
        if stride is None:
            stride = max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)
        if min(window) < 1:
            raise ValueError(f"window: expected at least one row and one column, got {window}")
        if not all(1 <= step <= side for step, side in zip(stride, window, strict=True)):
            raise ValueError(f"stride: expected 1 to the window's {window} (rows, columns), got {stride}")
        self.window, self.stride = window, stride
        self.options = (window, stride)

    @torch.no_grad()
    def grid(self, image: Tensor, *, refine: bool = True, num_points: int | None = None) -> LazyGrid:
        check_image(image)
        model, preprocessing = self.model, self.config.preprocessing
        img = resize_image(image, preprocessing)
        height, width = img.shape[1:]
        views = []
        for rows in _windows(height, self.window[0], self.stride[0]):
            for columns in _windows(width, self.window[1], self.stride[1]):
                part = img[:, rows, columns]
                batch = batch_images([part], preprocessing, model.device)
                grid = model.grids(batch, refine=refine, num_points=num_points)[0]
                views.append((rows.start, columns.start, grid.crop((part.shape[1], part.shape[2]))))
        return SlidingGrid(views, (height, width)).resize((image.shape[1], image.shape[2]))


class FlippedInstances(ModelWrapper):
    """An instance model that sees each image and its mirror image.

    Boxes of both views are put together and suppressed within each class; the mask head then predicts each box that
    is left in both views, and the two mask probabilities, S x S over the box, are averaged before pasting.
    """

    config: InstanceConfig
    model: InstanceSegmenter

    def __init__(self, model: InstanceSegmenter) -> None:
        super().__init__(model)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], *, uncertainty: bool = False) -> list[InstanceResult]:
        """The objects in each image uint8 (3, H, W), best first, in its own pixels."""
        return [self._predict(image, uncertainty) for image in images]

    def _predict(self, image: Tensor, uncertainty: bool) -> InstanceResult:
        model = self.model
        check_image(image)
        resized = resize_image(image, self.config.preprocessing)
        width = resized.shape[-1]
        # The mirrored image is padded on the right as the other, so that its pixels are x -> width - x.
        views = [
            batch_images([view], self.config.preprocessing, model.device)
            for view in (resized, resized.flip(-1))
        ]
        maps = [model.features(view) for view in views]
        seen = [
            model.detect(features, model.propose(features, view), view)[0]
            for features, view in zip(maps, views, strict=True)
        ]
        seen[1] = Detections(_mirrored(seen[1].boxes, width), seen[1].scores, seen[1].labels)
        merged = self._merge(seen, views[0].sizes[0])
        logits = [
            model.masks_for_boxes(features, [boxes], [merged.labels])[0]
            for features, boxes in zip(maps, (merged.boxes, _mirrored(merged.boxes, width)), strict=True)
        ]
        mean = (logits[0].sigmoid() + logits[1].flip(-1).sigmoid()) / 2  # (D, S, S)
        return model.finish([image], views[0], [merged], [mean.logit()], uncertainty=uncertainty)[0]

    def _merge(self, seen: Sequence[Detections], size: tuple[int, int]) -> Detections:
        boxes = clip_boxes(torch.cat([found.boxes for found in seen]), size)
        scores = torch.cat([found.scores for found in seen])
        labels = torch.cat([found.labels for found in seen])
        there = scores > MERGE_THRESHOLD
        boxes, scores, labels = boxes[there], scores[there], labels[there]
        settings = self.config.boxes
        kept = grouped_nms(boxes, scores, labels, settings.nms_threshold, settings.max_detections)
        return Detections(boxes[kept], scores[kept], labels[kept])


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes (D, 4) in the left-right mirror image of an image so many pixels wide."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)
