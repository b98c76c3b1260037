"""Labelled points drawn from masks, as PointSup's (arXiv 2104.06404) were made: uniformly in each object's box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pointrend.data.annotations import Floats, rasterized
from pointrend.formats.coco_json import read_coco
from pointrend.formats.records import MAX_POINTS, Annotation, Ints, PointLabels
from pointrend.io import read_json, write_text
from pointrend.masks.polygons import Polygons

SEED = 12345
"""Of the points that PointSup's results are for."""


def write_points(
    annotations: Path, out: Path | None = None, *, points: int = 10, versions: int = 1, seed: int = SEED
) -> list[tuple[Path, int, int]]:
    """Write copies of a COCO file with points in place of masks: NAME_n10_v1_without_masks.json and so on.

    Points and labels are those of PointSup's own tool for the same seed. Versions are drawn one after the other.

    Args:
        annotations: COCO file with masks. out: folder for the copies, that of the file if not given.

    Returns:
        For each version its file, the number of points, and how many of them lie on their object.

    Raises:
        ValueError: the file is malformed, or numbers are out of range.
    """
    if not 1 <= points <= MAX_POINTS or versions < 1:
        raise ValueError(
            f"expected 1 to {MAX_POINTS} points and at least one version, got {points} and {versions}"
        )
    content = read_json(annotations)
    file = read_coco(content)
    objects = {item.id: item for own in file.objects.values() for item in own}
    ordered = [objects[record["id"]] for record in content["annotations"]]
    sizes = [file.images[item.image_id].size for item in ordered]
    drawing = np.random.RandomState(seed)
    written = []
    for version in range(1, versions + 1):
        records, inside = [], 0
        for record, item, size in zip(content["annotations"], ordered, sizes, strict=True):
            coords = place_points(item.bbox, size, drawing.rand(points, 2))
            labels = label_points(item, size, coords)
            inside += int(labels.sum())
            kept = {key: value for key, value in record.items() if key != "segmentation"}
            records.append(kept | PointLabels(coords, labels).to_coco())
        name = f"{annotations.stem}_n{points}_v{version}_without_masks.json"
        target = (annotations.parent if out is None else out) / name
        write_text(target, json.dumps({**content, "annotations": records}))
        written.append((target, points * len(records), inside))
    return written


def place_points(bbox: Floats, size: tuple[int, int], uniform: Floats) -> Ints:
    """Pixels (P, 2) x, y under points that lie uniformly in a box.

    Where the box sticks out of the image they are moved to its border; PointSup's tool stops there.

    Args:
        bbox: (4,) x, y, width, height. size: (height, width) of the image.
        uniform: (P, 2) random numbers in [0, 1).
    """
    height, width = size
    places = np.floor(uniform * bbox[2:] + bbox[:2]).clip(0, (width - 1, height - 1))
    return places.astype(np.int64)


def label_points(item: Annotation, size: tuple[int, int], places: Ints) -> Ints:
    """(P,) 1 where a pixel (P, 2) belongs to the object's mask, else 0.

    Raises:
        ValueError: the object has no mask.
    """
    shape = item.shape
    if shape is None:
        raise ValueError(f"annotation {item.id}: expected a mask to draw points from, got none")
    runs = rasterized(shape.rings, size) if isinstance(shape, Polygons) else shape
    # Runs go down the columns and are outside, inside, outside, ...
    number = np.searchsorted(runs.counts.cumsum(), places[:, 0] * size[0] + places[:, 1], side="right")
    return (number % 2).astype(np.int64)
