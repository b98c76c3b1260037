"""Scores of semantic label maps: mean IoU, trimap mIoU and boundary IoU, image by image.

Every evaluator here keeps whole-number counts and nothing else, so memory does not grow with the number of
images, and shards merged in any order give the same result to the last digit as one process.

    evaluator = MeanIoU(11, class_names=names)
    for sample in dataset:
        evaluator.update(predicted_labels, sample.target.labels)
    evaluator.compute()   # {"mIoU": 0.69, "pixel accuracy": 0.91, "mean accuracy": 0.78}

Shapes: H W rows and columns of the image, C classes, K widths.

Ignored pixels (label 255 in the target) count nowhere: neither what is predicted on them nor the step from a
class to an ignored pixel changes any score here. A class that appears neither in the targets nor in the
predictions (at the pixels that count) has no IoU (NaN) and is left out of the mean; one that is predicted but
never there has IoU 0 and is part of it, as in the Cityscapes scripts and MMSegmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend.structures import IGNORE_LABEL


class LabelMapEvaluator:
    """Whole-number counts over a stream of label maps; the evaluators below say which and what they mean.

    `counts` is int64 on the CPU and is the entire state: adding the counts of two evaluators (`merge`, or an
    all-reduce with sum) is the same as having shown all images to one of them.
    """

    def __init__(
        self,
        num_classes: int,
        count_shape: tuple[int, ...],
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if not 1 <= num_classes <= IGNORE_LABEL:
            raise ValueError(
                f"num_classes: expected 1 to {IGNORE_LABEL}, since label {IGNORE_LABEL} is ignored, got {num_classes}"
            )
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"class_names: expected {num_classes} names, got {len(class_names)}")
        self.num_classes = num_classes
        self.class_names = (
            tuple(class_names) if class_names is not None else tuple(map(str, range(num_classes)))
        )
        self.counts = torch.zeros(count_shape, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count one image.

        Args:
            prediction: (H, W) labels 0..C-1, any integer type; free at ignored pixels.
            target: (H, W) labels 0..C-1, or 255 where ignored.

        Raises:
            ValueError: for other shapes, labels out of range or maps of different sizes.
        """
        prediction, target = self._checked(prediction, target)
        self.counts += self._count(prediction, target).cpu()

    def merge(self, other: LabelMapEvaluator) -> None:
        """Add what `other`, an evaluator made with the same settings, has counted."""
        if type(other) is not type(self) or self._settings() != other._settings():
            raise ValueError(
                f"merge: expected {self!r}, got {other!r}; both must be made with the same settings"
            )
        self.counts += other.counts

    def compute(self) -> dict[str, float]:
        """The data set's scores by name, as fractions (0..1); NaN where nothing was counted."""
        raise NotImplementedError

    def per_class(self) -> dict[str, list[float]]:
        """Column name -> one fraction per class, NaN for classes that are absent."""
        raise NotImplementedError

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Name -> points (pixels, fraction), for evaluators that look at several widths."""
        return {}

    def _count(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Counts of one image; both maps int16 on one device, -1 in both where the target is ignored."""
        raise NotImplementedError

    def _settings(self) -> tuple[object, ...]:
        return (self.num_classes, tuple(self.counts.shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._settings()}"

    def _checked(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps as int16 with -1 at the ignored pixels."""
        prediction, target = torch.as_tensor(prediction), torch.as_tensor(target)
        for name, labels in (("prediction", prediction), ("target", target)):
            if labels.ndim != 2 or labels.is_floating_point() or labels.is_complex():
                raise ValueError(
                    f"{name}: expected whole-number labels (H, W), got {tuple(labels.shape)} {labels.dtype}"
                )
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction: expected the target's size {tuple(target.shape)},"
                f" got {tuple(prediction.shape)}; resize the logits or, by nearest neighbour, the labels"
            )
        target = target.to(prediction.device, torch.int64)
        valid = target != IGNORE_LABEL
        prediction = prediction.to(torch.int64)
        for name, labels in (("prediction", prediction), ("target", target)):
            seen = labels[valid]
            if seen.numel() and (seen.min() < 0 or seen.max() >= self.num_classes):
                raise ValueError(
                    f"{name}: expected labels 0..{self.num_classes - 1} ({IGNORE_LABEL} in the target),"
                    f" got {int(seen.min())}..{int(seen.max())}; check the class list"
                )
        ignored = torch.full((), -1, dtype=torch.int16, device=prediction.device)
        return torch.where(valid, prediction.short(), ignored), torch.where(valid, target.short(), ignored)


class MeanIoU(LabelMapEvaluator):
    """Mean IoU and accuracies from a confusion matrix; `counts[t, p]`: pixels of class t predicted as p."""

    def __init__(self, num_classes: int, *, class_names: Sequence[str] | None = None) -> None:
        super().__init__(num_classes, (num_classes, num_classes), class_names=class_names)

    def _count(self, prediction: Tensor, target: Tensor) -> Tensor:
        return _confusion(prediction, target, target >= 0, self.num_classes)

    def compute(self) -> dict[str, float]:
        """`mIoU`, `pixel accuracy` (share of pixels right), `mean accuracy` (mean recall of the classes)."""
        correct, truth = self.counts.diagonal().double(), self.counts.sum(1).double()
        return {
            "mIoU": _mean(_ious(self.counts)),
            "pixel accuracy": float(correct.sum() / truth.sum()),  # NaN (0/0) when all pixels were ignored
            "mean accuracy": _mean(correct / truth),
        }

    def per_class(self) -> dict[str, list[float]]:
        """`IoU` and `accuracy` of each class."""
        accuracy = self.counts.diagonal().double() / self.counts.sum(1).double()
        return {"IoU": _ious(self.counts).tolist(), "accuracy": accuracy.tolist()}


class TrimapIoU(LabelMapEvaluator):
    """Mean IoU over the pixels near the boundaries of the target, for several widths.

    A pixel belongs to the band of width w if a pixel with another label lies at most w rows and w columns
    away (Chebyshev distance). So 1 px is the pixels on either side of a label change, diagonal neighbours
    included: two pixels across a straight edge, half of them on each side; w px is 2 w pixels across. A band
    after Kohli et al. (IJCV 2009); they use a Euclidean band around the boundary, which differs at corners
    only. Ignored pixels are no label: the edge between a class and an ignored region is no boundary, and two
    classes that an ignored strip separates meet only for widths that reach across the strip.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (1, 3, 5),
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if not widths or any(int(w) != w or w < 1 for w in widths) or len(set(widths)) != len(widths):
            raise ValueError(f"widths: expected different whole pixels of at least 1, got {tuple(widths)}")
        self.widths = tuple(int(w) for w in widths)
        shape = (len(self.widths), num_classes, num_classes)
        super().__init__(num_classes, shape, class_names=class_names)

    def _settings(self) -> tuple[object, ...]:
        return (*super()._settings(), self.widths)

    def _count(self, prediction: Tensor, target: Tensor) -> Tensor:
        bands = (boundary_region(target, width, image_edge=False) for width in self.widths)
        return torch.stack([_confusion(prediction, target, band, self.num_classes) for band in bands])

    def compute(self) -> dict[str, float]:
        """`mIoU@{w}px` for every width."""
        return {f"mIoU@{w}px": _mean(_ious(c)) for w, c in zip(self.widths, self.counts, strict=True)}

    def per_class(self) -> dict[str, list[float]]:
        """`IoU@{w}px` for every width."""
        return {f"IoU@{w}px": _ious(c).tolist() for w, c in zip(self.widths, self.counts, strict=True)}

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """`trimap mIoU by width`."""
        points = [(float(w), _mean(_ious(c))) for w, c in zip(self.widths, self.counts, strict=True)]
        return {"trimap mIoU by width": points}


class BoundaryIoU(LabelMapEvaluator):
    """Boundary IoU of label maps (Cheng et al., CVPR 2021, arXiv 2103.16562, sec. 4), averaged over classes.

    For each class, the boundary region of a mask is the mask's pixels at most d away from its contour, d
    being `dilation_ratio` of the image's diagonal, rounded, at least 1 (as the authors' `mask_to_boundary`:
    d erosions by 3x3, so Chebyshev distance; the edge of the image is a contour). Intersections and unions
    of the two regions are summed over the data set, as mIoU sums its own, then divided, then averaged over
    classes. Ignored pixels are taken out of both maps first; where only ignored pixels lie on the other side
    there is no contour. `width` is d itself, in pixels, instead of a share of the diagonal.

    `counts` rows: intersection, predicted region, true region; one column per class.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dilation_ratio: float = 0.02,
        width: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if not 0 < dilation_ratio <= 1:
            raise ValueError(
                f"dilation_ratio: expected a share of the diagonal in (0, 1], got {dilation_ratio}"
            )
        if width is not None and width < 1:
            raise ValueError(f"width: expected a pixel or more, got {width}")
        self.dilation_ratio = dilation_ratio
        self.width = width
        super().__init__(num_classes, (3, num_classes), class_names=class_names)

    def _settings(self) -> tuple[object, ...]:
        return (*super()._settings(), self.dilation_ratio, self.width)

    def _count(self, prediction: Tensor, target: Tensor) -> Tensor:
        width = self.width or boundary_width(target.shape[0], target.shape[1], self.dilation_ratio)
        predicted, true = boundary_region(prediction, width), boundary_region(target, width)
        both = predicted & true & (prediction == target)
        regions = (target[both], prediction[predicted], target[true])
        return torch.stack([torch.bincount(r.long(), minlength=self.num_classes) for r in regions])

    def compute(self) -> dict[str, float]:
        """`boundary IoU`, or `boundary IoU@{d}px` for a width in pixels."""
        return {self._name: _mean(self._ious())}

    def per_class(self) -> dict[str, list[float]]:
        """The same of each class."""
        return {self._name: self._ious().tolist()}

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """`boundary IoU by width`: this width's point, where it is one in pixels."""
        if self.width is None:
            return {}
        return {"boundary IoU by width": [(float(self.width), _mean(self._ious()))]}

    @property
    def _name(self) -> str:
        return "boundary IoU" if self.width is None else f"boundary IoU@{self.width}px"

    def _ious(self) -> Tensor:
        intersection, predicted, true = self.counts.double()
        return intersection / (predicted + true - intersection)


def _confusion(prediction: Tensor, target: Tensor, where: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 over the pixels `where` (H, W) bool; rows the target's class, columns the predicted."""
    pairs = target[where].long() * num_classes + prediction[where].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def _ious(confusion: Tensor) -> Tensor:
    """(C, C) counts -> (C,) float64 intersection over union, NaN for classes that are absent."""
    correct = confusion.diagonal().double()
    return correct / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal()).double()


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def boundary_width(height: int, width: int, dilation_ratio: float = 0.02) -> int:
    """How many pixels a boundary region reaches inwards: 12 for 360x480, at least 1."""
    return max(1, round(dilation_ratio * math.hypot(height, width)))


def boundary_region(labels: Tensor, width: int, *, image_edge: bool = True) -> Tensor:
    """Pixels at most `width` rows and columns away from a pixel with another label.

    All classes at once: a pixel is *inside* its region where the smallest and the largest label of the square
    window around it are its own, so the cost does not depend on the number of classes.

    Args:
        labels: (H, W) whole numbers; negative ones are ignored: never in the region and never another label.
        width: in pixels, at least 1.
        image_edge: whether beyond the image counts as another label.

    Returns:
        (H, W) bool.
    """
    ignored = labels < 0
    nothing = torch.iinfo(labels.dtype).max
    largest = _window_maximum(labels, width)
    smallest = -_window_maximum(torch.where(ignored, -nothing, -labels), width)
    region = ((largest != labels) | (smallest != labels)) & ~ignored
    if image_edge:
        edge = torch.ones_like(region)
        edge[width:-width, width:-width] = False
        region |= edge & ~ignored
    return region


def _window_maximum(values: Tensor, radius: int) -> Tensor:
    """Largest value of the (2 radius + 1)^2 window around each pixel, cut at the image's edge; (H, W)."""
    lowest = torch.iinfo(values.dtype).min
    for dim in (0, 1):
        size = values.shape[dim]
        reach = min(radius, size)  # a wider window sees nothing more
        pad = (0, 0, reach, reach) if dim == 0 else (reach, reach)
        values = torch.nn.functional.pad(values, pad, value=lowest)
        span = 1  # values[i] is the maximum of `span` entries from i on; doubling, then one overlap
        window = 2 * reach + 1
        while span < window:
            step = min(span, window - span)
            length = values.shape[dim] - step
            values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
            span += step
    return values
