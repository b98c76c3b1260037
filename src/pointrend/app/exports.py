"""A result as files to download: a PNG of labels, COCO JSON, SVG outlines. All in memory.

Shapes: D objects, H W pixels of the image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import torch

from pointrend.app.types import Rendering, tensor_bytes
from pointrend.app.views import object_index
from pointrend.io import png_bytes
from pointrend.masks.export import as_objects
from pointrend.metadata.colors import default_palette
from pointrend.predict.writers import labels_image
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import class_name
from pointrend.visualize.colors import css_color


@dataclass(frozen=True)
class Exportable:
    """What downloads need of a rendering."""

    labels: SemanticResult
    """The PNG's content: classes, or (instances) 0 for nothing and 1, 2, ... for the objects, best first."""
    objects: InstanceResult
    """The objects, or a mask for each class found with the mean probability as its score."""
    palette: tuple[tuple[int, int, int], ...]
    """A colour for each class."""
    image_name: str

    @property
    def nbytes(self) -> int:
        """Memory that this takes."""
        return tensor_bytes([self.labels.labels, *self.objects.masks.windows])


def exportable(rendering: Rendering, image_name: str) -> Exportable:
    """What downloads need of this rendering."""
    result = rendering.result
    if isinstance(result, SemanticResult):
        assert rendering.probability is not None
        labels = SemanticResult(result.labels, result.class_names, result.palette)
        palette = result.palette or default_palette(len(result.class_names))
        return Exportable(labels, class_masks(result, rendering.probability), palette, image_name)
    objects = InstanceResult(result.boxes, result.labels, result.scores, result.masks, result.class_names)
    index = object_index(result, nothing=-1, most=len(result)) + 1
    names = ("nothing", *(class_name(result.class_names, label) for label in result.labels.tolist()))
    shown = ((0, 0, 0), *default_palette(len(result)))
    numbered = SemanticResult(torch.from_numpy(index.astype(np.int32)), names, shown)
    return Exportable(numbered, objects, default_palette(len(result.class_names)), image_name)


def class_masks(result: SemanticResult, probability: torch.Tensor) -> InstanceResult:
    """A mask for each class found, its tight box, and the mean of `probability` (H, W) inside as its score."""
    objects = as_objects(result)
    scores = [float(probability[mask].mean()) for mask in objects.masks]
    return replace(objects, scores=torch.tensor(scores))


def label_png(result: Exportable) -> bytes:
    """The labels as PNG with a palette."""
    return png_bytes(labels_image(result.labels))


def coco_json(result: Exportable) -> bytes:
    """One image's COCO file: "images", "annotations" (compressed RLE, with scores), "categories" from 1 on."""
    objects, (height, width) = result.objects, result.objects.masks.image_size
    areas = objects.masks.areas().tolist()
    records = objects.to_coco(1, range(1, len(objects.class_names) + 1))
    content = {
        "images": [{"id": 1, "file_name": result.image_name, "height": height, "width": width}],
        "annotations": [
            {"id": number, **record, "area": area, "iscrowd": 0}
            for number, (record, area) in enumerate(zip(records, areas, strict=True), start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(objects.class_names, start=1)],
    }
    return json.dumps(content, allow_nan=False).encode()


def outline_svg(result: Exportable) -> bytes:
    """A path for each object along its pixels' edges, in the image's pixels; holes by the even-odd rule."""
    objects, (height, width) = result.objects, result.objects.masks.image_size
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ]
    found = zip(objects.polygons(), objects.labels.tolist(), objects.scores.tolist(), strict=True)
    for rings, label, score in found:
        path = "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring) + "Z" for ring in rings)
        name = "".join(
            c for c in class_name(objects.class_names, label) if c.isprintable()
        )  # XML has no control codes
        color = css_color(result.palette[label])
        lines.append(
            f'<path d="{path}" fill="{color}" fill-opacity="0.5" stroke="{color}" fill-rule="evenodd" '
            f'data-class={quoteattr(name)} data-score="{score:.4f}">'
            f"<title>{escape(name)} {score:.2f}</title></path>"
        )
    return "\n".join([*lines, "</svg>\n"]).encode()


DOWNLOADS: dict[str, tuple[Callable[[Exportable], bytes], str]] = {
    "labels.png": (label_png, "image/png"),
    "coco.json": (coco_json, "application/json"),
    "outlines.svg": (outline_svg, "image/svg+xml"),
}
"""File name -> how it is made, and its media type."""
