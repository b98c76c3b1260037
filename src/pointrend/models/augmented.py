"""Models that look at a picture several times and answer once; they stand in for the model, `predict` and all.

    model = AugmentedSemantic(model)    # six sizes, each mirrored too: "ms+flip" of MMSegmentation
    model = FlippedInstances(model)     # the picture and its mirror image, as Detectron2's GeneralizedRCNNWithTTA
    model = SlidingSemantic(model, window=(512, 1024))  # window by window, for pictures too large for the network

Letters: C classes, D detections, S side of a mask, H W rows and columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pointrend.core.bands import label_map
from pointrend.core.grids import Grid
from pointrend.models.box_head import Detections
from pointrend.models.boxes import clip_boxes, grouped_nms
from pointrend.models.images import batch_images, check_image, resize_image
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticSegmenter
from pointrend.models.tta import MMSEGMENTATION_SCALES, augmented_grid, check_windows, sliding_grid
from pointrend.structures import InstanceResult, SemanticResult

# What Detectron2 keeps when it merges the views (test_time_augmentation.py): every detection was above the model's own
# threshold already.
MERGE_THRESHOLD = 1e-8


class _Wrapped:
    """What a stand-in shares with its model: configuration, training mode and device."""

    options: tuple[Any, ...] = ()
    """What else its predictions depend on."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config

    @property
    def training(self) -> bool:
        """Of the model."""
        return bool(self.model.training)

    def train(self, mode: bool = True) -> _Wrapped:
        """Put the model into training mode, or out of it."""
        self.model.train(mode)
        return self

    def eval(self) -> _Wrapped:
        """Put the model into evaluation mode."""
        return self.train(False)

    def to(self, device: torch.device | str) -> _Wrapped:
        """Move the model."""
        self.model.to(device)
        return self


class _Labelled(_Wrapped, ABC):
    """A stand-in for a semantic model; its kinds say where the scores of a picture come from."""

    @abstractmethod
    def grid(self, image: Tensor, *, refine: bool, count: int | None) -> Grid:
        """Logits or probabilities (C, H, W) of one picture uint8 (3, H, W), in its own size."""

    @torch.no_grad()
    def predict(
        self, images: Sequence[Tensor], *, refine: bool = True, count: int | None = None
    ) -> list[SemanticResult]:
        """Label maps of pictures uint8 (3, H, W), each in its own size; options as of the model's `predict`."""
        grids = (self.grid(image, refine=refine, count=count) for image in images)
        return [self.config.result(label_map(grid)) for grid in grids]


class AugmentedSemantic(_Labelled):
    """A semantic model averaged over sizes and mirror images, see `tta.augmented_probabilities`.

    Args:
        scales: sizes relative to the picture's own.
        flip: each size also mirrored left to right.
    """

    def __init__(
        self,
        model: SemanticSegmenter,
        *,
        scales: Sequence[float] = MMSEGMENTATION_SCALES,
        flip: bool = True,
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales: expected one or more positive numbers, got {tuple(scales)}")
        super().__init__(model)
        self.scales, self.flip = tuple(scales), flip
        self.options = (self.scales, flip)

    def grid(self, image: Tensor, *, refine: bool, count: int | None) -> Grid:
        return augmented_grid(
            self.model, image, scales=self.scales, flip=self.flip, refine=refine, count=count
        )


class SlidingSemantic(_Labelled):
    """A semantic model that looks through overlapping windows and averages their logits, see `tta.sliding_grid`.

    The network holds the features of one window at a time; labels at boundaries are as fine as ever, and what a class
    is must show within a window.

    Args:
        window: rows and columns in pixels, at the model's test size.
        stride: from one window to the next; two thirds of the window if not given.
    """

    def __init__(
        self, model: SemanticSegmenter, window: tuple[int, int], stride: tuple[int, int] | None = None
    ) -> None:
        super().__init__(model)
        if stride is None:
            stride = max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)
        check_windows(window, stride)
        self.window, self.stride = window, stride
        self.options = (window, stride)

    def grid(self, image: Tensor, *, refine: bool, count: int | None) -> Grid:
        return sliding_grid(
            self.model, image, window=self.window, stride=self.stride, refine=refine, count=count
        )


class FlippedInstances(_Wrapped):
    """An instance model that sees each picture and its mirror image.

    Boxes of both views are put together and suppressed within each class; the mask head then predicts each box that
    is left in both views, and the two mask probabilities, S x S over the box, are averaged before pasting.
    """

    def __init__(self, model: InstanceSegmenter) -> None:
        super().__init__(model)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], *, uncertainty: bool = False) -> list[InstanceResult]:
        """The objects in each picture uint8 (3, H, W), best first, in its own pixels."""
        return [self._predict(image, uncertainty) for image in images]

    def _predict(self, image: Tensor, uncertainty: bool) -> InstanceResult:
        model: InstanceSegmenter = self.model
        check_image(image)
        resized = resize_image(image, self.config.preprocessing)
        width = resized.shape[-1]
        # The mirrored picture is padded on the right as the other, so that its pixels are x -> width - x.
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
    """Boxes (D, 4) in the left-right mirror image of a picture so many pixels wide."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)
