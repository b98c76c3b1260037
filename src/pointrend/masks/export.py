"""Results in the formats of other programs: what the methods of the results (`result.to_geojson()`, ...) give.

Of a label map each class that occurs is one object. Outlines run along pixel edges and hold exactly the mask's pixels
at tolerance 0; `tolerance` is in pixels, see `polygons.mask_polygons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointrend.masks import polygons, rle
from pointrend.masks.rle import CocoDetection, CocoMask
from pointrend.results import InstanceResult, Result, SemanticResult
from pointrend.structures import IGNORE_LABEL, InstanceMasks

BACKGROUND = frozenset({"background", "__background__", "_background_"})
"""Names, in lower case, of a class that is no object."""


def instance_result(
    masks: InstanceMasks, labels: Sequence[int], scores: Sequence[float], class_names: Sequence[str]
) -> InstanceResult:
    """A result whose boxes are the masks' windows."""
    boxes = [
        [x, y, x + window.shape[1], y + window.shape[0]]
        for window, (x, y) in zip(masks.windows, masks.offsets.tolist(), strict=True)
    ]
    return InstanceResult(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float32),
        masks,
        tuple(class_names),
    )


def as_objects(result: Result) -> InstanceResult:
    """An `InstanceResult` as it is; of a label map one object for each class that occurs, with score 1."""
    if isinstance(result, InstanceResult):
        return result
    labels = [int(label) for label in torch.unique(result.labels).tolist() if label != IGNORE_LABEL]
    parts = [InstanceMasks.from_dense((result.labels == label)[None].cpu()) for label in labels]
    size = (result.labels.shape[0], result.labels.shape[1])
    offsets = torch.cat([part.offsets for part in parts] or [torch.zeros((0, 2), dtype=torch.int64)])
    masks = InstanceMasks([part.windows[0] for part in parts], offsets, size)
    return instance_result(masks, labels, [1.0] * len(labels), result.class_names)


def label_map(result: Result, *, min_score: float = 0.0, nothing: int = IGNORE_LABEL) -> Tensor:
    """(H, W) int64 class of each pixel, of the surest object there; `nothing` where there is none."""
    if isinstance(result, SemanticResult):
        return result.labels.long()
    labels = torch.full(result.masks.image_size, nothing, dtype=torch.int64)
    for number in result.scores.argsort(stable=True, descending=True).flip(0).tolist():
        if float(result.scores[number]) >= min_score:
            window = result.masks.windows[number].cpu() != 0
            x, y = result.masks.offsets[number].tolist()
            labels[y : y + window.shape[0], x : x + window.shape[1]][window] = int(result.labels[number])
    return labels


def to_geojson(result: Result, *, tolerance: float = 0.0) -> dict[str, Any]:
    """A GeoJSON FeatureCollection: a Polygon or MultiPolygon for each object, or for each class of a label map.

    Coordinates are (x, y) in pixels of the image, y downwards, and not degrees. Properties: `label`, `class` and
    `score`; `bbox` is (x1, y1, x2, y2); `image_size` of the collection is (H, W).
    """
    objects = as_objects(result)
    features = []
    for one, parts in zip(objects, _polygons(objects, tolerance), strict=True):
        rings = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in parts]
        single = len(rings) == 1
        features.append(
            {
                "type": "Feature",
                "bbox": one.box.tolist(),
                "geometry": {
                    "type": "Polygon" if single else "MultiPolygon",
                    "coordinates": rings[0] if single else rings,
                },
                "properties": {"label": one.label, "class": one.class_name, "score": one.score},
            }
        )
    return {
        "type": "FeatureCollection",
        "image_size": [int(side) for side in objects.masks.image_size],
        "features": features,
    }


def to_coco(
    result: InstanceResult, image_id: int | str, category_ids: Sequence[int] | None = None
) -> list[CocoDetection]:
    """COCO result records of an image's detections, see `InstanceResult.to_coco`."""
    records: list[CocoDetection] = []
    for number, segmentation in enumerate(rle.encode_windows(result.masks)):
        label = int(result.labels[number])
        x1, y1, x2, y2 = (round(float(v), 4) for v in result.boxes[number])
        records.append(
            {
                "image_id": image_id,
                "category_id": label if category_ids is None else int(category_ids[label]),
                "bbox": [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
                "score": float(result.scores[number]),
                "segmentation": segmentation,
            }
        )
    return records


def to_pandas(result: Result) -> Any:
    """A `pandas.DataFrame`, see `InstanceResult.to_pandas`. Needs pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("pandas is not installed: pip install pandas") from error
    objects = as_objects(result)
    columns = ["class", "label", "score", "x1", "y1", "x2", "y2", "area"]
    rows = [
        (one.class_name, one.label, one.score, *one.box.tolist(), area)
        for one, area in zip(objects, objects.masks.areas().tolist(), strict=True)
    ]
    return pandas.DataFrame(rows, columns=columns)


def to_rle(result: Result) -> list[CocoMask]:
    """Compressed COCO run lengths of each object, or of each class of a label map: `size` (H, W) and `counts`."""
    return list(rle.encode_windows(as_objects(result).masks))


def to_supervision(result: Result) -> Any:
    """`supervision.Detections` with boxes, full-image masks, scores and names. Needs the extra [supervision]."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("supervision is not installed: pip install 'pointrend[supervision]'") from error
    objects = as_objects(result)
    return supervision.Detections(
        xyxy=objects.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
        mask=objects.masks.dense().cpu().numpy(),
        confidence=objects.scores.cpu().numpy().astype(np.float32),
        class_id=objects.labels.cpu().numpy().astype(np.int64),
        data={"class_name": np.asarray([one.class_name for one in objects], dtype=str)},
    )


def to_labelme(result: Result, *, tolerance: float = 0.0, image_path: str = "") -> dict[str, Any]:
    """LabelMe's JSON: a polygon for each part of each object; parts of one object share its `group_id`.

    LabelMe knows no holes: they are reached over an edge that is walked both ways. An object without pixels has no
    shape.

    Args:
        image_path: the image's file, as seen from the JSON's folder.
    """
    objects = as_objects(result)
    shapes = [
        {
            "label": one.class_name,
            "score": one.score,
            "points": ring.tolist(),
            "group_id": number,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for number, (one, rings) in enumerate(zip(objects, outlines(objects, tolerance), strict=True))
        for ring in rings
    ]
    height, width = objects.masks.image_size
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(height),
        "imageWidth": int(width),
    }


def to_label_studio(result: Result, *, tolerance: float = 0.0, image: str = "") -> dict[str, Any]:
    """A Label Studio task with one prediction: a polygon for each part of each object, in per cent of the image.

    The labelling interface has to be `<PolygonLabels name="label" toName="image">` over `<Image name="image"
    value="$image">`. Parts of one object have the same `parentID` and share its score; holes are reached over an edge
    that is walked both ways.

    Args:
        image: its file or URL, as Label Studio sees it.
    """
    objects = as_objects(result)
    height, width = objects.masks.image_size
    regions = []
    for number, (one, rings) in enumerate(zip(objects, outlines(objects, tolerance), strict=True)):
        for part, ring in enumerate(rings):
            regions.append(
                {
                    "id": f"{number}-{part}",
                    **({"parentID": f"{number}-0"} if part else {}),
                    "from_name": "label",
                    "to_name": "image",
                    "type": "polygonlabels",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": one.score,
                    "value": {
                        "points": (ring * 100 / (width, height)).tolist(),
                        "closed": True,
                        "polygonlabels": [one.class_name],
                    },
                }
            )
    mean = float(objects.scores.float().mean()) if len(objects) else 0.0
    prediction = {"model_version": "pointrend", "score": mean, "result": regions}
    return {"data": {"image": image}, "predictions": [prediction]}


def to_yolo(result: Result, *, tolerance: float = 0.0) -> str:
    """YOLO-seg's label text: for each object with pixels a line `class x1 y1 x2 y2 ...`, shares of width and height.

    The format has one outline for an object and no scores: further parts and holes are reached over edges that are
    walked both ways.
    """
    objects = as_objects(result)
    height, width = objects.masks.image_size
    lines = []
    for one, rings in zip(objects, outlines(objects, tolerance), strict=True):
        if rings:
            shares = (polygons.keyholed(rings) / (width, height)).ravel()
            lines.append(f"{one.label} {' '.join(f'{share:.12g}' for share in shares)}\n")
    return "".join(lines)


def to_voc(result: Result) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pascal VOC's SegmentationClass and SegmentationObject maps, (H, W) uint8 each: 0 is background, 255 nothing.

    Classes are numbered 1..K in the order of the model's names; a class called background stays 0 where it is the
    first. Of objects that overlap, the surest has the pixel; they are numbered from 1.

    Raises:
        ValueError: more than 254 classes or objects.
    """
    first = 0 if result.class_names and result.class_names[0].lower() in BACKGROUND else 1
    objects = as_objects(result)
    classes = label_map(result, nothing=-first)
    ignored = (
        classes == IGNORE_LABEL if isinstance(result, SemanticResult) else torch.zeros_like(classes).bool()
    )
    if len(objects) > 254 or bool((classes[~ignored] + first > 254).any()):
        raise ValueError("Pascal VOC: expected at most 254 classes, and 254 objects in an image")
    shown = torch.where(ignored, IGNORE_LABEL, classes + first)
    numbered = replace(objects, labels=torch.arange(1, len(objects) + 1))
    owners = label_map(numbered, nothing=0)
    owners[shown == 0] = 0  # the background is no object
    return shown.numpy().astype(np.uint8), owners.numpy().astype(np.uint8)


def outlines(objects: InstanceResult, tolerance: float) -> list[list[polygons.Ring]]:
    """For each object the outlines of its parts, holes included by double edges."""
    return [[polygons.keyholed(part) for part in parts] for parts in _polygons(objects, tolerance)]


def _polygons(objects: InstanceResult, tolerance: float) -> list[list[polygons.Polygon]]:
    return [
        polygons.mask_polygons(window, offset, tolerance)
        for window, offset in zip(objects.masks.windows, objects.masks.offsets.tolist(), strict=True)
    ]
