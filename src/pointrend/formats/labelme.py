"""labelme's JSON files, one for each image: polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

from pointrend.formats.file_names import visible_files
from pointrend.formats.image_annotations import (
    AnnotatedImage,
    ImageAnnotations,
    ImageSize,
    checked_size,
    mask_shape,
    png_mask,
    polygon_shape,
)
from pointrend.formats.records import Inspection, Shape, brief
from pointrend.io import read_json
from pointrend.masks.export import instance_result
from pointrend.masks.polygons import Polygons, fill
from pointrend.masks.rle import RunLengths, decode_window
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks

WITHOUT_AREA = ("point", "points", "line", "linestrip")
POLYGONS = ("polygon", "rotation", "oriented_rectangle")
"""labelme's name, and that of rectangles which lie askew, in newer versions and in programs made from it."""
CIRCLE_CORNERS = 64
PHOTOS = (".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".bmp", ".webp", ".tif", ".tiff")


def is_labelme(path: Path) -> bool:
    """Whether it is a file of labelme's."""
    try:
        content = read_json(path)
    except ValueError:
        return False
    return isinstance(content, Mapping) and "shapes" in content and "imagePath" in content


def inspect_labelme(folder: Path, image_size: ImageSize) -> Inspection:
    """All labelme files of a folder and its subfolders. Shapes with the same `group_id` and label are one object;
    points and lines, which have no area, are left out and said. An image that is not where its file says is the one
    of the same name beside it.
    """
    found = ImageAnnotations()
    for path in visible_files(folder, ".json"):
        if path.name != "classes.json":
            with found.recording("unreadable annotation", str(path.relative_to(folder))):
                content = read_json(path)
                if isinstance(content, Mapping) and "shapes" in content:
                    found.images.append(_image(folder, path, content, image_size, found))
    return found.merged(str(folder))


def from_labelme(document: Mapping[str, object], class_names: Sequence[str] = ()) -> InstanceResult:
    """A result from LabelMe's JSON: shapes of one `group_id` and label are one object, others one each.

    A pixel belongs to an outline if its centre lies inside. Points and lines, which have no area, are left out with a
    warning.

    Args:
        document: the file's content.
        class_names: the names found, in their order, if not given.

    Raises:
        ValueError: it is no LabelMe document, a shape is malformed, or its image is too large.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"expected LabelMe's JSON, got {brief(document)}")
    size = checked_size(document.get("imageHeight"), document.get("imageWidth"))
    noted = ImageAnnotations()
    objects = _objects(document.get("shapes"), size, "", noted)
    if noted.faults:
        raise ValueError(str(noted.faults[0]))
    if noted.without_area:
        counted = ", ".join(f"{count} of kind {kind}" for kind, count in noted.without_area.items())
        warnings.warn(f"labelme: {counted} left out, which have no area", stacklevel=2)
    windows = [
        fill([[ring] for ring in shape.rings], size)
        if isinstance(shape, Polygons)
        else decode_window(shape.counts.tolist(), size)
        for _, shape, _ in objects
    ]
    found = [label for label, _, _ in objects]
    names = list(class_names) or list(dict.fromkeys(found))
    if unknown := sorted({*found} - {*names}):
        raise ValueError(f"class names: {unknown} are not among {names}")
    offsets = torch.tensor([offset for _, offset in windows], dtype=torch.int64).reshape(-1, 2)
    masks = InstanceMasks([window for window, _ in windows], offsets, size)
    return instance_result(
        masks, [names.index(name) for name in found], [score for *_, score in objects], names
    )


def _image(
    folder: Path, path: Path, content: Mapping[str, object], image_size: ImageSize, found: ImageAnnotations
) -> AnnotatedImage:
    name = content.get("imagePath")
    if not isinstance(name, str):
        raise ValueError("expected imagePath and a list of shapes")
    parent = path.parent.relative_to(folder).as_posix()
    image_path = path.parent / PureWindowsPath(name).as_posix()
    # By the files' numbers: where case does not count, a.jpg and a.JPG are one file.
    beside = {one.stat().st_ino: one for suffix in PHOTOS if (one := path.with_suffix(suffix)).is_file()}
    if len(beside) == 1 and not os.path.isfile(image_path):  # the image was given another name
        image_path = next(iter(beside.values()))
        name = image_path.name
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height is None and width is None:  # old versions
        height, width = image_size(image_path)
    size = checked_size(height, width)
    image = AnnotatedImage(name if parent == "." else f"{parent}/{name}", size)
    where = f"{path.relative_to(folder)}, "
    for label, shape, _ in _objects(content.get("shapes"), image.size, where, found):
        image.objects.append((label, shape))
    return image


def _objects(
    shapes: object, size: tuple[int, int], where: str, noted: ImageAnnotations
) -> list[tuple[str, Shape, float]]:
    """Label, area and score of each object; what cannot be read is noted."""
    if not isinstance(shapes, list):
        raise ValueError(f"shapes: expected a list, got {brief(shapes)}")
    groups: dict[tuple[object, ...], list[Shape]] = {}
    scores: dict[tuple[object, ...], float] = {}
    for number, shape in enumerate(shapes):
        kind = shape.get("shape_type", "polygon") if isinstance(shape, Mapping) else None
        if kind in WITHOUT_AREA:
            noted.without_area[str(kind)] += 1
            continue
        with noted.recording("malformed shape", f"{where}shapes[{number}]"):
            label, found = read_shape(shape, size)
            group, score = shape.get("group_id"), shape.get("score")
            key = (label, number) if group is None else (label, "group", brief(group))
            groups.setdefault(key, []).append(found)
            scores[key] = float(score) if isinstance(score, int | float) and 0 <= score <= 1 else 1.0
    return [(str(key[0]), union(parts, size), scores[key]) for key, parts in groups.items()]


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
    if kind in POLYGONS:
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
    masks = [_pixels(part, size) for part in parts]
    shape = mask_shape(np.maximum.reduce(masks), (0, 0), size)
    assert shape is not None
    return shape


def _pixels(part: Shape, size: tuple[int, int]) -> np.ndarray:
    """(H, W), 1 inside."""
    if isinstance(part, RunLengths):
        return part.pixels((0, 0, *size))
    window, (x, y) = fill([[ring] for ring in part.rings], size)
    mask = np.zeros(size, dtype=np.uint8)
    mask[y : y + window.shape[0], x : x + window.shape[1]] = window.numpy()
    return mask


def _pairs(points: list[object]) -> np.ndarray:
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
        mask = png_mask(base64.b64decode(shape["mask"], validate=True), size)
    except ValueError as error:  # of base64 too
        raise ValueError(f"mask: {error}") from error
    found = mask_shape(mask, (int(corners[0, 0]), int(corners[0, 1])), size)
    if found is None:
        raise ValueError("mask: has no pixel inside the image")
    return found
