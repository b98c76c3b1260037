"""labelme's JSON files, one for each image: polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointrend.formats.coco_json import Fault, Inspection, Shape, brief
from pointrend.formats.image_annotations import (
    AnnotatedImage,
    checked_size,
    mask_shape,
    polygon_shape,
    together,
)
from pointrend.io import read_json
from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import RunLengths

WITHOUT_AREA = ("point", "points", "line", "linestrip")
CIRCLE_CORNERS = 64


def is_labelme(path: Path) -> bool:
    """Whether it is a file of labelme's."""
    try:
        content = read_json(path)
    except ValueError:
        return False
    return isinstance(content, Mapping) and "shapes" in content and "imagePath" in content


def inspect_labelme(folder: Path) -> Inspection:
    """All labelme files of a folder and its subfolders. Shapes with the same `group_id` and label are one object;
    points and lines, which have no area, are left out and said.
    """
    images: list[AnnotatedImage] = []
    faults: list[Fault] = []
    left_out: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.json")):
        if path.name == "classes.json":
            continue
        try:
            content = read_json(path)
            if isinstance(content, Mapping) and "shapes" in content:
                images.append(_image(folder, path, content, faults, left_out))
        except ValueError as error:
            faults.append(Fault("unreadable annotation", str(path.relative_to(folder)), str(error)))
    for kind, count in left_out.items():
        faults.append(Fault("shape without area", f"{count} shapes", f"{kind}s are left out", certain=True))
    return together(str(folder), images, faults)


def _image(
    folder: Path, path: Path, content: Mapping[str, Any], faults: list[Fault], left_out: Counter[str]
) -> AnnotatedImage:
    name, shapes = content.get("imagePath"), content.get("shapes")
    if not isinstance(name, str) or not isinstance(shapes, list):
        raise ValueError("expected imagePath and a list of shapes")
    height, width = checked_size(content.get("imageHeight"), content.get("imageWidth"))
    parent = path.parent.relative_to(folder).as_posix()
    image = AnnotatedImage(name if parent == "." else f"{parent}/{name}", (height, width))
    groups: dict[tuple[object, ...], list[Shape]] = {}
    for number, shape in enumerate(shapes):
        place = f"{path.relative_to(folder)}, shapes[{number}]"
        kind = shape.get("shape_type", "polygon") if isinstance(shape, Mapping) else None
        if kind in WITHOUT_AREA:
            left_out[str(kind)] += 1
            continue
        try:
            label, found = read_shape(shape, image.size)
        except ValueError as error:
            faults.append(Fault("malformed shape", place, str(error)))
            continue
        group = shape.get("group_id")
        groups.setdefault((label, number) if group is None else (label, "group", brief(group)), []).append(
            found
        )
    for key, parts in groups.items():
        image.objects.append((str(key[0]), union(parts, image.size)))
    return image


def read_shape(shape: object, size: tuple[int, int]) -> tuple[str, Shape]:
    """Label and area of one entry of "shapes".

    Raises:
        ValueError: it has no label, no area or another form.
    """
    if not isinstance(shape, Mapping) or not isinstance(shape.get("label"), str) or not shape["label"]:
        raise ValueError(f"expected a shape with a label, got {brief(shape)}")
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind == "mask":
        return shape["label"], _mask(shape, size)
    if kind == "polygon":
        return shape["label"], polygon_shape(points, size)
    corners = np.array([]) if not isinstance(points, list) else _pairs(points)
    if kind == "rectangle" and len(corners) in (2, 4):
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        return shape["label"], polygon_shape([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], size)
    if kind == "circle" and len(corners) == 2:
        radius = float(np.hypot(*(corners[1] - corners[0])))
        angles = 2 * np.pi * np.arange(CIRCLE_CORNERS) / CIRCLE_CORNERS
        ring = corners[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return shape["label"], polygon_shape(ring, size)
    raise ValueError(
        f"shape_type: expected polygon, rectangle, circle or mask, got {brief(kind)} of {brief(points)}"
    )


def union(parts: list[Shape], size: tuple[int, int]) -> Shape:
    """One object of several areas."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Polygons) for part in parts):
        return Polygons(tuple(ring for part in parts if isinstance(part, Polygons) for ring in part.rings))
    masks = [part.pixels((0, 0, *size)) for part in parts if isinstance(part, RunLengths)]
    if len(masks) < len(parts):
        raise ValueError("group_id: masks and polygons cannot be one object")
    shape = mask_shape(np.maximum.reduce(masks), (0, 0), size)
    assert shape is not None
    return shape


def _pairs(points: list[Any]) -> np.ndarray:
    try:
        corners = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([])
    return (
        corners
        if corners.ndim == 2 and corners.shape[1] == 2 and np.isfinite(corners).all()
        else np.array([])
    )


def _mask(shape: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    corners = _pairs(shape["points"]) if isinstance(shape.get("points"), list) else np.array([])
    if len(corners) != 2 or not isinstance(shape.get("mask"), str) or np.abs(corners).max() > 2 * max(size):
        raise ValueError("mask: expected two corners and an image of the mask")
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True)), formats=["PNG"]) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError("mask: larger than its image")
            mask = np.array(image.convert("L")) != 0
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"mask: not a readable image ({error})") from error
    found = mask_shape(mask, (int(corners[0, 0]), int(corners[0, 1])), size)
    if found is None:
        raise ValueError("mask: has no pixel inside the image")
    return found
