"""A repaired copy of a data set's objects, as a COCO file with its images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pointrend.data.coco import CocoInstances
from pointrend.data.validate import is_fraction
from pointrend.formats.coco_json import extent_of
from pointrend.io import write_text


def write_repaired(data: CocoInstances, split: str, out: Path) -> str:
    """Write OUT/instances_SPLIT.json and OUT/SPLIT/ with the images, and say what was repaired.

    Repaired is what has one meaning: the faults that are read as meant, boxes without a side (taken from the
    outline), and fractions where every object of the file is in fractions. Records with other faults are left as they
    are. Images are hard links where the file system has them.

    Raises:
        ValueError: the output has such a file already.
    """
    target = out / f"instances_{split}.json"
    if target.exists():
        raise ValueError(f"{target}: is there already; choose another folder")
    content = data.inspection.content if data.inspection is not None else {}
    mended = (
        [fault for fault in data.inspection.faults if fault.certain] if data.inspection is not None else []
    )
    left = len(data.inspection.faults) - len(mended) if data.inspection is not None else 0
    if not content:  # from another format
        content = data.as_coco()
    records: dict[Any, dict[str, Any]] = {
        record["id"]: record for record in content["annotations"] if _is_record(record)
    }
    done = len(mended) + _mend_boxes_and_fractions(data, records)
    for record in content["images"]:
        if _is_record(record) and record["id"] in data.file.images:
            record["file_name"] = _copy_image(data, data.file.images[record["id"]].file_name, out / split)
    write_text(target, json.dumps(content))
    return f"{target}: {done} faults repaired, {left} left, which have no certain repair"


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), int | str)


def _mend_boxes_and_fractions(data: CocoInstances, records: dict[Any, dict[str, Any]]) -> int:
    items = [(item, data.file.images[key]) for key, objects in data.file.objects.items() for item in objects]
    fractions = bool(items) and all(is_fraction(item) and min(image.size) > 4 for item, image in items)
    count = 0
    for item, image in items:
        record = records.get(item.id)
        if record is None:
            continue
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
    path = data.find_image(name)
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
