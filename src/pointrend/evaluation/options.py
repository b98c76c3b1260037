"""The options of an evaluation, as `pointrend eval` shows them; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Metric = Literal["miou", "categories", "trimap", "boundary", "box", "mask", "cityscapes"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to score on, and how."""

    data: str = "shapes"
    """Data set, as for `pointrend train`."""
    split: Literal["train", "val"] = "val"
    """Part of the data set."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to score, as they were chosen for training."""
    limit: int | None = None
    """Score only the first so many images."""
    metrics: tuple[Metric, ...] = ()
    """What to compute; when not given, everything that fits. "boundary" is Boundary AP or boundary IoU, "categories"
    the mIoU of Cityscapes' classes and categories, "cityscapes" its AP."""
    lvis: Path | None = None
    """LVIS v0.5 annotations of the images, as released or as `pointrend data lvis-to-coco` makes them: AP* instead of
    AP, on the images that they name."""
    points: tuple[int, ...] = ()
    """Compare so many points in each subdivision step, instead of the model's own number."""
    mask_sizes: tuple[int, ...] = ()
    """Compare the coarse masks with masks rendered at these resolutions, such as 28 56 112 224 (instance models)."""
    flip: bool = False
    """Average with the mirrored image."""
    scales: tuple[float, ...] = ()
    """Average over these sizes, such as 0.5 0.75 1 1.25 1.5 1.75 (semantic models)."""
    output_stride: Literal[8, 16, 32] | None = None
    """DeepLabV3 models: stride of the deepest maps, instead of that in training, such as 8 (better and slower; the
    paper's Table 6)."""
    out: Path | None = None
    """Folder for scores.json (everything), scores.md (rows for a page), and class by class scores and predictions of
    every row."""
    fresh: bool = False
    """Start over instead of going on with what OUT has."""
    curves: Path | None = None
    """Also draw AP by the size of objects, or scores by the width of the boundary, into this PNG or PDF file."""
    optimize: Precision | None = None
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision where the processor
    or GPU is made for it, "auto" the fastest that is exact to rounding."""
    device: str | None = None
    """cpu, cuda, ...; a GPU if there is one, when not given."""
