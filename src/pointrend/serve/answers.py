"""A result as the body of an answer: JSON with run lengths or polygons, a PNG of labels. Without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from pointrend.io import png_bytes
from pointrend.masks.polygons import outline
from pointrend.masks.rle import compress, run_lengths
from pointrend.runtime.model import Instances

AnswerFormat = Literal["json", "mask", "cutout", "overlay"]
MaskFormat = Literal["rle", "polygons", "none"]
Answer = tuple[bytes, str]
"""Content and media type."""
NOTHING = 255
"""In label maps, where no class is."""


def json_answer(found: Instances, class_names: Sequence[str], masks: MaskFormat) -> Answer:
    """`height`, `width`, and `objects`, each with `label` (from 0), `class_name`, `score`, `box` (x1, y1, x2, y2) and
    `segmentation`: COCO's {"size", "counts"}, or rings of [x, y].
    """
    height, width = found.image_size
    objects = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    records: list[dict[str, object]] = [
        {
            "label": label,
            "class_name": class_names[label] if label < len(class_names) else f"class {label}",
            "score": score,
            "box": [round(value, 4) for value in box],
        }
        for label, score, box in objects
    ]
    for record, window, offset in zip(records, found.windows, found.offsets, strict=True):
        if masks == "rle":
            counts = compress(run_lengths(window, offset, found.image_size))
            record["segmentation"] = {"size": [height, width], "counts": counts}
        elif masks == "polygons":
            record["segmentation"] = outline(window, offset)
    content = {"height": height, "width": width, "objects": records}
    return json.dumps(content, allow_nan=False).encode(), "application/json"


def png_answer(image: Image.Image) -> Answer:
    """An image."""
    return png_bytes(image, compress_level=1), "image/png"


def class_objects(labels: np.ndarray) -> Instances:
    """An object for each class that occurs in a label map (H, W), with score 1 and the box of its pixels."""
    classes = [int(label) for label in np.unique(labels) if label != NOTHING]
    windows, boxes = [], []
    for label in classes:
        mask = labels == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        windows.append(mask[box[1] : box[3], box[0] : box[2]])
        boxes.append(box)
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    offsets = [(int(x), int(y)) for x, y, _, _ in boxes]
    scores = np.ones(len(classes), dtype=np.float32)
    size = (labels.shape[0], labels.shape[1])
    return Instances(corners, np.array(classes, dtype=np.int64), scores, windows, offsets, size)


def class_map(found: Instances) -> np.ndarray:
    """(H, W) the class of the surest object at each pixel, 255 where there is none."""
    labels = np.full(found.image_size, NOTHING, dtype=np.int64)
    for number in np.argsort(-found.scores, kind="stable")[::-1]:
        window, (x, y) = found.windows[number], found.offsets[number]
        labels[y : y + window.shape[0], x : x + window.shape[1]][window] = found.labels[number]
    return labels
