"""Predictions as labelling tools and other trainers read them: LabelMe; and back: Label Studio, YOLO-seg, Pascal VOC.

Outlines run along pixel edges and hold exactly the mask's pixels at tolerance 0. What is read back is data from
elsewhere: sizes are checked before memory is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointrend.masks import polygons
from pointrend.masks.export import as_objects, checked_size, instance_result, label_map, numbered_classes
from pointrend.structures import (
    IGNORE_LABEL,
    InstanceMasks,
    InstanceResult,
    Result,
    SemanticResult,
    class_name,
)

BACKGROUND = frozenset({"background", "__background__", "_background_"})
"""Names, in lower case, of a class that is no object."""


def to_labelme(result: Result, *, tolerance: float = 0.0, image_path: str = "") -> dict[str, Any]:
    """LabelMe's JSON: a polygon for each part of each object; parts of one object share its `group_id`.

    LabelMe knows no holes: they are reached over an edge that is walked both ways. An object without pixels has no
    shape.

    Args:
        tolerance: in pixels, see `polygons.mask_polygons`.
        image_path: the image's file, as seen from the JSON's folder.
    """
    objects = as_objects(result)
    shapes = [
        {
            "label": class_name(objects.class_names, int(objects.labels[number])),
            "score": float(objects.scores[number]),
            "points": ring.tolist(),
            "group_id": number,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for number, parts in enumerate(outlines(objects, tolerance))
        for ring in parts
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
        tolerance: in pixels, see `polygons.mask_polygons`.
        image: its file or URL, as Label Studio sees it.
    """
    objects = as_objects(result)
    height, width = objects.masks.image_size
    regions = []
    for number, parts in enumerate(outlines(objects, tolerance)):
        name = class_name(objects.class_names, int(objects.labels[number]))
        for part, ring in enumerate(parts):
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
                    "score": float(objects.scores[number]),
                    "value": {
                        "points": (ring * 100 / (width, height)).tolist(),
                        "closed": True,
                        "polygonlabels": [name],
                    },
                }
            )
    mean = float(objects.scores.float().mean()) if len(objects) else 0.0
    prediction = {"model_version": "pointrend", "score": mean, "result": regions}
    return {"data": {"image": image}, "predictions": [prediction]}


def from_label_studio(
    task: Mapping[str, Any], image_size: tuple[int, int] | None = None, class_names: Sequence[str] = ()
) -> InstanceResult:
    """The polygons of a Label Studio task: of its first prediction, or else of its first annotation.

    Args:
        image_size: (H, W), where no region says it.
        class_names: the names found, in their order, if not given.

    Raises:
        ValueError: it is no task, has other regions than polygons, or its image is too large.
    """
    parts: dict[str, list[polygons.Polygon]] = {}
    classes: dict[str, str] = {}
    scores: dict[str, float] = {}
    size = image_size
    try:
        answers = task.get("predictions") or task["annotations"]
        for number, region in enumerate(answers[0]["result"]):
            if region["type"] != "polygonlabels":
                raise ValueError(f"region {number}: expected polygonlabels, got {region['type']!r}")
            height, width = size = checked_size((region["original_height"], region["original_width"]))
            key = str(region.get("parentID") or region["id"])
            ring = np.asarray(region["value"]["points"], dtype=np.float64) * (width, height) / 100
            parts.setdefault(key, []).append([ring])
            classes[key] = str(region["value"]["polygonlabels"][0])
            scores[key] = float(region.get("score") or 1.0)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"expected a Label Studio task with polygons, missing or wrong: {error}") from error
    if size is None:
        raise ValueError("image_size: expected (H, W), since the task has no region that says it")
    labels, names = numbered_classes(list(classes.values()), [None] * len(classes), class_names)
    windows = [polygons.fill(rings, size) for rings in parts.values()]
    return instance_result(windows, size, labels, list(scores.values()), names)


def to_yolo(result: Result, *, tolerance: float = 0.0) -> str:
    """YOLO-seg's label text: for each object with pixels a line `class x1 y1 x2 y2 ...`, shares of width and height.

    The format has one outline for an object and no scores: further parts and holes are reached over edges that are
    walked both ways.
    """
    objects = as_objects(result)
    height, width = objects.masks.image_size
    lines = []
    for number, rings in enumerate(outlines(objects, tolerance)):
        if rings:
            shares = (polygons.keyholed(rings) / (width, height)).ravel()
            lines.append(f"{int(objects.labels[number])} {' '.join(f'{share:.12g}' for share in shares)}\n")
    return "".join(lines)


def from_yolo(text: str, image_size: tuple[int, int], class_names: Sequence[str] = ()) -> InstanceResult:
    """The objects of a YOLO-seg label text.

    Args:
        image_size: (H, W) of the image.

    Raises:
        ValueError: naming the line, for anything but a class number and three or more points.
    """
    size = height, width = checked_size(image_size)
    windows, labels = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, shares = int(words[0]), np.array([float(word) for word in words[1:]])
            if label < 0 or len(shares) < 6 or len(shares) % 2 or not np.isfinite(shares).all():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"line {number}: expected a class number and three or more points, got {line[:60]!r}"
            ) from None
        windows.append(polygons.fill([[shares.reshape(-1, 2) * (width, height)]], size))
        labels.append(label)
    return instance_result(windows, size, labels, [1.0] * len(labels), class_names)


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


def from_voc(classes: np.ndarray, objects: np.ndarray, class_names: Sequence[str] = ()) -> InstanceResult:
    """The objects of a pair of Pascal VOC maps: label of an object is the number of its class less 1.

    Raises:
        ValueError: the maps differ in size, or an object has several classes.
    """
    if classes.ndim != 2 or classes.shape != objects.shape:
        raise ValueError(f"expected two maps (H, W) of one size, got {classes.shape}, {objects.shape}")
    windows, labels = [], []
    for number in np.unique(objects[(objects != 0) & (objects != 255)]).tolist():
        inside = objects == number
        found = np.unique(classes[inside & (classes != 255)])
        if len(found) != 1 or found[0] == 0:
            raise ValueError(f"object {number}: expected one class, got {found.tolist()}")
        mask = InstanceMasks.from_dense(torch.from_numpy(inside)[None])
        x, y = mask.offsets[0].tolist()
        windows.append((mask.windows[0], (x, y)))
        labels.append(int(found[0]) - 1)
    size = (classes.shape[0], classes.shape[1])
    return instance_result(windows, size, labels, [1.0] * len(labels), class_names)


def outlines(objects: InstanceResult, tolerance: float) -> list[list[polygons.Ring]]:
    """For each object the outlines of its parts, holes included by double edges."""
    return [
        [polygons.keyholed(part) for part in polygons.mask_polygons(window, offset, tolerance)]
        for window, offset in zip(objects.masks.windows, objects.masks.offsets.tolist(), strict=True)
    ]
