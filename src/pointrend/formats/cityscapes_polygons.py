"""Cityscapes' polygon files, and images written into its official folders.

    ROOT/leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png
    ROOT/gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_{labelIds,instanceIds}.png, ..._gtFine_polygons.json

A polygon file lists outlines from the bottom to the top; its corners are pixels, and what lies on an outline is inside.
Drawn as the benchmark's scripts do (json2labelImg, json2instanceImg): a later polygon hides an earlier one, an object's
number counts the objects of its class so far, "cargroup" is a group of cars, and licence plates are not drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pointrend.io import read_json, write_png, write_text
from pointrend.masks.polygons import Outline, area, outline
from pointrend.metadata.cityscapes import GROUP, LABELS, LAST_ID

__all__ = ["draw_polygons", "polygons_of", "read_polygons", "write_frame", "write_label_files"]

MOST_OBJECTS = 100_000  # of a file
BY_NAME = {label.name: label for label in LABELS}
UNDRAWN = "license plate"


def read_polygons(path: str | Path) -> dict[str, Any]:
    """A polygon file's content, checked: `imgHeight`, `imgWidth`, `objects` with `label` and `polygon`.

    Raises:
        ValueError: naming file, object and field.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise ValueError(f"{path}: expected imgHeight, imgWidth and a list of objects")
    height, width = (content.get(key) for key in ("imgHeight", "imgWidth"))
    limit = Image.MAX_IMAGE_PIXELS or 2**28
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > limit:
        raise ValueError(f"{path}: imgHeight, imgWidth: expected 1 to {limit} pixels in all")
    if len(content["objects"]) > MOST_OBJECTS:
        raise ValueError(f"{path}: objects: expected at most {MOST_OBJECTS}, got {len(content['objects'])}")
    for number, item in enumerate(content["objects"]):
        where = f"{path}: object {number}"
        if not isinstance(item, dict) or not isinstance(item.get("label"), str):
            raise ValueError(f"{where}: label: expected a class name")
        if item["label"] != UNDRAWN and _class_of(item["label"]) is None:
            raise ValueError(f"{where}: label: {item['label'][:40]!r} is no class of Cityscapes")
        _corners(where, item.get("polygon"), max(height, width))
    return content


def draw_polygons(content: dict[str, Any]) -> Tensor:
    """(H, W) int32 instance ids of a checked polygon file; 0 where nothing was drawn."""
    canvas = Image.new("I", (content["imgWidth"], content["imgHeight"]), 0)
    pen, seen = ImageDraw.Draw(canvas), dict.fromkeys(BY_NAME, 0)
    for item in content["objects"]:
        found = None if item.get("deleted") else _class_of(item["label"])
        if found is None:
            continue
        name, group = found
        number = BY_NAME[name].id
        if BY_NAME[name].has_instances and not group:
            number, seen[name] = number * GROUP + seen[name], seen[name] + 1
        pen.polygon([(x, y) for x, y in item["polygon"]], fill=number)
    return torch.from_numpy(np.array(canvas, dtype=np.int32))


def polygons_of(instance_ids: Tensor) -> dict[str, Any]:
    """Instance ids (H, W) as a polygon file; drawn again, every pixel has its class and its object.

    An outline is one object in such a file, so the pieces of an object that is cut in two come back as two, and numbers
    are given anew.

    Raises:
        ValueError: for an id that Cityscapes does not have.
    """
    ids = _checked(instance_ids)
    rings: list[tuple[float, str, list[list[int]]]] = []
    for value in np.unique(ids).tolist():
        name = LABELS[value // GROUP if value >= GROUP else value].name
        if value < GROUP and BY_NAME[name].has_instances:
            name += "group"
        for ring in outline(torch.from_numpy(ids == value), (0, 0)):
            size = area(np.array(ring))
            if size > 0:  # rings round holes are drawn over by what is in them
                rings.append((size, name, _through_pixels(ring)))
    rings.sort(key=lambda ring: -ring[0])  # what lies in a hole has the smaller outline
    objects = [{"label": name, "polygon": corners} for _, name, corners in rings]
    return {"imgHeight": ids.shape[0], "imgWidth": ids.shape[1], "objects": objects}


def write_frame(root: str | Path, split: str, name: str, image: Tensor, instance_ids: Tensor) -> None:
    """Write an image with its label, instance and polygon files, where `Cityscapes(root, split)` finds them.

    Args:
        name: CITY_SEQUENCE_FRAME, such as "ulm_000000_000019".
        image: (3, H, W) uint8 RGB.
        instance_ids: (H, W), as in an instanceIds file.

    Raises:
        ValueError: if sizes or ids do not fit.
    """
    city = name.split("_")[0]
    if not city or name != Path(name).name:
        raise ValueError(f"name: expected CITY_SEQUENCE_FRAME, got {name!r}")
    if image.dtype != torch.uint8 or tuple(image.shape) != (3, *instance_ids.shape):
        raise ValueError(
            f"expected a uint8 image (3, H, W) and ids (H, W), got {tuple(image.shape)}, {tuple(instance_ids.shape)}"
        )
    ids = _checked(instance_ids)
    img = Path(root) / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    write_png(image.permute(1, 2, 0).contiguous().cpu().numpy(), img)
    stem = Path(root) / "gtFine" / split / city / f"{name}_gtFine"
    write_text(f"{stem}_polygons.json", json.dumps(polygons_of(instance_ids)))
    _write_ids(ids, stem)


def write_label_files(root: str | Path, split: str) -> int:
    """Draw the polygon files of a split whose label or instance file is missing; how many were drawn.

    Raises:
        ValueError: if there is no polygon file, or one is malformed.
    """
    files = sorted((Path(root) / "gtFine" / split).glob("*/*_gtFine_polygons.json"))
    if not files:
        raise ValueError(f"{root}: expected files gtFine/{split}/CITY/*_gtFine_polygons.json, found none")
    drawn = 0
    for file in files:
        stem = Path(str(file).removesuffix("_polygons.json"))
        if not all(Path(f"{stem}_{kind}.png").is_file() for kind in ("labelIds", "instanceIds")):
            _write_ids(draw_polygons(read_polygons(file)).numpy(), stem)
            drawn += 1
    return drawn


def _write_ids(ids: NDArray[np.int32], stem: Path) -> None:
    labels = np.where(ids >= GROUP, ids // GROUP, ids)
    write_png(labels.astype(np.uint8), Path(f"{stem}_labelIds.png"))
    write_png(ids.astype(np.uint16), Path(f"{stem}_instanceIds.png"))


def _checked(instance_ids: Tensor) -> NDArray[np.int32]:
    ids: NDArray[np.int32] = instance_ids.detach().cpu().numpy().astype(np.int32)
    kinds = np.where(ids >= GROUP, ids // GROUP, ids)
    if ids.ndim != 2 or not ids.size or not 0 <= kinds.min() <= kinds.max() <= LAST_ID:
        raise ValueError(
            f"instance_ids: expected (H, W) of 0..{LAST_ID}, or {GROUP} times these and a number,"
            f" got {tuple(ids.shape)}" + (f" of {ids.min()}..{ids.max()}" if ids.size else "")
        )
    return ids


def _class_of(label: str) -> tuple[str, bool] | None:
    """The class's name and whether it is a group; None for what is not drawn."""
    if label in BY_NAME:
        return label, False
    name = label.removesuffix("group")
    return (name, True) if name != label and name in BY_NAME else None


def _corners(where: str, polygon: Any, reach: int) -> None:
    whole = isinstance(polygon, list) and all(
        isinstance(corner, list)
        and len(corner) == 2
        and all(type(value) is int or (type(value) is float and abs(value) < 1e9) for value in corner)
        for corner in polygon
    )
    if not whole or len(polygon) < 2 or not all(-reach <= value <= 2 * reach for p in polygon for value in p):
        raise ValueError(f"{where}: polygon: expected corners [x, y] in or near the image")


def _through_pixels(ring: Outline) -> list[list[int]]:
    """An outer ring along pixel edges, clockwise, as the ring through the centres of its outermost pixels."""
    corners = np.array(ring).astype(int)
    before, after = np.roll(corners, 1, 0), np.roll(corners, -1, 0)
    vertical = corners[:, 0] == before[:, 0]  # the edge that arrives; the one that leaves is the other kind
    dx = np.where(vertical, after[:, 0] - corners[:, 0], corners[:, 0] - before[:, 0])
    dy = np.where(vertical, corners[:, 1] - before[:, 1], after[:, 1] - corners[:, 1])
    # Clockwise, inside is below an edge to the right, and left of an edge downwards.
    inner = corners - np.stack([dy > 0, dx < 0], 1)
    return [[int(x), int(y)] for x, y in inner]
