"""LVIS's annotations: what its protocol of scores needs, and COCO's categories in them, for AP* and for training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointrend.formats.coco_json import inspect_coco
from pointrend.formats.records import Category, CocoFile, ImageRecord, brief, checked
from pointrend.io import read_json, write_text
from pointrend.metadata import coco

__all__ = [
    "FREQUENCIES",
    "check_lvis",
    "cocofy_lvis",
    "find_lvis",
    "read_lvis_as_coco",
    "write_cocofied_lvis",
]

FREQUENCIES = ("r", "c", "f")
"""Of categories: in fewer than 10, fewer than 100, more training images."""
FILES = ("lvis_v1_{}.json", "lvis_v0.5_{}.json")
"""Released names, the newer first."""
VERDICTS = ("neg_category_ids", "not_exhaustive_category_ids")


def cocofy_lvis(lvis: str | Path | Mapping[str, object]) -> dict[str, Any]:
    """Restrict an LVIS data set to the categories of COCO and give them COCO's ids.

    As Detectron2's `prepare_cocofied_lvis`: categories are matched by WordNet synset, everything else about
    them stays; annotations are kept in their order and numbered from 1; the lists of categories that are
    absent or not exhaustively annotated follow; a category that no annotation and no list mentions is
    dropped. The same input always gives the same output, and the output put in again comes out as it went in
    if synsets and ids agree.

    Args:
        lvis: LVIS file or its content (in v0.5 two COCO categories, oven and hot dog, have no synset there).

    Raises:
        ValueError: naming file, record and field if it is not of this form.
    """
    name = "lvis" if isinstance(lvis, Mapping) else str(lvis)
    data: Any = lvis if isinstance(lvis, Mapping) else read_json(lvis)
    if not isinstance(data, Mapping):
        raise ValueError(f"{name}: expected an object, got {type(data).__name__}")
    coco_ids = {category.synset: category.id for category in coco.CATEGORIES}
    for key in ("categories", "images", "annotations"):
        if not isinstance(data.get(key), list):
            raise ValueError(f"{name}: {key}: expected a list, got {type(data.get(key)).__name__}")
        for index, record in enumerate(data[key]):
            if not isinstance(record, Mapping):
                raise ValueError(
                    f"{name}: {key}: number {index}: expected an object, got {type(record).__name__}"
                )
    known: dict[int, int | None] = {}  # LVIS category id -> COCO's, None where COCO has no such category
    for index, category in enumerate(data["categories"]):
        own, synset = category.get("id"), category.get("synset")
        if not isinstance(own, int) or not isinstance(synset, str):
            raise ValueError(f"{name}: category number {index}: expected id (a number) and synset (a text)")
        if own in known:
            raise ValueError(f"{name}: category number {index}: id: {own} appears twice")
        known[own] = coco_ids.get(synset)

    def coco_id(where: str, key: str, category_id: object) -> int | None:
        if not isinstance(category_id, int) or category_id not in known:
            raise ValueError(f"{name}: {where}: {key}: {brief(category_id)} is not among the categories")
        return known[category_id]

    annotations: list[dict[str, Any]] = []
    for index, annotation in enumerate(data["annotations"]):
        new = coco_id(f"annotation number {index}", "category_id", annotation.get("category_id"))
        if new is not None:
            annotations.append({**annotation, "id": len(annotations) + 1, "category_id": new})
    images = []
    for image in data["images"]:
        fresh = dict(image)
        for key in VERDICTS:
            if not isinstance(image.get(key), list):
                raise ValueError(
                    f"{name}: image {brief(image.get('id'))}: {key}: expected a list, as LVIS files have"
                )
            mapped = (coco_id(f"image {brief(image.get('id'))}", key, one) for one in image[key])
            fresh[key] = [one for one in mapped if one is not None]
        images.append(fresh)
    mentioned = {annotation["category_id"] for annotation in annotations}
    mentioned.update(one for image in images for key in VERDICTS for one in image[key])
    categories = [
        {**category, "id": known[category["id"]]}
        for category in data["categories"]
        if known[category["id"]] in mentioned
    ]
    return {**data, "categories": categories, "annotations": annotations, "images": images}


def write_cocofied_lvis(lvis: str | Path, output: str | Path) -> dict[str, Any]:
    """`cocofy_lvis` from a file to a file, written atomically; returns its content."""
    content = cocofy_lvis(lvis)
    write_text(output, json.dumps(content))
    return content


def read_lvis_as_coco(path: str | Path) -> CocoFile:
    """The objects of an LVIS file whose category is one of COCO's, by WordNet synset, under COCO's names and ids.

    All 80 classes are there, also the two that LVIS v0.5 does not have (oven and hot dog). Images are named by the
    folder and file of COCO 2017 that their address says, "train2017/000000000009.jpg": v1's validation part has
    images of both. LVIS does not outline every object of a class in every image; scores need its own protocol
    (`pointrend eval --lvis`).

    Raises:
        ValueError: the file is malformed, or a category has no synset.
    """
    content = cocofy_lvis(path)
    file = checked(inspect_coco(content, file_names=True, name=str(path)))
    return replace(
        file,
        images={number: _released(image) for number, image in file.images.items()},
        categories={category.id: Category(category.id, category.name) for category in coco.CATEGORIES},
    )


def _released(image: ImageRecord) -> ImageRecord:
    parts = image.url.split("/")[-2:]
    if len(parts) < 2 or parts[0] not in ("train2017", "val2017"):
        return image  # no address: as the file says
    return replace(image, file_name="/".join(parts))


def find_lvis(root: Path, split: str) -> Path | None:
    """The annotation file of a split in COCO's folder, if it is there."""
    paths = (folder / name.format(split) for name in FILES for folder in (root, root / "annotations"))
    return next((path for path in paths if path.is_file()), None)


def check_lvis(truth: CocoFile) -> None:
    """Raise a ValueError, naming file, record and field, where LVIS's protocol lacks something to go by."""
    for image_id, image in truth.images.items():
        for key, listed in zip(
            VERDICTS, (image.neg_category_ids, image.not_exhaustive_category_ids), strict=True
        ):
            if listed is None or not all(one in truth.categories for one in listed):
                raise ValueError(
                    f"{truth.source}: image {brief(image_id)}: {key}: expected a list of category ids, as LVIS has"
                )
    for category_id, category in truth.categories.items():
        if category.frequency not in FREQUENCIES:
            raise ValueError(
                f"{truth.source}: category {category_id}: frequency: expected r, c or f,"
                f" got {brief(category.frequency)}"
            )
