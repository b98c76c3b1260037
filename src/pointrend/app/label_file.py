"""The file of `pointrend label`: a COCO file of the finished objects, and what is left of the work.

Finished objects have `point_coords` and `point_labels`, so the file is ready to train on. What is left is under
"labelling", so that the work goes on from the file alone. A new file begins with the boxes of a COCO file, of a model,
or with none yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import image_size
from pointrend.formats.coco_json import inspect_coco
from pointrend.formats.records import Id, checked
from pointrend.io import read_json
from pointrend.results import InstanceResult

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
    done_drawing: list[Id]
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


Propose = Callable[[list[Path]], tuple[Sequence[str], Sequence[InstanceResult]]]
"""From image files to class names and a result for each image."""


def boxes_to_label(
    images: Path, annotations: Path | None, *, classes: Sequence[str] = (), propose: Propose | None = None
) -> dict[str, Any]:
    """Content of a COCO file with the boxes to label, masks or not.

    Args:
        images: folder of the images. annotations: COCO file with boxes.
        classes: categories where there is no file and no model.
        propose: a model's detections, where there is no file.

    Raises:
        ValueError: a malformed file; no images; no categories.
    """
    if annotations is not None:
        if propose is not None:
            raise ValueError("annotations and model: boxes come from one of them; leave the other out")
        found = inspect_coco(read_json(annotations), masks=False, file_names=True, name=str(annotations))
        checked(found)
        return dict(found.content)
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{images}: expected images, got none")
    records = []
    for number, path in enumerate(paths, start=1):
        height, width = image_size(path, upright=True)
        name = path.relative_to(images).as_posix()
        records.append({"id": number, "file_name": name, "height": height, "width": width})
    objects: list[dict[str, object]] = []
    if propose is not None:
        classes, results = propose(paths)
        for number, (_, result) in enumerate(zip(paths, results, strict=True), start=1):
            objects += _detected(number, result, first=len(objects) + 1)
    if not classes:
        raise ValueError(
            "classes: expected --annotations or --model, or the names of --classes to draw boxes of"
        )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": records, "categories": categories, "annotations": objects}


def _detected(image_id: int, result: InstanceResult, *, first: int) -> list[dict[str, object]]:
    records = []
    found = zip(result.boxes.tolist(), result.labels.tolist(), result.scores.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), label, score) in enumerate(found, start=first):
        bbox = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        records.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], 2),
                "iscrowd": 0,
                "proposed_score": round(score, 4),
            }
        )
    return records


def read_unfinished(path: Path, points: int) -> Record:
    """The kept answers of an object that is not finished: its id as "object", its "points", the "labels" of the first
    ones, and the seconds that these "took".

    Empty where there is no such file, or one of something else: what is lost then is less than `points` answers.
    """
    try:
        kept = read_json(path)
        found = {key: kept[key] for key in ("object", "points")}
        found |= {"labels": [*kept["labels"]], "took": float(kept["took"])}
        check_labels(found["labels"], range(points))
        return found if 0 <= found["took"] < math.inf else {}
    except (ValueError, TypeError, KeyError, OverflowError):
        return {}


def check_labels(labels: Sequence[int], counts: Container[int]) -> None:
    """Raises ValueError unless they are of 0 and 1, and one of `counts` many."""
    if len(labels) not in counts or not all(label in (0, 1) for label in labels):
        raise ValueError(
            f"Expected labels of 0 or 1, one for each point that was asked for, got {[*labels][:20]}."
        )
