"""The box branch: pool features of each proposal, classify it, move its box once more for every class.

As in Detectron2 (``poolers.py``, ``box_head.py``, ``fast_rcnn.py``). The last class of the classifier, K, is
background.

Shapes: B images, R boxes of all images, K classes, C channels, G true objects of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from pointrend.core.selection import Generators
from pointrend.models.boxes import (
    BoxCoder,
    Regions,
    balanced_sample,
    clip_boxes,
    generator_of,
    grouped_nms,
    match,
    overlaps,
    pyramid_level,
)
from pointrend.models.roi_align import pools_by_table, roi_align_rows
from pointrend.models.weight_init import normal_fill, xavier_fill

POOLED = ("p2", "p3", "p4", "p5")
"""The pyramid levels that boxes are pooled from."""


@dataclass(frozen=True)
class BoxHeadConfig:
    """Settings of the box branch; defaults are those of all published PointRend models."""

    width: int = 1024
    """Units of the two hidden layers."""
    samples: int = 512
    """Proposals of one image that the loss sees."""
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    score_threshold: float = 0.05
    """Detections must score more."""
    nms_threshold: float = 0.5
    max_detections: int = 100
    """Detections of one image, all classes together."""


@dataclass(frozen=True)
class SampledProposals:
    """Proposals of one image that were drawn for training, positives first."""

    boxes: Tensor
    """(R, 4) float32, pixels of the network's input."""
    labels: Tensor
    """(R,) int64 class to predict; K is background."""
    matched: Tensor
    """(R,) int64 index of the true object of each; meaningless for background."""
    truth: Tensor
    """(R, 4) its box."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first, in pixels of the network's input."""

    boxes: Tensor
    """(R, 4) float32, clipped to the unpadded image; may have no area."""
    scores: Tensor
    """(R,) in [0, 1]."""
    labels: Tensor
    """(R,) int64, 0..K-1."""


def pool_regions(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, image_index: Tensor, size: int
) -> Tensor:
    """RoIAlign from the pyramid level that suits each box: (R, C, size, size).

    Aligned (half-pixel-exact) and with as many samples in each bin as it has cells (``sampling_ratio`` 0), as
    Detectron2's ROIAlignV2.

    Args:
        features: maps (B, C, H, W) of consecutive levels. strides: of each, powers of two.
        boxes: (R, 4) pixels of the network's input. image_index: (R,) int64.
    """
    lowest = int(strides[0]).bit_length() - 1  # stride 4 is level 2
    level = pyramid_level(boxes, lowest, lowest + len(features) - 1)
    rois = torch.cat([image_index[:, None].to(boxes.dtype), boxes], dim=1)  # (R, 5)
    pooled = features[0].new_zeros((boxes.shape[0], features[0].shape[1], size, size), dtype=torch.float32)
    for number, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        here = torch.nonzero(level == lowest + number).squeeze(1)
        if torch.compiler.is_compiling() or len(here):
            if pools_by_table(feature):
                part = roi_align_rows(feature, boxes[here], image_index[here], size, stride).float()
            else:
                # In bfloat16 coordinates would be off by whole pixels, so features come up to float32 instead.
                part = roi_align(
                    feature.float(), rois[here], size, 1.0 / stride, sampling_ratio=0, aligned=True
                )
            pooled = pooled.index_copy(0, here, part)
    return pooled


class BoxHead(nn.Module):
    """Two hidden layers, then K + 1 class logits and 4 deltas for each of K classes.

    Args:
        channels: C of the pooled features.
        num_classes: K, background not counted.
        strides: of the pyramid levels that are pooled from, finest first.
    """

    pool_size = 7

    def __init__(
        self, channels: int, num_classes: int, strides: Sequence[int], config: BoxHeadConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        width = config.width
        self.fc1 = nn.Linear(channels * self.pool_size**2, width)
        self.fc2 = nn.Linear(width, width)
        self.classes = nn.Linear(width, num_classes + 1)
        self.deltas = nn.Linear(width, 4 * num_classes)
        for layer in (self.fc1, self.fc2):
            xavier_fill(layer)
        normal_fill(self.classes, 0.01)
        normal_fill(self.deltas, 0.001)

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Features (R, C, 7, 7) of the boxes (R_i, 4) of every image."""
        labels = [torch.zeros_like(b[:, 0], dtype=torch.int64) for b in boxes]
        regions = Regions.from_lists(boxes, labels)
        return pool_regions(features, self.strides, regions.boxes, regions.image_index, self.pool_size)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1) and deltas (R, 4 * K), float32, for pooled features (R, C, 7, 7)."""
        hidden = F.relu(self.fc1(pooled.flatten(1).to(self.fc1.weight.dtype)))
        hidden = F.relu(self.fc2(hidden))
        return self.classes(hidden).float(), self.deltas(hidden).float()

    @torch.no_grad()
    def detect(
        self, logits: Tensor, deltas: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Final boxes of each image: decode, clip, threshold, suppress within each class, keep the best.

        Args:
            logits: (R, K + 1). deltas: (R, 4 * K). proposals: (R_i, 4) of each image, together R.
            sizes: (height, width) of each image without padding.
        """
        boxes = split_like(self.coder.decode(torch.cat(list(proposals)), deltas), proposals)
        scores = split_like(F.softmax(logits, dim=1)[:, :-1], proposals)
        return [
            select_detections(b.unflatten(1, (-1, 4)), s, size, self.config)
            for b, s, size in zip(boxes, scores, sizes, strict=True)
        ]

    @torch.no_grad()
    def sample(
        self,
        proposals: Sequence[Tensor],
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        generator: Generators = None,
    ) -> list[SampledProposals]:
        """Draw proposals for training. The true boxes (G, 4) of each image, of classes (G,), join them."""
        sampled = []
        for image, (boxes, truth, classes) in enumerate(zip(proposals, objects, labels, strict=True)):
            candidates = torch.cat([boxes, truth.to(boxes)])
            iou = overlaps(truth, candidates)
            matched, kind = match(iou, self.config.positive_iou, self.config.positive_iou)
            own = generator_of(generator, image)
            positive, negative = balanced_sample(
                kind, self.config.samples, self.config.positive_fraction, generator=own
            )
            chosen = torch.cat([positive, negative])
            label = torch.full((len(chosen),), self.num_classes, dtype=torch.int64, device=chosen.device)
            label[: len(positive)] = classes[matched[positive]]
            found = matched[chosen]
            boxes = truth[found] if len(truth) else truth.new_zeros((len(found), 4))
            sampled.append(SampledProposals(candidates[chosen], label, found, boxes))
        return sampled

    def loss(self, logits: Tensor, deltas: Tensor, sampled: Sequence[SampledProposals]) -> dict[str, Tensor]:
        """``box_class`` (cross-entropy) and ``box_regression`` (L1, true class), means over all proposals.

        Args:
            logits: (R, K + 1). deltas: (R, 4 * K), of all ``sampled`` together.
        """
        boxes, labels, truth = (
            torch.cat(parts)
            for parts in zip(*((one.boxes, one.labels, one.truth) for one in sampled), strict=True)
        )
        count = max(len(labels), 1)
        classification = F.cross_entropy(logits, labels, reduction="sum") / count
        positive = torch.nonzero(labels < self.num_classes).squeeze(1)
        own = deltas.unflatten(1, (-1, 4))[positive, labels[positive]]  # (positives, 4)
        wanted = self.coder.encode(boxes[positive], truth[positive])
        regression = F.l1_loss(own.float(), wanted, reduction="sum") / count + deltas.sum() * 0
        return {"box_class": classification, "box_regression": regression}

    @torch.no_grad()
    def boxes_of_class(self, deltas: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """The box (R, 4) predicted for one given class of each proposal: not clipped, without gradient.

        Mask heads are trained on these, since they will see predicted boxes at test
        (``MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES`` of all PointRend configurations).
        """
        rows = torch.arange(len(labels), device=labels.device)
        return self.coder.decode(boxes, deltas.unflatten(1, (-1, 4))[rows, labels])

    @torch.no_grad()
    def positives(
        self, sampled: Sequence[SampledProposals], deltas: Tensor, *, predicted: bool
    ) -> tuple[Regions, Tensor]:
        """Where mask heads are trained: all positives (R); and the index (R,) of each one's object in its image.

        Args:
            sampled: of :meth:`sample`. deltas: what was predicted for all of them together, (R of all, 4 * K).
            predicted: on the box predicted from each proposal, instead of the proposal.

        Raises:
            FloatingPointError: when a predicted box is NaN or infinite.
        """
        boxes, labels, matched = [], [], []
        for proposals, delta in zip(sampled, deltas.split([len(s.labels) for s in sampled]), strict=True):
            positive = proposals.labels < self.num_classes
            box, label = proposals.boxes[positive], proposals.labels[positive]
            if predicted:
                box = self.boxes_of_class(delta[positive], box, label)
            boxes.append(box)
            labels.append(label)
            matched.append(proposals.matched[positive])
        regions = Regions.from_lists(boxes, labels)
        if not bool(torch.isfinite(regions.boxes).all()):
            raise FloatingPointError(
                "predicted boxes are NaN or infinite; the training has diverged: lower its rate"
            )
        return regions, torch.cat(matched)


def split_like(values: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Undo the joining of parts (R_i, ...) for values (R, ...) of all."""
    return [values] if len(parts) == 1 else list(values.split([len(part) for part in parts]))


def select_detections(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], config: BoxHeadConfig
) -> Detections:
    """Detections of one image from a box (R, K, 4) and score (R, K) for each proposal and class.

    A proposal may become several classes. Proposals with a box or score that is not finite are dropped.
    """
    finite = torch.isfinite(boxes).flatten(1).all(dim=1) & torch.isfinite(scores).all(dim=1)
    boxes, scores = clip_boxes(boxes[finite], size), scores[finite]
    row, label = torch.nonzero(scores > config.score_threshold, as_tuple=True)
    boxes, scores = boxes[row, label], scores[row, label]
    kept = grouped_nms(boxes, scores, label, config.nms_threshold, config.max_detections)
    return Detections(boxes[kept], scores[kept], label[kept])
