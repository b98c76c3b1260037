"""Random changes of an image and what is known about it, built on torchvision.transforms.v2.

The target of a sample is a `SemanticTarget` or, while transforms work, `PlacedObjects`, which move without
being rasterized; `finished` makes an `InstanceTarget` of them.

Every random number comes from torch's generator, so `torch.manual_seed` and the seeds that a DataLoader gives
its workers decide all. Images are resized bilinearly with antialiasing, labels by taking the nearest pixel
*centre* ("nearest-exact"; plain "nearest" would shift every boundary by up to half a pixel).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pointrend.data.annotations import PlacedObjects
from pointrend.preprocessing import Preprocessing, resized_size
from pointrend.structures import IGNORE_LABEL, InstanceTarget, Sample, SemanticTarget

PADDING_RGB = (124, 116, 104)  # ImageNet's mean colour: what zero padding after normalisation looks like

WITHOUT_POINTS = (
    "the objects have no labelled points; `pointrend data sample-points` draws them from masks, `pointrend label` asks "
    "for them; DIR:points names data that has both"
)
SampleTransform = Callable[[Sample], Sample]


@dataclass(frozen=True)
class Compose:
    """Transforms, one after the other."""

    steps: Sequence[SampleTransform]

    def __call__(self, sample: Sample) -> Sample:
        for step in self.steps:
            sample = step(sample)
        return sample


@dataclass(frozen=True)
class RandomScale:
    """Resize by a factor, uniform in [`smallest`, `largest`], of the size the image has."""

    smallest: float = 0.5
    largest: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ValueError(f"expected 0 < smallest <= largest, got {self.smallest} and {self.largest}")

    def __call__(self, sample: Sample) -> Sample:
        factor = uniform(self.smallest, self.largest)
        height, width = sample.image.shape[-2:]
        return resized(sample, max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))


@dataclass(frozen=True)
class RandomFit:
    """Resize to fit, in either orientation, a frame of `long` x `short` pixels times a factor in [`smallest`,
    `largest`].

    For images of one size it is `RandomScale`; for others it first brings them to one scale. Source:
    MMSegmentation's `RandomResize` with keep_ratio.
    """

    long: int
    short: int
    smallest: float = 0.5
    largest: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest or not 1 <= self.short <= self.long:
            raise ValueError(f"expected 0 < smallest <= largest and 1 <= short <= long, got {self}")

    def __call__(self, sample: Sample) -> Sample:
        factor = uniform(self.smallest, self.largest)
        height, width = sample.image.shape[-2:]
        long, short = int(self.long * factor), int(self.short * factor)
        scale = min(long / max(height, width), short / min(height, width))
        return resized(sample, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))


@dataclass(frozen=True)
class ResizeShortEdge:
    """Resize so that the short edge is one of `sizes` (drawn), unless the long one would pass `longest`.

    Rounding as in Detectron2's `ResizeShortestEdge`.
    """

    sizes: Sequence[int]
    longest: int | None = None

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes: expected at least one length, 1 or more, got {list(self.sizes)}")

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample.image.shape[-2:]
        short = self.sizes[integer(len(self.sizes))]
        size = resized_size(height, width, Preprocessing(short_edge=short, long_edge=self.longest))
        return resized(sample, *size)


@dataclass(frozen=True)
class RandomCrop:
    """A window of `height` x `width` pixels.

    With a label map a smaller image is padded right and below, labels with 255; with objects the window is
    smaller then. With a label map, up to `tries` windows are drawn, until one holds at least two classes and
    none of them covers `largest_share` or more of the labelled pixels; the last one is taken as it is. With
    `largest_share` 1 the first window is taken. Source: MMSegmentation's `RandomCrop` (cat_max_ratio) and
    Detectron2's `RandomCrop_CategoryAreaConstraint`.
    """

    height: int
    width: int
    largest_share: float = 0.75
    tries: int = 10

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"expected a window of at least 1x1 pixels, got {self.height}x{self.width}")
        if self.tries < 1:
            raise ValueError(f"tries: expected 1 or more, got {self.tries}")

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample.image.shape[-2:]
        for _ in range(self.tries):
            top = integer(max(height - self.height, 0) + 1)
            left = integer(max(width - self.width, 0) + 1)
            window = cropped(sample, top, left, min(self.height, height), min(self.width, width))
            if self.largest_share >= 1 or self._is_mixed(window.target):
                break
        # Not a view: a worker process would send all of the image that it looks into.
        return padded(replace(window, image=window.image.contiguous()), self.height, self.width)

    def _is_mixed(self, target: object) -> bool:
        if not isinstance(target, SemanticTarget):
            return True
        labels = target.labels
        counts = torch.bincount(labels.reshape(-1).long(), minlength=256)[:IGNORE_LABEL]
        return bool((counts > 0).sum() > 1 and counts.max() < self.largest_share * counts.sum())


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with this probability."""

    probability: float = 0.5

    def __call__(self, sample: Sample) -> Sample:
        return flipped(sample) if happens(self.probability) else sample


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, each with probability one half: the distortion of SSD.

    `brightness` is added, in grey levels; `contrast` and `saturation` are ranges of factors; `hue` is in
    degrees of the colour circle. Contrast comes before or after the colours, by a coin. Source: Detectron2's
    `ColorAugSSDTransform` and MMSegmentation's `PhotoMetricDistortion`, but without their rounding to 8 bits
    after each step.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 36.0

    def __call__(self, sample: Sample) -> Sample:
        return replace(sample, image=self.jitter(sample.image))

    def jitter(self, image: Tensor) -> Tensor:
        """The uint8 (3, H, W) image in other colours."""
        pixels = image.float()
        if happens(0.5):
            pixels = pixels + uniform(-self.brightness, self.brightness)
        contrast_first = happens(0.5)
        if contrast_first:
            pixels = self._contrast(pixels)
        if happens(0.5):
            pixels = _saturated(pixels.clamp(0, 255), uniform(*self.saturation))
        if happens(0.5):
            turn = uniform(-self.hue, self.hue) / 360
            pixels = F.adjust_hue(pixels.clamp(0, 255) / 255, turn) * 255
        if not contrast_first:
            pixels = self._contrast(pixels)
        return pixels.round_().clamp_(0, 255).to(torch.uint8)

    def _contrast(self, pixels: Tensor) -> Tensor:
        return pixels * uniform(*self.contrast) if happens(0.5) else pixels


@dataclass(frozen=True)
class SamplePoints:
    """Point augmentation (PointSup, arXiv 2104.06404): `count` of each object's labelled points, drawn anew each time.

    Without replacement, unless an object has fewer. Points that a crop put outside of the image may be drawn.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"sample points: expected at least one of each object, got {self.count}")

    def __call__(self, sample: Sample) -> Sample:
        target = movable(sample)
        if isinstance(target, SemanticTarget):
            raise ValueError("sample points: expected objects with labelled points, got a label map")
        if target.points is None:
            if len(target.boxes) > int(target.crowd.sum()):
                raise ValueError(f"sample points: {WITHOUT_POINTS}")
            return sample
        objects, points = target.points.labels.shape
        if points >= self.count:
            index = torch.rand(objects, points).argsort(dim=1)[:, : self.count]
        else:
            index = torch.randint(points, (objects, self.count))
        return replace(sample, target=replace(target, points=target.points.chosen(index.numpy())))


def _saturated(pixels: Tensor, factor: float) -> Tensor:
    """Saturation times `factor`, at equal hue and value: what scaling S of HSV does, without leaving RGB."""
    value = pixels.amax(dim=0, keepdim=True)
    lowest = pixels.amin(dim=0, keepdim=True)
    allowed = value / (value - lowest).clamp(min=1e-6)  # S cannot pass 1
    return value + (pixels - value) * allowed.clamp(max=factor)


def training_transforms(
    crop: tuple[int, int], *, scale: tuple[float, float] = (0.5, 2.0), color: bool = True
) -> Compose:
    """The usual recipe for semantic training: scale, crop to (height, width), flip, colours."""
    steps: list[SampleTransform] = [RandomScale(*scale), RandomCrop(*crop), RandomFlip()]
    return Compose([*steps, ColorJitter()] if color else steps)


def instance_training_transforms(
    short_edges: Sequence[int] = (640, 672, 704, 736, 768, 800), longest: int = 1333
) -> Compose:
    """Detectron2's recipe for COCO: a short edge drawn from these, and the flip."""
    return Compose([ResizeShortEdge(short_edges, longest), RandomFlip()])


def resized(sample: Sample, height: int, width: int) -> Sample:
    """The sample at another size."""
    if tuple(sample.image.shape[-2:]) == (height, width):
        return sample
    image = F.resize(sample.image, [height, width], InterpolationMode.BILINEAR, antialias=True)
    target = movable(sample)
    if isinstance(target, PlacedObjects):
        return replace(sample, image=image, target=target.resized(height, width))
    labels = F.resize(target.labels[None], [height, width], InterpolationMode.NEAREST_EXACT)[0]
    return replace(sample, image=image, target=SemanticTarget(labels))


def flipped(sample: Sample) -> Sample:
    """The sample with left and right exchanged."""
    target = movable(sample)
    moved = target.flipped() if isinstance(target, PlacedObjects) else SemanticTarget(target.labels.flip(-1))
    return replace(sample, image=sample.image.flip(-1), target=moved)


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window of the sample, which must lie inside."""
    if (top, left, height, width) == (0, 0, *sample.image.shape[-2:]):
        return sample
    rows, columns = slice(top, top + height), slice(left, left + width)
    target = movable(sample)
    if isinstance(target, PlacedObjects):
        moved: PlacedObjects | SemanticTarget = target.cropped(top, left, height, width)
    else:
        moved = SemanticTarget(target.labels[rows, columns])
    return replace(sample, image=sample.image[:, rows, columns], target=moved)


def padded(sample: Sample, height: int, width: int) -> Sample:
    """Image and label map filled up right and below to at least this size, the labels with 255.

    With objects the sample stays as it is: images of a batch are padded anyway, after normalisation.
    """
    below, right = max(height - sample.image.shape[-2], 0), max(width - sample.image.shape[-1], 0)
    target = movable(sample)
    if below == right == 0 or isinstance(target, PlacedObjects):
        return sample
    image = F.pad(sample.image, [0, 0, right, below], fill=list(PADDING_RGB))
    labels = F.pad(target.labels[None], [0, 0, right, below], fill=IGNORE_LABEL)[0]
    return replace(sample, image=image, target=SemanticTarget(labels))


def movable(sample: Sample) -> SemanticTarget | PlacedObjects:
    """The target, in a form that can be resized, mirrored and cropped.

    Raises ValueError if it is no such form.
    """
    if isinstance(sample.target, InstanceTarget):
        return PlacedObjects.of(sample.target)
    if not isinstance(sample.target, (SemanticTarget, PlacedObjects)):
        kind = type(sample.target).__name__
        raise ValueError(
            f"expected a sample with a SemanticTarget, InstanceTarget or PlacedObjects, got {kind}"
        )
    return sample.target


def finished(sample: Sample) -> Sample:
    """The sample as models take it: objects rasterized."""
    if isinstance(sample.target, PlacedObjects):
        return replace(sample, target=sample.target.target())
    return sample


def uniform(low: float, high: float) -> float:
    """A number in [low, high), from torch's generator."""
    return low + (high - low) * float(torch.rand(()))


def integer(count: int) -> int:
    """A number of 0..count-1, from torch's generator."""
    return int(torch.randint(count, ()))


def happens(probability: float) -> bool:
    """A coin, from torch's generator."""
    return float(torch.rand(())) < probability
