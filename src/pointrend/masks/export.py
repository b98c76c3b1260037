"""Results in the formats of other programs, and back: GeoJSON, run lengths, supervision.

The methods of the results (`result.to_geojson()`, ...) call the writers here; the readers give an `InstanceResult`,
of a label map one object for each class (`label_map` makes a map of it again). Polygons run along pixel edges and hold
exactly the mask's pixels at tolerance 0.

JSON that is read is data from elsewhere: sizes are checked before memory is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointrend.masks import polygons, rle
from pointrend.structures import (
    IGNORE_LABEL,
    InstanceMasks,
    InstanceResult,
    Result,
    SemanticResult,
    class_name,
)

MAX_PIXELS = 2**27
"""Of an image in a file that is read."""


def as_objects(result: Result) -> InstanceResult:
    """An `InstanceResult` as it is; of a label map one object for each class that occurs, with score 1."""
    if isinstance(result, InstanceResult):
        return result
    labels = [int(label) for label in torch.unique(result.labels).tolist() if label != IGNORE_LABEL]
    parts = [InstanceMasks.from_dense((result.labels == label)[None].cpu()) for label in labels]
    size = (result.labels.shape[0], result.labels.shape[1])
    offsets = torch.cat([part.offsets for part in parts] or [torch.zeros((0, 2), dtype=torch.int64)])
    masks = InstanceMasks([part.windows[0] for part in parts], offsets, size)
    return _objects(masks, labels, [1.0] * len(labels), result.class_names)


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

    Args:
        tolerance: in pixels, see `polygons.mask_polygons`.
    """
    objects = as_objects(result)
    features = []
    for number, parts in enumerate(_polygons(objects, tolerance)):
        rings = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in parts]
        single = len(rings) == 1
        features.append(
            {
                "type": "Feature",
                "bbox": [float(side) for side in objects.boxes[number]],
                "geometry": {
                    "type": "Polygon" if single else "MultiPolygon",
                    "coordinates": rings[0] if single else rings,
                },
                "properties": _properties(objects, number),
            }
        )
    return {
        "type": "FeatureCollection",
        "image_size": [int(side) for side in objects.masks.image_size],
        "features": features,
    }


def from_geojson(
    collection: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
    class_names: Sequence[str] = (),
) -> InstanceResult:
    """Read `to_geojson`'s collection, or another's polygons in pixels: an object for each feature.

    Args:
        image_size: (H, W) of the image, where the collection does not say it.
        class_names: for features with a `class` and no `label`; the names found, in their order, if not given.

    Raises:
        ValueError: it is no collection of polygons, or its image is too large.
    """
    try:
        size = checked_size(image_size or collection["image_size"])
        windows, classes, labels, scores, boxes = [], [], [], [], []
        for feature in collection["features"]:
            shape, about = feature["geometry"], feature.get("properties") or {}
            parts = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
            if shape["type"] not in ("Polygon", "MultiPolygon"):
                raise ValueError(f"geometry: expected Polygon or MultiPolygon, got {shape['type']!r}")
            windows.append(polygons.fill([[_open(ring) for ring in part] for part in parts], size))
            classes.append(str(about.get("class", "")))
            labels.append(about.get("label"))
            scores.append(float(about.get("score", 1.0)))
            boxes.append(feature.get("bbox"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected a GeoJSON FeatureCollection of polygons with image_size, missing or wrong: {error}"
        ) from error
    numbers, names = numbered_classes(classes, labels, class_names)
    return _objects(_masks(windows, size), numbers, scores, names, boxes)


def to_coco(
    result: InstanceResult, image_id: int | str, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """COCO result records of an image's detections, see `InstanceResult.to_coco`."""
    records = []
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
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError("pandas is not installed: pip install pandas") from error
    objects = as_objects(result)
    rows = []
    for number, area in enumerate(objects.masks.areas().tolist()):
        about = _properties(objects, number)
        corners = dict(zip(("x1", "y1", "x2", "y2"), objects.boxes[number].tolist(), strict=True))
        about = {name: about[name] for name in ("class", "label", "score")}
        rows.append({**about, **corners, "area": area})
    columns = ["class", "label", "score", "x1", "y1", "x2", "y2", "area"]
    return pandas.DataFrame(rows, columns=columns)


def to_rle(result: Result) -> list[dict[str, Any]]:
    """Compressed COCO run lengths of each object, or of each class of a label map: `size` (H, W) and `counts`."""
    return list(rle.encode_windows(as_objects(result).masks))


def from_rle(records: Sequence[Mapping[str, Any]]) -> InstanceMasks:
    """Masks from COCO run lengths, compressed or plain, all of one image.

    Raises:
        ValueError: there is none, their sizes differ, or the counts do not fill the image.
    """
    sizes = {tuple(record["size"]) for record in records}
    if len(sizes) != 1:
        raise ValueError(f"run lengths: expected masks of one image, got sizes {sorted(sizes)}")
    size = checked_size(sizes.pop())
    return _masks([rle.decode_window(record["counts"], size) for record in records], size)


def to_supervision(result: Result) -> Any:
    """`supervision.Detections` with boxes, full-image masks, scores and names. Needs the extra [supervision]."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError("supervision is not installed: pip install 'pointrend[supervision]'") from error
    objects = as_objects(result)
    names = [_properties(objects, number)["class"] for number in range(len(objects))]
    return supervision.Detections(
        xyxy=objects.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
        mask=objects.masks.dense().cpu().numpy(),
        confidence=objects.scores.cpu().numpy().astype(np.float32),
        class_id=objects.labels.cpu().numpy().astype(np.int64),
        data={"class_name": np.asarray(names, dtype=str)},
    )


def from_supervision(detections: Any, class_names: Sequence[str] = ()) -> InstanceResult:
    """An `InstanceResult` from `supervision.Detections` with masks; labels are its `class_id`.

    Raises:
        ValueError: it has no masks.
    """
    if detections.mask is None:
        raise ValueError("detections: expected masks, got boxes only")
    masks = InstanceMasks.from_dense(torch.from_numpy(np.asarray(detections.mask, dtype=bool)))
    count = len(masks)
    classes = [0] * count if detections.class_id is None else [int(label) for label in detections.class_id]
    scores = [1.0] * count if detections.confidence is None else [float(s) for s in detections.confidence]
    return _objects(
        masks, classes, scores, tuple(class_names), [list(map(float, box)) for box in detections.xyxy]
    )


def _polygons(objects: InstanceResult, tolerance: float) -> list[list[polygons.Polygon]]:
    return [
        polygons.mask_polygons(window, offset, tolerance)
        for window, offset in zip(objects.masks.windows, objects.masks.offsets.tolist(), strict=True)
    ]


def _properties(objects: InstanceResult, number: int) -> dict[str, Any]:
    label = int(objects.labels[number])
    return {
        "label": label,
        "class": class_name(objects.class_names, label),
        "score": float(objects.scores[number]),
    }


def instance_result(
    windows: Sequence[tuple[Tensor, tuple[int, int]]],
    size: tuple[int, int],
    labels: Sequence[int],
    scores: Sequence[float],
    class_names: Sequence[str],
    boxes: Sequence[Sequence[float] | None] | None = None,
) -> InstanceResult:
    """A result from masks on windows with the (x, y) of their top-left pixels, in an image of this size (H, W); where
    no box is given, the one round the mask's pixels.
    """
    return _objects(_masks(windows, size), labels, scores, class_names, boxes)


def _objects(
    masks: InstanceMasks,
    labels: Sequence[int],
    scores: Sequence[float],
    class_names: Sequence[str],
    boxes: Sequence[Sequence[float] | None] | None = None,
) -> InstanceResult:
    """A result; where no box is given, the one round the mask's window."""
    given = boxes or [None] * len(masks)
    rows = [
        list(box) if box is not None else [x, y, x + window.shape[1], y + window.shape[0]]
        for box, window, (x, y) in zip(given, masks.windows, masks.offsets.tolist(), strict=True)
    ]
    return InstanceResult(
        torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(list(labels), dtype=torch.int64),
        torch.tensor(list(scores), dtype=torch.float32),
        masks,
        tuple(class_names),
    )


def _masks(windows: Sequence[tuple[Tensor, tuple[int, int]]], size: tuple[int, int]) -> InstanceMasks:
    offsets = torch.tensor([offset for _, offset in windows], dtype=torch.int64).reshape(-1, 2)
    return InstanceMasks([window for window, _ in windows], offsets, size)


def numbered_classes(
    classes: Sequence[str], labels: Sequence[Any], class_names: Sequence[str]
) -> tuple[list[int], tuple[str, ...]]:
    """Class numbers and names: the labels given if all are, else the names' places."""
    if not class_names and labels and all(isinstance(label, int) and 0 <= label < 2**16 for label in labels):
        names = {int(label): name for label, name in zip(labels, classes, strict=True)}
        return [int(label) for label in labels], tuple(
            names.get(i, f"class {i}") for i in range(max(names) + 1)
        )
    known = list(class_names) or list(dict.fromkeys(classes))
    unknown = sorted(set(classes) - set(known))
    if unknown:
        raise ValueError(f"class names: {unknown} are not among {known}")
    return [known.index(name) for name in classes], tuple(known)


def checked_size(size: Sequence[Any]) -> tuple[int, int]:
    height, width = (int(side) for side in size)
    if height < 0 or width < 0 or height * width > MAX_PIXELS:
        raise ValueError(f"image: expected at most {MAX_PIXELS:,} pixels, got {height}x{width}")
    return height, width


def _open(ring: Any) -> polygons.Ring:
    """GeoJSON's ring, whose last point repeats the first, without that."""
    points = np.asarray(ring, dtype=np.float64)
    return points[:-1] if len(points) > 1 and (points[0] == points[-1]).all() else points
