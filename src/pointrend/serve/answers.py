"""A result as the body of an answer: JSON with run lengths or polygons, a PNG of labels, a cut-out."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

from PIL import Image

from pointrend.masks.export import as_objects
from pointrend.masks.rle import encode_windows
from pointrend.predict.cutouts import cutout, foreground
from pointrend.predict.writers import as_label_map, labels_image
from pointrend.structures import InstanceResult, Result, class_name
from pointrend.visualize.overlays import draw

AnswerFormat = Literal["json", "mask", "cutout", "overlay"]
MaskFormat = Literal["rle", "polygons", "none"]


def answer(result: Result, kind: AnswerFormat, masks: MaskFormat, min_score: float) -> tuple[bytes, str]:
    """Content and media type.

    Args:
        result: with its image.
        kind: "json": see `to_json`; "mask": a PNG of class numbers with a palette, 255 where there is nothing;
            "cutout": the image with all but what was found transparent; "overlay": what was found drawn on it.
        masks: in JSON.
        min_score: of objects.
    """
    if isinstance(result, InstanceResult):
        result = result.above(min_score)
    if kind == "json":
        return json.dumps(to_json(result, masks), allow_nan=False).encode(), "application/json"
    if kind == "mask":
        return _png(labels_image(as_label_map(result))), "image/png"
    assert result.image is not None
    if kind == "cutout":
        return _png(Image.fromarray(cutout(result.image, foreground(result)))), "image/png"
    drawn = draw(result.image, result, min_score=min_score)
    return _png(Image.fromarray(drawn) if not isinstance(drawn, Image.Image) else drawn), "image/png"


def to_json(result: Result, masks: MaskFormat = "rle") -> dict[str, Any]:
    """`height`, `width`, and `objects`, each with `label` (from 0), `class_name`, `score`, `box` (x1, y1, x2, y2) and
    `segmentation`: COCO's {"size", "counts"}, or rings of [x, y]. Of a label map an object for each class that occurs.
    """
    objects = as_objects(result)
    height, width = map(int, objects.masks.image_size)
    shapes: list[Any] = [None] * len(objects)
    if masks == "rle":
        shapes = list(encode_windows(objects.masks))
    elif masks == "polygons":
        shapes = objects.polygons()
    found = zip(objects.labels.tolist(), objects.scores.tolist(), objects.boxes.tolist(), shapes, strict=True)
    records = [
        {
            "label": label,
            "class_name": class_name(objects.class_names, label),
            "score": score,
            "box": [round(value, 4) for value in box],
            **({} if shape is None else {"segmentation": shape}),
        }
        for label, score, box, shape in found
    ]
    return {"height": height, "width": width, "objects": records}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
