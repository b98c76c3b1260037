"""What `masks.export` writes, read back as plainly as its formats say; for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pointrend.masks.export import instance_result
from pointrend.masks.polygons import Polygon, fill
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks

Size = tuple[int, int]


def from_polygons(
    objects: Sequence[Sequence[Polygon]],
    size: Size,
    labels: Sequence[int],
    scores: Sequence[float],
    names: Sequence[str],
) -> InstanceResult:
    """A result of the polygons of each object."""
    windows = [fill(polygons, size) for polygons in objects]
    offsets = torch.tensor([offset for _, offset in windows], dtype=torch.int64).reshape(-1, 2)
    return instance_result(
        InstanceMasks([window for window, _ in windows], offsets, size), labels, scores, names
    )


def read_geojson(collection: dict[str, Any]) -> InstanceResult:
    """A collection of `to_geojson`; classes that do not occur are called ""."""
    objects, names = [], {}
    features = collection["features"]
    for feature in features:
        shape, about = feature["geometry"], feature["properties"]
        parts = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        objects.append([[np.array(ring[:-1]) for ring in part] for part in parts])
        names[about["label"]] = about["class"]
    labels = [feature["properties"]["label"] for feature in features]
    scores = [feature["properties"]["score"] for feature in features]
    known = [names.get(label, "") for label in range(max(names, default=-1) + 1)]
    return from_polygons(objects, tuple(collection["image_size"]), labels, scores, known)


def read_label_studio(task: dict[str, Any], size: Size) -> InstanceResult:
    """The prediction of a task of `to_label_studio`."""
    parts: dict[str, list[Polygon]] = {}
    about: dict[str, dict[str, Any]] = {}
    for region in task["predictions"][0]["result"]:
        assert (region["original_height"], region["original_width"]) == size
        key = region.get("parentID", region["id"])
        parts.setdefault(key, []).append([np.array(region["value"]["points"]) * size[::-1] / 100])
        about[key] = region
    names = [region["value"]["polygonlabels"][0] for region in about.values()]
    known = list(dict.fromkeys(names))
    scores = [region["score"] for region in about.values()]
    return from_polygons(list(parts.values()), size, [known.index(name) for name in names], scores, known)


def read_yolo(text: str, size: Size, names: Sequence[str]) -> InstanceResult:
    """The text of `to_yolo`."""
    lines = [[float(word) for word in line.split()] for line in text.splitlines()]
    objects = [[[np.array(shares).reshape(-1, 2) * size[::-1]]] for _, *shares in lines]
    return from_polygons(objects, size, [int(line[0]) for line in lines], [1.0] * len(lines), names)


def read_voc(classes: np.ndarray, owners: np.ndarray, names: Sequence[str]) -> InstanceResult:
    """The maps of `to_voc`; a class is its number less 1."""
    numbers = [number for number in np.unique(owners) if number not in (0, 255)]
    masks = np.stack([owners == number for number in numbers])
    labels = [np.unique(classes[mask & (classes != 255)]).item() - 1 for mask in masks]
    return instance_result(
        InstanceMasks.from_dense(torch.from_numpy(masks)), labels, [1.0] * len(labels), names
    )
