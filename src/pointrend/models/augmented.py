"""Models that look at a picture several times and answer once; they stand in for the model, `predict` and all.

    model = AugmentedSemantic(model)    # six sizes, each mirrored too: "ms+flip" of MMSegmentation
    model = FlippedInstances(model)     # the picture and its mirror image, as Detectron2's GeneralizedRCNNWithTTA

Letters: C classes, D detections, S side of a mask, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pointrend.core.bands import label_map
from pointrend.models.box_head import Detections
from pointrend.models.boxes import clip_boxes, grouped_nms
from pointrend.models.images import batch_images, check_image, resize_image
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticSegmenter
from pointrend.models.tta import MMSEGMENTATION_SCALES, augmented_grid
from pointrend.structures import IGNORE_LABEL, InstanceResult, SemanticResult

# What Detectron2 keeps when it merges the views (test_time_augmentation.py): every detection was above the model's own
# threshold already.
MERGE_THRESHOLD = 1e-8


class _Wrapped:
    """What a stand-in shares with its model: configuration and training mode."""

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


class AugmentedSemantic(_Wrapped):
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

    @torch.no_grad()
    def predict(
        self, images: Sequence[Tensor], *, refine: bool = True, count: int | None = None
    ) -> list[SemanticResult]:
        """Label maps of pictures uint8 (3, H, W), each in its own size; options as of the model's `predict`."""
        small = torch.uint8 if self.config.num_classes <= IGNORE_LABEL else torch.int64
        results = []
        for image in images:
            mean = augmented_grid(
                self.model, image, scales=self.scales, flip=self.flip, refine=refine, count=count
            )
            labels = label_map(mean).to(small)
            results.append(SemanticResult(labels, self.config.class_names, self.config.palette))
        return results


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
