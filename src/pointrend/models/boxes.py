"""Boxes: coding, matching, sampling, suppression, levels. The arithmetic that a two-stage detector shares.

Every box is ``(x1, y1, x2, y2)`` in pixels of the network's input, in continuous coordinates (a box's width
is ``x2 - x1``), and stays float32 whatever the autocast dtype. The numbers are Detectron2's
(``modeling/box_regression.py``, ``matcher.py``, ``sampling.py``, ``poolers.py``), since its checkpoints
depend on them.

Shapes: R boxes, A anchors, G true objects, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from pointrend.core.selection import Generators

# The most that a box may grow in one step: 62.5 times. Keeps exp() finite for an untrained network.
LOG_SCALE_LIMIT = math.log(1000.0 / 16)


@dataclass(frozen=True)
class Regions:
    """The boxes of a whole batch in one list, so that heads need no loop over images."""

    boxes: Tensor
    """(R, 4) float32, pixels of the network's input."""
    image_index: Tensor
    """(R,) int64: which image of the batch, ascending."""
    labels: Tensor
    """(R,) int64: class of each box, 0..K-1."""

    @classmethod
    def from_lists(cls, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Regions:
        """Join per-image lists of boxes (R_i, 4) and labels (R_i,).

        Raises:
            ValueError: when the two lists do not describe the same boxes.
        """
        for i, (b, label) in enumerate(zip(boxes, labels, strict=True)):
            if b.ndim != 2 or b.shape[1] != 4 or label.shape != b.shape[:1]:
                raise ValueError(
                    f"image {i}: expected boxes (R, 4) and labels (R,), "
                    f"got {tuple(b.shape)} and {tuple(label.shape)}"
                )
        index = [torch.full_like(label, i, dtype=torch.int64) for i, label in enumerate(labels)]
        return cls(torch.cat(list(boxes)).float(), torch.cat(index), torch.cat(list(labels)).long())

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, index: Tensor) -> Regions:
        """The regions with these indices."""
        return Regions(self.boxes[index], self.image_index[index], self.labels[index])

    def check(self, num_classes: int) -> None:
        """Raise a ValueError for a box that is not finite, or of no such class."""
        if torch.compiler.is_compiling():
            return
        wrong = ~torch.isfinite(self.boxes).all(1) | (self.labels < 0) | (self.labels >= num_classes)
        if bool(wrong.any()):
            box, label = self.boxes[wrong][0].tolist(), int(self.labels[wrong][0])
            raise ValueError(
                f"expected finite boxes and labels 0..{num_classes - 1}, got box {box} of class {label}; leave it out"
            )

    def chunks(self, at_once: int) -> Iterator[Regions]:
        """The regions in pieces of at most ``at_once``; one empty piece where there is none."""
        for first in range(0, max(len(self), 1), at_once):
            part = slice(first, first + at_once)
            yield Regions(self.boxes[part], self.image_index[part], self.labels[part])

    def split(self, values: Tensor, images: int) -> list[Tensor]:
        """Undo the joining for any (R, ...) tensor: one tensor per image."""
        if images == 1:
            return [values]
        return list(values.split(torch.bincount(self.image_index, minlength=images).tolist()))

    def channels(self, masks: int) -> Tensor:
        """(R,) int64: which of a head's so many masks is each box's: that of its class, or the only one."""
        return torch.zeros_like(self.labels) if masks == 1 else self.labels

    def own(self, logits: Tensor) -> Tensor:
        """(R, K, ...) logits, K = 1 where class-agnostic -> (R, 1, ...): each box's channel."""
        row = torch.arange(logits.shape[0], device=logits.device)
        return logits[row, self.channels(logits.shape[1])][:, None]

    def generators(self, generator: Generators) -> Generators:
        """One generator for each region where there is one for each image; else the one there is."""
        if not isinstance(generator, Sequence):
            return generator
        return [generator[image] for image in self.image_index.tolist()]


def generator_of(generator: Generators, image: int) -> torch.Generator | None:
    """The generator of this image, where each has its own; else the one there is."""
    return generator[image] if isinstance(generator, Sequence) else generator


@dataclass(frozen=True)
class BoxCoder:
    """Writes a box as four numbers relative to a reference box: shift over size, and log of the scale.

    The weights multiply (dx, dy, dw, dh): all 1 in the RPN, (10, 10, 5, 5) in the box head (Fast R-CNN).
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def encode(self, reference: Tensor, target: Tensor) -> Tensor:
        """What takes ``reference`` (R, 4) to ``target`` (R, 4): deltas (R, 4). Both need a positive size."""
        centre, size = _centre_and_size(reference.float())
        target_centre, target_size = _centre_and_size(target.float())
        weights = reference.new_tensor(self.weights, dtype=torch.float32)
        return torch.cat([(target_centre - centre) / size, torch.log(target_size / size)], dim=1) * weights

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (R, 4 * M) for deltas (R, 4 * M): M (such as one per class) for each reference box (R, 4)."""
        centre, size = _centre_and_size(reference.float())
        parts = deltas.float().unflatten(1, (-1, 4)) / deltas.new_tensor(self.weights, dtype=torch.float32)
        centre = parts[..., :2] * size[:, None] + centre[:, None]  # (R, M, 2)
        half = 0.5 * torch.exp(parts[..., 2:].clamp(max=LOG_SCALE_LIMIT)) * size[:, None]
        return torch.cat([centre - half, centre + half], dim=2).flatten(1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * size, size


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut to an image of ``size`` (height, width): to 0..width and 0..height, inclusive."""
    height, width = size
    # Axis by axis: a tensor of the sizes would be a constant in an exported graph.
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), -1).flatten(-2)


def has_area(boxes: Tensor) -> Tensor:
    """(R,) bool: boxes (R, 4) that are wider and higher than nothing."""
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)


def overlaps(objects: Tensor, candidates: Tensor) -> Tensor:
    """IoU (G, A) of objects (G, 4) with candidates (A, 4), both with a positive size."""
    # Blocks of 16 objects: 200 000 anchors and 500 objects would take 2.4 GB of corner coordinates at once.
    return torch.cat([box_iou(block, candidates) for block in objects.split(16)])


def match(iou: Tensor, low: float, high: float, *, keep_best_of_each: bool = False) -> tuple[Tensor, Tensor]:
    """Give every candidate its best object, and say whether it counts as one.

    Args:
        iou: (G, A) overlap of each object with each candidate.
        low: below this overlap a candidate is background.
        high: from this overlap on it is a positive; in between it is left out of training.
        keep_best_of_each: also make each object's best candidates positive (ties included), however small the
            overlap. They keep *their own* best object, which need not be that one (as in Detectron2).

    Returns:
        (A,) int64 index of the best object (0 where there is none), and (A,) int64: 1 positive, 0 background,
        -1 neither.
    """
    if iou.shape[0] == 0:
        zeros = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
        return zeros, zeros.clone()
    best, index = iou.max(dim=0)
    kind = torch.full_like(index, -1)
    kind[best < low] = 0
    kind[best >= high] = 1
    if keep_best_of_each and iou.shape[1]:
        best_of_object = iou.max(dim=1, keepdim=True).values  # (G, 1)
        # An object that no candidate touches has a best overlap of 0, shared by all candidates: none of them
        # is meant.
        kind[((iou == best_of_object) & (best_of_object > 0)).any(dim=0)] = 1
    return index, kind


def balanced_sample(
    kind: Tensor, count: int, positive_fraction: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` candidates, at most that fraction of them positive, filled up with background.

    Args:
        kind: (A,) as :func:`match` gives it: 1 positive, 0 background, -1 never drawn.

    Returns:
        Two int64 index lists, positives and background, in random order.
    """
    positive = torch.nonzero(kind == 1).squeeze(1)
    negative = torch.nonzero(kind == 0).squeeze(1)
    positives = min(len(positive), int(count * positive_fraction))
    negatives = min(len(negative), count - positives)
    return _draw(positive, positives, generator), _draw(negative, negatives, generator)


def _draw(index: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    device = index.device if generator is None else generator.device
    order = torch.randperm(len(index), generator=generator, device=device)
    return index[order[:count].to(index.device)]


def grouped_nms(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, limit: int) -> Tensor:
    """Greedy non-maximum suppression among boxes of the same group (class or pyramid level).

    A box goes when a better one of its group overlaps it by more than ``threshold`` (strictly). Equal scores
    keep their order. Groups are shifted apart so that one plain pass serves them all; the shift is done in
    float64, since in float32 it would move boxes by 0.1 pixel with 1203 classes.

    Args:
        boxes: (R, 4). group: (R,) int64.
        scores: (R,), any monotonic ranking: raw logits, not sigmoids that saturate.
        limit: how many to keep at most.

    Returns:
        int64 indices of the boxes kept, best first.
    """
    if torch.compiler.is_compiling():  # one node of an exported graph, which has operators of its own for it
        found: Tensor = torch.ops.pointrend.grouped_nms(boxes, scores, group, threshold, limit)
        return found
    if boxes.shape[0] == 0 or limit == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = torch.sort(scores, descending=True, stable=True).indices
    # MPS has no float64; half a million pixels of shift still leave it 0.03 pixel.
    exact = torch.float32 if boxes.device.type == "mps" else torch.float64
    span = boxes.max() - boxes.min() + 1
    shifted = boxes.to(exact) + (group.to(exact) * span.to(exact))[:, None]
    # The best `limit` never depend on what ranks below them, so a prefix that yields enough is as good as the
    # whole. 1000 proposals of 80 classes are 80 000 candidates for 100 detections.
    length = 0
    while length < len(order):
        length = min(len(order), max(4 * limit, 8 * length))
        head = order[:length]
        kept = nms(shifted[head], scores[head].to(exact), threshold)
        if len(kept) >= limit:
            break
    return head[kept[:limit]]


_LIBRARY = torch.library.Library("pointrend", "DEF")
_LIBRARY.define(
    "grouped_nms(Tensor boxes, Tensor scores, Tensor group, float threshold, int limit) -> Tensor"
)
_LIBRARY.impl("grouped_nms", grouped_nms, "CompositeExplicitAutograd")


def _number_unknown(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, limit: int) -> Tensor:
    """What a tracer sees: as many indices as there will be."""
    return group.new_empty(torch.library.get_ctx().new_dynamic_size(min=0, max=limit), dtype=torch.int64)


torch.library.register_fake("pointrend::grouped_nms", _number_unknown, lib=_LIBRARY)


def pyramid_level(boxes: Tensor, lowest: int, highest: int) -> Tensor:
    """The FPN level (R,) int64 that suits each box (R, 4): level 4 for 224 pixels (FPN paper, eq. 1)."""
    side = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return torch.floor(4 + torch.log2(side / 224 + 1e-8)).clamp(lowest, highest).long()
