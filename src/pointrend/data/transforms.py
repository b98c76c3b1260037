"""Random changes of a picture with a label map, built on torchvision.transforms.v2.

Every random number comes from torch's generator, so `torch.manual_seed` and the seeds that a DataLoader gives
its workers decide all. Pictures are resized bilinearly with antialiasing, labels by taking the nearest pixel
*centre* ("nearest-exact"; plain "nearest" would shift every boundary by up to half a pixel).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pointrend.structures import IGNORE_LABEL, Sample, SemanticTarget

PADDING_RGB = (124, 116, 104)  # ImageNet's mean colour: what zero padding after normalisation looks like

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
    """Resize by a factor, uniform in [`smallest`, `largest`], of the size the picture has."""

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
        return resized(sample, *short_edge_size(height, width, short, self.longest))


def short_edge_size(height: int, width: int, short: int, longest: int | None) -> tuple[int, int]:
    """(height, width) with `short` as the short edge, or `longest` as the long one if that is smaller.

    Source: detectron2/data/transforms/augmentation_impl.py (427x640 at 800, 1333 -> 800x1199).
    """
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if longest is not None and max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


@dataclass(frozen=True)
class RandomCrop:
    """A window of `height` x `width` pixels; a smaller picture is padded right and below, labels with 255.

    Up to `tries` windows are drawn, until one holds at least two classes and none of them covers
    `largest_share` or more of the labelled pixels; the last one is taken as it is. With `largest_share` 1 the
    first window is taken. Source: MMSegmentation's `RandomCrop` (cat_max_ratio) and Detectron2's
    `RandomCrop_CategoryAreaConstraint`.
    """

    height: int
    width: int
    largest_share: float = 0.75
    tries: int = 10

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"expected a window of at least 1x1 pixels, got {self.height}x{self.width}")

    def __call__(self, sample: Sample) -> Sample:
        labels = semantic_labels(sample)
        height, width = labels.shape
        for _ in range(self.tries if self.largest_share < 1 else 1):
            top = integer(max(height - self.height, 0) + 1)
            left = integer(max(width - self.width, 0) + 1)
            window = labels[top : top + self.height, left : left + self.width]
            if self.largest_share >= 1 or self._is_mixed(window):
                break
        image = sample.image[:, top : top + self.height, left : left + self.width]
        return padded(replace(sample, image=image, target=SemanticTarget(window)), self.height, self.width)

    def _is_mixed(self, labels: Tensor) -> bool:
        counts = torch.bincount(labels.reshape(-1).long(), minlength=256)[:IGNORE_LABEL]
        return bool((counts > 0).sum() > 1 and counts.max() < self.largest_share * counts.sum())


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with this probability."""

    probability: float = 0.5

    def __call__(self, sample: Sample) -> Sample:
        if not happens(self.probability):
            return sample
        labels = semantic_labels(sample).flip(-1)
        return replace(sample, image=sample.image.flip(-1), target=SemanticTarget(labels))


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
        """The uint8 (3, H, W) picture in other colours."""
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


def resized(sample: Sample, height: int, width: int) -> Sample:
    """Picture and label map at another size."""
    labels = semantic_labels(sample)
    if labels.shape == (height, width):
        return sample
    image = F.resize(sample.image, [height, width], InterpolationMode.BILINEAR, antialias=True)
    labels = F.resize(labels[None], [height, width], InterpolationMode.NEAREST_EXACT)[0]
    return replace(sample, image=image, target=SemanticTarget(labels))


def padded(sample: Sample, height: int, width: int) -> Sample:
    """Picture and label map filled up right and below to at least this size, the labels with 255."""
    labels = semantic_labels(sample)
    below, right = max(height - labels.shape[0], 0), max(width - labels.shape[1], 0)
    if below == right == 0:
        return sample
    image = F.pad(sample.image, [0, 0, right, below], fill=list(PADDING_RGB))
    labels = F.pad(labels[None], [0, 0, right, below], fill=IGNORE_LABEL)[0]
    return replace(sample, image=image, target=SemanticTarget(labels))


def semantic_labels(sample: Sample) -> Tensor:
    """The (H, W) label map of a semantic sample.

    Raises ValueError if the sample has another kind of target.
    """
    if not isinstance(sample.target, SemanticTarget):
        raise ValueError(f"expected a sample with a SemanticTarget, got {type(sample.target).__name__}")
    return sample.target.labels


def uniform(low: float, high: float) -> float:
    """A number in [low, high), from torch's generator."""
    return low + (high - low) * float(torch.rand(()))


def integer(count: int) -> int:
    """A number of 0..count-1, from torch's generator."""
    return int(torch.randint(count, ()))


def happens(probability: float) -> bool:
    """A coin, from torch's generator."""
    return float(torch.rand(())) < probability
