"""LVIS v0.5 and v1 as data of COCO's 80 classes: the same pictures, outlined with more care (paper section 4.1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pointrend.data.coco_file import Category, CocoFile, Picture, read_coco
from pointrend.facts import coco

FILES = {split: (f"lvis_v1_{split}.json", f"lvis_v0.5_{split}.json") for split in ("train", "val")}
"""Released names, the newer first."""


def read_lvis_as_coco(path: str | Path) -> CocoFile:
    """The objects of an LVIS file whose category is one of COCO's, by WordNet synset, under COCO's names and ids.

    All 80 classes are there, also the two that LVIS v0.5 does not have (oven and hot dog). Pictures are named by the
    folder and file of COCO 2017 that their address says, "train2017/000000000009.jpg": v1's validation part has
    pictures of both. LVIS does not outline every object of a class in every picture; scores need its own protocol
    (`pointrend eval --lvis`).

    Raises:
        ValueError: the file is malformed, or its categories have no synsets.
    """
    file = read_coco(path)
    if not any(category.synset for category in file.categories.values()):
        raise ValueError(f"{path}, categories: expected a synset of each, as LVIS has them, got none")
    own = {category.synset: category.id for category in coco.CATEGORIES}
    known = {
        number: own[category.synset]
        for number, category in file.categories.items()
        if category.synset is not None and category.synset in own
    }
    return CocoFile(
        file.path,
        {number: _released(picture) for number, picture in file.pictures.items()},
        {category.id: Category(category.id, category.name, None) for category in coco.CATEGORIES},
        {
            number: [
                replace(item, category_id=known[item.category_id])
                for item in objects
                if item.category_id in known
            ]
            for number, objects in file.objects.items()
        },
    )


def _released(picture: Picture) -> Picture:
    parts = picture.url.split("/")[-2:]
    if len(parts) < 2 or parts[0] not in ("train2017", "val2017"):
        return picture  # no address: as the file says
    return replace(picture, file_name="/".join(parts))


def find_lvis(root: Path, split: str) -> tuple[Path, Path] | None:
    """The folder that holds COCO's, and the annotation file, if they are there."""
    for name in FILES[split]:
        for folder in (root, root / "annotations"):
            if (folder / name).is_file():
                return root, folder / name
    return None
