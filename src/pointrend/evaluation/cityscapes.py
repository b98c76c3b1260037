"""Cityscapes: instance AP by the official matching rules, and IoU of classes and categories.

Our own implementation of the rules that the Cityscapes benchmark states and its scripts follow (Cordts et al.,
CVPR 2016, sec. 4.2; evalInstanceLevelSemanticLabeling, evalPixelLevelSemanticLabeling); those scripts have a
non-commercial licence and are not needed. A test compares the two where they are installed.

Shapes: H W rows and columns of the image, P predictions and G annotated regions of one class, T overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pointrend.evaluation.semantic_metrics import MeanIoU
from pointrend.masks.rle import CocoDetection, decode_window
from pointrend.metadata.cityscapes import GROUP, INSTANCE_LABELS, LABELS, TRAIN_LABELS
from pointrend.structures import InstanceMasks

__all__ = ["CityscapesAP", "CityscapesIoU"]


OVERLAPS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100
"""Smaller objects are no objects to be found; detections on them are not counted as mistakes."""


class CityscapesIoU(MeanIoU):
    """IoU of the 19 classes and of the 7 categories; predictions and targets as train ids, 255 ignored."""

    def __init__(self, *, class_names: Sequence[str] | None = None) -> None:
        own = [label.name for label in TRAIN_LABELS]
        if class_names is not None and list(class_names) != own:
            raise ValueError(
                f"class_names: expected Cityscapes' {', '.join(own)}, got {', '.join(class_names)}"
            )
        super().__init__(len(TRAIN_LABELS), class_names=own)

    def compute(self) -> dict[str, float]:
        """As `MeanIoU`, and `category mIoU`."""
        return {**super().compute(), "category mIoU": _nanmean(np.array(list(self.per_category().values())))}

    def per_category(self) -> dict[str, float]:
        """Category -> IoU, confusion within the category being no mistake; NaN for categories that are absent."""
        scores = {}
        for category in dict.fromkeys(label.category for label in TRAIN_LABELS):
            own = [label.train_id for label in TRAIN_LABELS if label.category == category]
            correct = self.counts[own][:, own].sum()
            union = self.counts[own].sum() + self.counts[:, own].sum() - correct
            scores[category] = float(correct.double() / union.double())
        return scores


@dataclass
class _Tally:
    """What the images so far say about one class at one overlap."""

    hits: list[float] = field(default_factory=list)
    """Scores of the detections that found an object."""
    mistakes: list[float] = field(default_factory=list)
    missed: int = 0


class CityscapesAP:
    """Average precision of instances by the official rules, at overlaps 0.5, 0.55 ... 0.95, on 8 classes.

    For each class and overlap: an object (100 pixels or more, not a group) is found by the best scored
    detection whose IoU with it is *above* the overlap; further ones are mistakes. A detection that matches
    nothing is a mistake, unless the share of it that lies on ignored pixels (void classes, groups and
    small objects of its class) is above the overlap. Detections may overlap each other. AP is the area under the
    precision-recall curve, step-wise. Merged shards give exactly the score of all images at once.
    """

    def __init__(self) -> None:
        self._tallies = [[_Tally() for _ in OVERLAPS] for _ in INSTANCE_LABELS]
        self._detections = [0] * len(INSTANCE_LABELS)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the 8 classes."""
        return tuple(label.name for label in INSTANCE_LABELS)

    def update(
        self,
        masks: InstanceMasks,
        labels: Sequence[int] | Tensor,
        scores: Sequence[float] | Tensor,
        truth: Tensor,
    ) -> None:
        """Count one image.

        Args:
            masks: of the D detections, in the image's pixels; empty ones are left out.
            labels: (D,) contiguous class 0..7, in the order of `INSTANCE_LABELS`.
            scores: (D,) finite.
            truth: (H, W) ids of the *_instanceIds.png file.

        Raises:
            ValueError: if sizes, labels, scores or ids do not fit.
        """
        classes, confidence, ids = self._checked(masks, labels, scores, truth)
        regions, pixels = np.unique(ids, return_counts=True)
        void = np.isin(regions, [label.id for label in LABELS if label.ignored])
        # Pixels that each detection shares with each id.
        overlap = np.zeros((len(masks), len(regions)), dtype=np.int64)
        for number, (window, (x, y)) in enumerate(zip(masks.windows, masks.offsets.tolist(), strict=True)):
            inside = window.detach().cpu().numpy() != 0
            under = ids[y : y + inside.shape[0], x : x + inside.shape[1]][inside]
            found, counts = np.unique(under, return_counts=True)
            overlap[number, np.searchsorted(regions, found)] = counts
        sizes = overlap.sum(1)
        for number, label in enumerate(INSTANCE_LABELS):
            mine = (classes == number) & (sizes > 0)
            own = np.where(regions < GROUP, regions, regions // GROUP) == label.id
            self._detections[number] += int(mine.sum())
            self._count(
                self._tallies[number],
                confidence[mine],
                sizes[mine],
                overlap[mine][:, own],
                pixels[own],
                regions[own] < GROUP,
                overlap[mine][:, void].sum(1),
            )

    def update_records(
        self, records: Sequence[CocoDetection], truth: Tensor, category_ids: Sequence[int] | None = None
    ) -> None:
        """Count one image's detections in COCO's format; their `category_id`s are labels 0..7, or `category_ids`
        of these.
        """
        ids = list(category_ids) if category_ids is not None else list(range(len(INSTANCE_LABELS)))
        unknown = [record["category_id"] for record in records if record["category_id"] not in ids]
        if unknown:
            raise ValueError(f"category_id: expected some of {ids}, got {unknown[0]!r}")
        masks = _masks_of(records, (truth.shape[0], truth.shape[1]))
        labels = [ids.index(record["category_id"]) for record in records]
        self.update(masks, labels, [record["score"] for record in records], truth)

    def merge(self, other: CityscapesAP) -> None:
        """Add what `other` has counted."""
        for mine, theirs in zip(self._tallies, other._tallies, strict=True):
            for tally, more in zip(mine, theirs, strict=True):
                tally.hits += more.hits
                tally.mistakes += more.mistakes
                tally.missed += more.missed
        self._detections = [a + b for a, b in zip(self._detections, other._detections, strict=True)]

    def compute(self) -> dict[str, float]:
        """`Cityscapes AP` and `Cityscapes AP50`, means over the classes that have objects; NaN if none has."""
        table = self._table()
        return {"Cityscapes AP": _nanmean(table), "Cityscapes AP50": _nanmean(table[:, 0])}

    def per_class(self) -> dict[str, list[float]]:
        """`Cityscapes AP` and `Cityscapes AP50` of each class, NaN for classes without objects."""
        table = self._table()
        return {"Cityscapes AP": table.mean(1).tolist(), "Cityscapes AP50": table[:, 0].tolist()}

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """None."""
        return {}

    def _table(self) -> np.ndarray:
        """(8, T) AP."""
        return np.array(
            [
                [_average_precision(tally, detected > 0) for tally in row]
                for row, detected in zip(self._tallies, self._detections, strict=True)
            ]
        )

    @staticmethod
    def _count(
        tallies: Sequence[_Tally],
        scores: np.ndarray,
        sizes: np.ndarray,
        overlap: np.ndarray,
        pixels: np.ndarray,
        group: np.ndarray,
        void: np.ndarray,
    ) -> None:
        """One class of one image.

        Args:
            tallies: T of them.
            scores, sizes, void: (P,) of the detections; void in pixels.
            overlap: (P, G) pixels.
            pixels, group: (G,) of the annotated regions.
        """
        iou = overlap / (sizes[:, None] + pixels - overlap)
        small = pixels < MIN_PIXELS
        objects = np.flatnonzero(~group & ~small)
        # The official script counts the pixels of a small group twice; so do we.
        excused = (void + overlap[:, group].sum(1) + overlap[:, small].sum(1)) / sizes
        for tally, threshold in zip(tallies, OVERLAPS, strict=True):
            match = iou > threshold  # above one half: a detection matches one region at most
            for region in objects:
                found = np.sort(scores[match[:, region]])
                if found.size:
                    tally.hits.append(float(found[-1]))
                    tally.mistakes.extend(found[:-1].tolist())
                else:
                    tally.missed += 1
            tally.mistakes.extend(scores[~match.any(1) & (excused <= threshold)].tolist())

    def _checked(
        self,
        masks: InstanceMasks,
        labels: Sequence[int] | Tensor,
        scores: Sequence[float] | Tensor,
        truth: Tensor,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        classes, confidence = np.asarray(labels, np.int64), np.asarray(scores, np.float64)
        ids = np.asarray(truth)
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape != tuple(masks.image_size):
            raise ValueError(
                f"truth: expected instance ids of the masks' image {tuple(masks.image_size)},"
                f" got {ids.dtype} {ids.shape}"
            )
        if classes.shape != (len(masks),) or confidence.shape != (len(masks),):
            raise ValueError(
                f"expected a label and a score for each of {len(masks)} masks, got {classes.shape}, {confidence.shape}"
            )
        if ((classes < 0) | (classes >= len(INSTANCE_LABELS))).any():
            raise ValueError(
                f"labels: expected 0..{len(INSTANCE_LABELS) - 1}, got {sorted(set(classes.tolist()))}"
            )
        if not np.isfinite(confidence).all():
            raise ValueError("scores: expected finite numbers, got NaN or infinity")
        label_ids = np.where(ids < GROUP, ids, ids // GROUP)
        if ids.size and not 0 <= label_ids.min() <= label_ids.max() < len(LABELS):
            raise ValueError(
                f"truth: expected label ids 0..{len(LABELS) - 1}, or 1000 times these and a number,"
                f" got {ids.min()}..{ids.max()}; give the *_instanceIds.png file"
            )
        return classes, confidence, ids.astype(np.int64)


def _masks_of(records: Sequence[CocoDetection], image_size: tuple[int, int]) -> InstanceMasks:
    """The records' run lengths as masks on their windows."""
    found = [decode_window(record["segmentation"]["counts"], image_size) for record in records]
    offsets = torch.tensor([offset for _, offset in found], dtype=torch.int64).reshape(-1, 2)
    return InstanceMasks([window for window, _ in found], offsets, image_size)


def _average_precision(tally: _Tally, detected: bool) -> float:
    """Area under the precision-recall curve, as the official script integrates it.

    One point for each distinct score: all detections at or above it. To these comes (recall 0, precision 1). A point's
    precision holds half-way to its neighbours' recalls.
    """
    if not tally.hits and not tally.missed:
        return float("nan")  # no objects of this class
    if not detected or not (tally.hits or tally.mistakes):
        return 0.0
    scores = np.array(tally.hits + tally.mistakes)
    order = np.argsort(scores)
    correct = (np.arange(scores.size) < len(tally.hits))[order]
    first = np.unique(scores[order], return_index=True)[1]  # in ascending order of score
    right = correct[::-1].cumsum()[::-1][first].astype(np.float64)  # hits at or above each score
    precision = np.append(right / (scores.size - first), 1.0)
    recall = np.append(right / (len(tally.hits) + tally.missed), 0.0)
    padded = np.concatenate((recall[:1], recall, [0.0]))
    return float(precision @ ((padded[:-2] - padded[2:]) / 2))


def _nanmean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
