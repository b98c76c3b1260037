"""Where the boxes to label come from: a COCO file, a model's detections, or none yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import image_size
from pointrend.formats.coco_json import checked, inspect_coco
from pointrend.io import read_json

Propose = Callable[[list[Path]], tuple[Sequence[str], Sequence[Any]]]
"""From image files to class names and an `InstanceResult` for each image."""


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
    objects: list[dict[str, Any]] = []
    if propose is not None:
        classes, results = propose(paths)
        for record, result in zip(records, results, strict=True):
            objects += _detected(record, result, first=len(objects) + 1)
    if not classes:
        raise ValueError(
            "classes: expected --annotations or --model, or the names of --classes to draw boxes of"
        )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": records, "categories": categories, "annotations": objects}


def _detected(image: dict[str, Any], result: Any, *, first: int) -> list[dict[str, Any]]:
    records = []
    found = zip(result.boxes.tolist(), result.labels.tolist(), result.scores.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), label, score) in enumerate(found, start=first):
        bbox = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        records.append(
            {
                "id": number,
                "image_id": image["id"],
                "category_id": label + 1,
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], 2),
                "iscrowd": 0,
                "proposed_score": round(score, 4),
            }
        )
    return records
