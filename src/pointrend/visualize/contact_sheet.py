"""Many images on one sheet: a data set with its targets; what a model predicts while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import Dataset, InstanceTarget, LabelledPoints, Sample, SemanticTarget
from pointrend.visualize import as_image, draw, draw_chosen, traced_box
from pointrend.visualize.colors import RGBImage
from pointrend.visualize.explain import boxes_in_image

if TYPE_CHECKING:
    from pointrend.core.subdivision import SubdivisionStep
    from pointrend.models.instance import InstanceSegmenter
    from pointrend.models.semantic_model import SemanticModel

TILE = 512
"""Side of the square that each image fits into."""


class TrainingImages:
    """One sheet: a row for each image with its labels, the prediction, and the points chosen in subdivision.

    Points are those of the whole image, or of the object with the best score; a model without a point head has none.

    Args:
        data: images with targets, `class_names` and a `palette`.
        count: so many of them, evenly spread: neighbours in a film look alike.
    """

    def __init__(self, data: Dataset, count: int = 3) -> None:
        self.data = data
        count = min(count, len(data))
        self.samples = [data[number * len(data) // count] for number in range(count)]

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, RGBImage]:
        """The sheet, by name."""
        tiles = []
        for sample in self.samples:
            result, chosen = _predicted(model, sample.image)
            truth = draw_target(sample, self.data.class_names, self.data.palette)
            tiles += [
                truth,
                draw(sample.image, result),
                as_image(sample.image) if chosen is None else chosen,
            ]
        return {"predictions": contact_sheet(tiles, columns=3, tile=TILE)}


def _predicted(
    model: InstanceSegmenter | SemanticModel, image: torch.Tensor
) -> tuple[InstanceResult | SemanticResult, RGBImage | None]:
    """The result, and the image with the points chosen on the way; None where there were none."""
    if model.task == "semantic":
        trace: list[SubdivisionStep] = []
        result = model.predict([image], trace=trace)[0]
        box = traced_box(image, model.config.preprocessing)
        return result, draw_chosen(image, trace, box=box, scale=2) if trace else None
    found = model.trace([image])
    (detections,) = found.results
    if found.masks is None or not found.masks.steps or not len(found.regions):
        return detections, None
    x1, y1, x2, y2 = boxes_in_image(found, image)[0].tolist()
    box = (x1, y1, x2, y2)
    return detections, draw_chosen(image, found.masks.steps, box=box, scale=2)


def draw_target(
    sample: Sample, class_names: Sequence[str], palette: Sequence[tuple[int, int, int]] = ()
) -> RGBImage:
    """The sample's image under what is known about it, (H, W, 3)."""
    target = sample.target
    if isinstance(target, InstanceTarget):
        scores = torch.ones(len(target))
        image = draw(
            sample.image,
            InstanceResult(target.boxes, target.labels, scores, target.masks, tuple(class_names), None),
        )
        return image if target.points is None else _with_points(image, target.points)
    if not isinstance(target, SemanticTarget):
        raise ValueError(f"expected a sample with objects or a label map, got {type(target).__name__}")
    return draw(sample.image, SemanticResult(target.labels, tuple(class_names), tuple(palette), None))


def _with_points(image: RGBImage, points: LabelledPoints) -> RGBImage:
    """The image with a green dot for each labelled point on its object, a red one for each beside it."""
    drawn = Image.fromarray(image)
    pen, radius = ImageDraw.Draw(drawn), max(1.5, min(image.shape[:2]) / 150)
    coords, labels = points.coords.flatten(0, 1).tolist(), points.labels.flatten().tolist()
    for (x, y), label in zip(coords, labels, strict=True):
        if label >= 0:
            color = (0, 200, 0) if label else (220, 0, 0)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline="white")
    return np.asarray(drawn)


def contact_sheet(images: Sequence[RGBImage], *, columns: int = 4, tile: int = 320, gap: int = 8) -> RGBImage:
    """Images (H, W, 3) of any sizes, row by row on white, each as large as fits into `tile` pixels a side.

    Small images are enlarged by whole factors; a row is as high as its highest image. Raises ValueError if there is
    none.
    """
    if not images:
        raise ValueError("expected at least one image for the sheet, got none")
    columns = min(columns, len(images))
    tiles = [_fitted(Image.fromarray(image), tile) for image in images]
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    heights = [max(small.height for small in row) for row in rows]
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, sum(heights) + gap * (len(rows) + 1)), "white")
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, small in enumerate(row):
            left = gap + column * (tile + gap) + (tile - small.width) // 2
            sheet.paste(small, (left, top + (height - small.height) // 2))
        top += height + gap
    return np.asarray(sheet)


def _fitted(image: Image.Image, tile: int) -> Image.Image:
    factor = tile // max(image.size)
    if factor > 1:
        return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    image.thumbnail((tile, tile))
    return image
