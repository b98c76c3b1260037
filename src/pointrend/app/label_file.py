"""The file of `pointrend label`: a COCO file of the finished objects, and what is left of the work.

Finished objects have `point_coords` and `point_labels`, so the file is ready to train on. What is left is under
"labelling", so that the work goes on from the file alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointrend.formats.coco_json import checked, inspect_coco
from pointrend.io import read_json

Record = dict[str, Any]


@dataclass
class Progress:
    """What the file has under "labelling"."""

    points: int
    """P of each object."""
    seed: int
    """Of the points; an object's are drawn from it and the object's id, so they stay the same when it comes again."""
    draw: bool
    """Ask for boxes on each image."""
    pending: list[Record]
    """Annotations without points yet, in the order in which they are asked for."""
    skipped: list[Record]
    """Annotations that were refused: no such object."""
    done_drawing: list[Any]
    """Ids of images on which no further box will be drawn."""


KINDS = {"points": int, "seed": int, "draw": bool, "pending": list, "skipped": list, "done_drawing": list}


def read_label_file(path: Path) -> tuple[Record, Progress]:
    """The checked content without "labelling", and what that says.

    Raises:
        ValueError: a file of something else, or a malformed one.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("labelling"), dict):
        raise ValueError(f"{path}: is there already and no file of `pointrend label`; choose another --out")
    checked(inspect_coco(content, file_names=True, name=str(path)))
    known = content.pop("labelling")
    if {key: type(value) for key, value in known.items()} != KINDS:
        raise ValueError(f"{path}, labelling: expected {', '.join(KINDS)}; choose another --out")
    if not all(isinstance(number, int | str) for number in known["done_drawing"]):
        raise ValueError(f"{path}, labelling, done_drawing: expected ids of images")
    left = [*known["pending"], *known["skipped"]]
    found = inspect_coco({**content, "annotations": left}, masks=False, name=str(path))
    checked(found)
    count = len(known["pending"])
    records = found.content["annotations"]
    return content, Progress(**known | {"pending": records[:count], "skipped": records[count:]})
