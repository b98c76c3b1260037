"""What a model predicts while it is trained: one sheet of labels, predictions and chosen points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pointrend.structures import Dataset, InstanceResult, SemanticResult
from pointrend.visualize import as_image, draw, draw_chosen, traced_box
from pointrend.visualize.colors import RGBImage
from pointrend.visualize.comparison import contact_sheet, draw_target
from pointrend.visualize.explain import boxes_in_image

if TYPE_CHECKING:
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
        trace: list[Any] = []
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
