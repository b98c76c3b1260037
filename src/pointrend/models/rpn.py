"""Region proposals: anchors on every pyramid level, scored and moved by a small head (Faster R-CNN).

Numbers and orders as in Detectron2 (``modeling/proposal_generator/rpn.py``, ``anchor_generator.py``).
Its checkpoints need anchors without rounding, stride 64 for p6 whatever its size, and NMS ranked by logits.

Shapes: B images, A anchors of one image (of a level or of all), R boxes, H W rows and columns of a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointrend.core.selection import Generators
from pointrend.models.boxes import (
    BoxCoder,
    balanced_sample,
    clip_boxes,
    generator_of,
    grouped_nms,
    has_area,
    match,
    overlaps,
)
from pointrend.models.weight_init import normal_fill


@dataclass(frozen=True)
class ProposalConfig:
    """Settings of the region proposal network; defaults are those of all published PointRend models."""

    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side in pixels of the square anchor of each level, finest level first."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width, at equal area."""
    anchor_offset: float = 0.0
    """Where in its cell an anchor is centred: 0 the top-left corner (Detectron2), 0.5 the middle."""
    before_nms_train: int = 2000
    """Best anchors kept on each level of each image."""
    before_nms_test: int = 1000
    after_nms: int = 1000
    """Proposals of one image, all levels together."""
    nms_threshold: float = 0.7
    samples: int = 256
    """Anchors of one image that the loss sees."""
    positive_fraction: float = 0.5
    background_iou: float = 0.3
    positive_iou: float = 0.7


@dataclass(frozen=True)
class AnchorPredictions:
    """What the head says about every anchor: one entry per level, in the order (row, column, shape)."""

    logits: list[Tensor]
    """(B, A) objectness of each level, float32."""
    deltas: list[Tensor]
    """(B, A, 4) of each level, float32, to be decoded against the anchors."""
    anchors: list[Tensor]
    """(A, 4) of each level, pixels of the network's input."""


@dataclass(frozen=True)
class Proposals:
    """Candidate boxes of one image, best first."""

    boxes: Tensor
    """(R, 4) float32, pixels of the network's input, clipped to the unpadded image."""
    logits: Tensor
    """(R,) objectness."""


def base_anchors(size: float, aspect_ratios: Sequence[float]) -> Tensor:
    """Anchors (shapes, 4) of one level around the origin, float32, not rounded."""
    shapes = []
    for ratio in aspect_ratios:
        width = math.sqrt(size**2 / ratio)
        height = ratio * width
        shapes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(shapes)


def grid_anchors(base: Tensor, height: int, width: int, stride: int, *, offset: float = 0.0) -> Tensor:
    """Base anchors (shapes, 4) at every cell of a grid: (H * W * shapes, 4), in order (row, column, shape).

    ``offset`` says where in its cell an anchor is centred, in cells: 0 is the cell's top-left corner.
    """
    xs = (torch.arange(width, dtype=torch.float32, device=base.device) + offset) * stride
    ys = (torch.arange(height, dtype=torch.float32, device=base.device) + offset) * stride
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    shift = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
    return (shift[:, :, None] + base).reshape(-1, 4)


class ProposalNetwork(nn.Module):
    """A 3x3 convolution shared by all levels, then for each anchor one logit and four deltas.

    Args:
        channels: of every pyramid level.
        strides: input pixels per cell, one for each level.
        config: anchors, selection and loss; one anchor size per level.
    """

    def __init__(self, channels: int, strides: Sequence[int], config: ProposalConfig) -> None:
        super().__init__()
        if len(strides) != len(config.anchor_sizes):
            raise ValueError(
                f"anchor_sizes: expected one for each of the {len(strides)} levels, got {config.anchor_sizes}"
            )
        self.config = config
        self.strides = tuple(strides)
        self.coder = BoxCoder()
        shapes = len(config.aspect_ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, shapes, 1)
        self.deltas = nn.Conv2d(channels, 4 * shapes, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            normal_fill(layer, 0.01)

    def forward(self, features: Sequence[Tensor]) -> AnchorPredictions:
        """Score every anchor of every level; ``features`` are maps (B, C, H, W), finest first."""
        predictions = AnchorPredictions([], [], [])
        for level, stride, size in zip(features, self.strides, self.config.anchor_sizes, strict=True):
            hidden = F.relu(self.conv(level))
            logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
            deltas = self.deltas(hidden).permute(0, 2, 3, 1).unflatten(3, (-1, 4)).flatten(1, 3)
            base = base_anchors(size, self.config.aspect_ratios).to(level.device)
            height, width = level.shape[-2:]
            predictions.logits.append(logits.float())
            predictions.deltas.append(deltas.float())
            predictions.anchors.append(
                grid_anchors(base, height, width, stride, offset=self.config.anchor_offset)
            )
        return predictions

    @torch.no_grad()
    def propose(
        self, predictions: AnchorPredictions, sizes: Sequence[tuple[int, int]], *, training: bool = False
    ) -> list[Proposals]:
        """The best boxes of each image, without gradient.

        Args:
            predictions: of :meth:`forward`.
            sizes: (height, width) of each image without padding, in pixels.
            training: consider ``before_nms_train`` anchors on each level, and refuse boxes that are not
                finite instead of dropping them.

        Raises:
            FloatingPointError: in training, when a logit or box is NaN or infinite: the network has diverged.
        """
        limit = self.config.before_nms_train if training else self.config.before_nms_test
        boxes, logits, levels = [], [], []  # each (B, ..) per level
        for number, (score, delta, anchors) in enumerate(
            zip(predictions.logits, predictions.deltas, predictions.anchors, strict=True)
        ):
            best, index = score.topk(torch.sym_min(limit, score.shape[1]), dim=1)  # (B, k)
            chosen = torch.gather(delta, 1, index[..., None].expand(-1, -1, 4))
            decoded = self.coder.decode(anchors[index].flatten(0, 1), chosen.flatten(0, 1))
            boxes.append(decoded.view(*index.shape, 4))
            logits.append(best)
            levels.append(torch.full_like(index[0], number))
        level = torch.cat(levels)
        return [
            self._select(b, s, level, size, training)
            for b, s, size in zip(torch.cat(boxes, dim=1), torch.cat(logits, dim=1), sizes, strict=True)
        ]

    def _select(
        self, boxes: Tensor, logits: Tensor, level: Tensor, size: tuple[int, int], training: bool
    ) -> Proposals:
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(logits)
        if training and not bool(finite.all()):
            raise FloatingPointError(
                f"region proposals: {int((~finite).sum())} of {len(finite)} boxes or logits are NaN or "
                "infinite; the training has diverged: lower the learning rate or clip gradients"
            )
        boxes = clip_boxes(boxes, size)
        keep = finite & has_area(boxes)
        boxes, logits, level = boxes[keep], logits[keep], level[keep]
        kept = grouped_nms(boxes, logits, level, self.config.nms_threshold, self.config.after_nms)
        return Proposals(boxes[kept], logits[kept])

    def loss(
        self,
        predictions: AnchorPredictions,
        objects: Sequence[Tensor],
        *,
        generator: Generators = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch: ``rpn_objectness`` (cross-entropy) and ``rpn_box`` (L1), over samples * images.

        Args:
            predictions: of :meth:`forward`.
            objects: (G, 4) true boxes of each image, G may be 0; all with a positive size.
            generator: for a reproducible choice of anchors; one, or one for each image.
        """
        anchors = torch.cat(predictions.anchors)  # (A, 4)
        logits = torch.cat(predictions.logits, dim=1)  # (B, A)
        deltas = torch.cat(predictions.deltas, dim=1)  # (B, A, 4)
        objectness = logits.sum() * 0  # connected to the graph, whatever is sampled
        box = deltas.sum() * 0
        for image, truth in enumerate(objects):
            matched, positive, negative = self._assign(anchors, truth, generator_of(generator, image))
            chosen = torch.cat([logits[image, positive], logits[image, negative]])
            target = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).to(chosen.dtype)
            objectness = objectness + F.binary_cross_entropy_with_logits(chosen, target, reduction="sum")
            if len(positive):
                wanted = self.coder.encode(anchors[positive], truth[matched[positive]])
                box = box + F.l1_loss(deltas[image, positive].float(), wanted, reduction="sum")
        samples = self.config.samples * len(objects)
        return {"rpn_objectness": objectness / samples, "rpn_box": box / samples}

    @torch.no_grad()
    def _assign(
        self, anchors: Tensor, truth: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Best object of every anchor, and which anchors are drawn as positives and as background."""
        config = self.config
        iou = overlaps(truth, anchors)
        matched, kind = match(iou, config.background_iou, config.positive_iou, keep_best_of_each=True)
        return matched, *balanced_sample(kind, config.samples, config.positive_fraction, generator=generator)
