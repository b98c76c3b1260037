"""A repaired copy of a data set: its objects as a COCO file, or its label maps as numbers, with its images."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pointrend.data.class_table import ClassTable, read_class_file, to_contiguous
from pointrend.data.coco import CocoInstances
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.label_io import label_colors, label_pixels, read_labels
from pointrend.data.validate import is_fraction
from pointrend.formats.records import extent_of
from pointrend.io import write_png, write_text
from pointrend.metadata.colors import default_palette
from pointrend.structures import IGNORE_LABEL, RGB, are_numbered, numbered_names

NEAR = 60
"""By so much a channel may differ from the colour, or a grey value from 0 or 255, that it is taken for."""
MASKS = ("background", "object")


def write_repaired(data: CocoInstances, split: str, out: Path) -> str:
    """Write OUT/instances_SPLIT.json and OUT/SPLIT/ with the images, and say what was repaired.

    Repaired is what has one meaning: the faults that are read as meant, boxes without a side (taken from the
    outline), and fractions and crowds where every object of the file is in fractions or a crowd. Records with other
    faults are left as they are. Images are hard links where the file system has them.

    Raises:
        ValueError: the output has such a file already; the images are behind an address.
    """
    if isinstance(data.images, str):
        raise ValueError(f"{data.images}: expected images on this computer; download them first")
    target = out / f"instances_{split}.json"
    if target.exists():
        raise ValueError(f"{target}: is there already; choose another folder")
    mended = [fault for fault in data.inspection.faults if fault.repairable]
    left = len(data.inspection.faults) - len(mended)
    content = data.inspection.content or data.as_coco()  # the second from another format
    records: dict[Any, dict[str, Any]] = {
        record["id"]: record for record in content["annotations"] if _is_record(record)
    }
    done = len(mended) + _mend_boxes_and_fractions(data, records)
    for record in content["images"]:
        if _is_record(record) and record["id"] in data.file.images:
            record["file_name"] = _copy_image(data, data.file.images[record["id"]].file_name, out / split)
    write_text(target, json.dumps(content))
    return f"{target}: {done} faults repaired, {left} left, which have no certain repair"


def _is_record(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), int | str)


def _mend_boxes_and_fractions(data: CocoInstances, records: dict[Any, dict[str, Any]]) -> int:
    items = [(item, data.file.images[key]) for key, objects in data.file.objects.items() for item in objects]
    fractions = bool(items) and all(is_fraction(item) and min(image.size) > 4 for item, image in items)
    crowds = all(item.crowd for item, _ in items)
    count = 0
    for item, image in items:
        record = records.get(item.id)
        if record is None:
            continue
        if crowds:
            record["iscrowd"] = 0
            count += 1
        if fractions:
            scale = (image.width, image.height)
            record["segmentation"] = [
                [value * scale[number % 2] for number, value in enumerate(ring)]
                for ring in record["segmentation"]
            ]
            record["bbox"] = [value * scale[number % 2] for number, value in enumerate(item.bbox.tolist())]
            record["area"] = item.shape.area * image.width * image.height if item.shape is not None else 0.0
            count += 1
        elif 0 in item.bbox.tolist()[2:] and item.shape is not None:
            x1, y1, x2, y2 = extent_of(item.shape)
            if x2 > x1 and y2 > y1:
                record["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                count += 1
    return count


def _copy_image(data: CocoInstances, name: str, folder: Path) -> str:
    """The name in the copy; of a missing image the one it had."""
    path = Path(data.find_image(name))
    if not path.is_file():
        return name
    own = path.relative_to(data.images).as_posix() if path.is_relative_to(data.images) else path.name
    link_or_copy(path, folder / own)
    return own


def link_or_copy(path: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy; nothing where there is such a file already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)


def write_repaired_labels(data: SemanticFolder, split: str, out: Path) -> str:
    """Write OUT/images/SPLIT, OUT/labels/SPLIT as 8-bit PNG, and OUT/classes.json, and say what was repaired.

    Repaired are label maps in colour (by the palette of classes.json, by that of OUT where another split is there
    already, or by all colours that occur), blurred ones whose every pixel is near a colour of the palette, and masks of
    0 and 255. Others are copied where they can be read.

    Raises:
        ValueError: the output has this split already; the label maps are behind an address.
    """
    labels = out / "labels" / split
    if labels.exists():
        raise ValueError(f"{labels}: is there already; choose another folder")
    if data.address is not None:
        raise ValueError(f"{data.address}: expected label maps on this computer; download them first")
    table, repaired, left = _table(data, out), 0, []
    root = Path(os.path.commonpath([image.parent for image, _ in data.pairs]))
    for image, path in data.pairs:
        try:
            numbers, changed = _repaired(path, table)
        except ValueError as error:
            left.append(f"\n  {error}")
            continue
        name = image.relative_to(root)
        write_png(Image.fromarray(numbers), labels / name.with_suffix(".png"))
        if image.is_file():
            link_or_copy(image, out / "images" / split / name)
        repaired += changed
    if len(left) < len(data.pairs):
        classes = {"classes": table.names, "ignore_label": IGNORE_LABEL, "palette": table.palette}
        write_text(out / "classes.json", json.dumps(classes, indent=1) + "\n")
    more = f"\n  and {len(left) - 3} more" if left[3:] else ""
    said = "".join(left[:3]) + more
    return f"{out}: {repaired} label maps repaired, {len(left)} left out, which have no certain repair{said}"


def _table(data: SemanticFolder, out: Path) -> ClassTable:
    """What the numbers and colours of the label maps mean."""
    own = data.classes
    if own.colors is not None or not are_numbered(own.names):
        return own
    before = read_class_file(out)
    if before is not None:
        return before
    paths = [path for _, path in data.pairs if path.is_file()]
    colors = sorted(set[RGB]().union(*(_colors(path) for path in paths)))
    if colors:
        return ClassTable.in_colors(numbered_names(len(colors)), colors)
    return ClassTable(MASKS, default_palette(2)) if paths and all(map(_is_mask, paths)) else own


def _colors(path: Path) -> set[RGB]:
    try:
        return label_colors(path)
    except ValueError:  # said when it is to be repaired
        return set()


def _repaired(path: Path, table: ClassTable) -> tuple[NDArray[np.uint8], bool]:
    """The label map (H, W), 0..K-1 and 255 ignored, and whether it had to be changed."""
    pixels = label_pixels(path)
    if table.names == MASKS and pixels.ndim == 2 and _is_mask(path):
        return (pixels > 127).astype(np.uint8), True
    if pixels.ndim == 2:
        return to_contiguous(read_labels(path), table, path).numpy(), False
    if table.colors is None:
        raise ValueError(f"{path}: a label map in colour; write its palette into classes.json")
    numbers = torch.from_numpy(_nearest(path, pixels, table.colors))
    return to_contiguous(numbers, table, path).numpy(), True


def _is_mask(path: Path) -> bool:
    """Whether a grey file has values near 0 and near 255 alone."""
    try:
        values = label_pixels(path)
    except ValueError:
        return False
    near = (values <= NEAR) | ((values >= 255 - NEAR) & (values <= 255))
    return values.ndim == 2 and bool(near.all()) and int(values.max()) not in range(1, NEAR + 1)


def _nearest(path: Path, pixels: NDArray[np.int32], colors: Mapping[RGB, int]) -> NDArray[np.int32]:
    """(H, W) the number of the nearest colour.

    Raises:
        ValueError: a pixel is near none.
    """
    palette = np.array(list(colors), dtype=np.int32)  # (K, 3)
    found, place = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    farthest = np.abs(found[:, None] - palette[None]).max(2)  # (colours, K)
    nearest = farthest.argmin(1)
    if (worst := int(farthest.min(1).max(initial=0))) > NEAR:
        color = found[farthest.min(1).argmax()].tolist()
        raise ValueError(
            f"{path}: the colour {color} is none of the palette, nor near one (by {worst} of 255)"
        )
    numbers = np.array(list(colors.values()), dtype=np.int32)[nearest]
    return numbers[place.reshape(pixels.shape[:2])]
