"""Supervisely's projects: DATASET/img/NAME and DATASET/ann/NAME.json with bitmaps, polygons and rectangles."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointrend.formats.file_names import visible_files
from pointrend.formats.image_annotations import (
    AnnotatedImage,
    ImageAnnotations,
    checked_size,
    mask_shape,
    png_mask,
    polygon_shape,
)
from pointrend.formats.records import Inspection, Shape, brief
from pointrend.io import read_json
from pointrend.masks import polygons

WITHOUT_AREA = ("point", "line", "graph", "cuboid", "cuboid_2d")
MAX_BYTES = 2**26
"""Of a bitmap's PNG."""


def inspect_supervisely(root: Path, folders: list[Path]) -> Inspection:
    """The objects of these data sets, folders with `img` and `ann`; image names as seen from `root`."""
    found = ImageAnnotations()
    for folder in folders:
        photos = {path.stem: path for path in sorted((folder / "img").iterdir())}
        for path in visible_files(folder / "ann", ".json"):
            own = folder / "img" / path.stem
            if not own.is_file():  # older exports leave the image's suffix out
                own = photos.get(path.stem, own)
            name = own.relative_to(root).as_posix()
            with found.recording("unreadable annotation", str(path.relative_to(root))):
                found.images.append(_image(name, read_json(path), found))
    return found.merged(str(root))


def _image(name: str, content: Any, found: ImageAnnotations) -> AnnotatedImage:
    size = content.get("size") if isinstance(content, Mapping) else None
    if not isinstance(size, Mapping):
        raise ValueError(f"size: expected height and width, got {brief(size)}")
    height, width = checked_size(size.get("height"), size.get("width"))
    objects = content.get("objects")
    if not isinstance(objects, list):
        raise ValueError(f"objects: expected a list, got {brief(objects)}")
    image = AnnotatedImage(name, (height, width))
    for number, item in enumerate(objects):
        kind = item.get("geometryType") if isinstance(item, Mapping) else None
        if isinstance(kind, str) and kind in WITHOUT_AREA:
            found.without_area[kind] += 1
            continue
        with found.recording("malformed shape", f"{name}, objects[{number}]"):
            image.objects.append(_object(item, image.size))
    return image


def _object(item: object, size: tuple[int, int]) -> tuple[str, Shape]:
    if not isinstance(item, Mapping) or not isinstance(item.get("classTitle"), str):
        raise ValueError(f"expected an object with a classTitle, got {brief(item)}")
    kind, points = item.get("geometryType"), item.get("points")
    if kind == "bitmap":
        return item["classTitle"], _bitmap(item.get("bitmap"), size)
    exterior = points.get("exterior") if isinstance(points, Mapping) else None
    if kind == "rectangle" and isinstance(exterior, list) and len(exterior) == 2:
        try:
            (x1, y1), (x2, y2) = exterior
        except (TypeError, ValueError):
            raise ValueError("expected two corners") from None
        return item["classTitle"], polygon_shape([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], size)
    if kind != "polygon":
        raise ValueError(f"geometryType: expected bitmap, polygon or rectangle, got {brief(kind)}")
    outer = polygon_shape(exterior, size)
    interior = points.get("interior") if isinstance(points, Mapping) else None
    if interior is not None and not isinstance(interior, list):
        raise ValueError(f"points: expected a list of interior rings, got {brief(interior)}")
    holes = [polygon_shape(ring, size).rings[0] for ring in interior or []]
    if not holes:
        return item["classTitle"], outer
    window, offset = polygons.fill([[outer.rings[0], *holes]], size)
    return item["classTitle"], _required(mask_shape(window.numpy(), offset, size))


def _bitmap(bitmap: object, size: tuple[int, int]) -> Shape:
    origin = bitmap.get("origin") if isinstance(bitmap, Mapping) else None
    if (
        not isinstance(bitmap, Mapping)
        or not isinstance(origin, list)
        or [type(v) for v in origin] != [int, int]
    ):
        raise ValueError(f"bitmap: expected data and an origin [x, y], got {brief(bitmap)}")
    try:
        packed = base64.b64decode(bitmap.get("data") or "", validate=True)
        mask = png_mask(zlib.decompressobj().decompress(packed, MAX_BYTES), size)
    except (ValueError, TypeError, zlib.error) as error:
        raise ValueError(f"bitmap: {error}") from error
    return _required(mask_shape(mask, (origin[0], origin[1]), size))


def _required(shape: Shape | None) -> Shape:
    if shape is None:
        raise ValueError("it has no pixel inside the image")
    return shape
