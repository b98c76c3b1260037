"""Where the objects of a folder are annotated: COCO files, and what annotation tools export."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import image_size
from pointrend.data.splits import SPLIT_NAMES, child, first_child, is_split_up, split_of
from pointrend.formats.coco_json import inspect_coco
from pointrend.formats.file_names import has_files, visible_files
from pointrend.formats.labelme import inspect_labelme, is_labelme
from pointrend.formats.records import Inspection, brief
from pointrend.formats.supervisely import inspect_supervisely
from pointrend.formats.yolo import find_names, inspect_yolo, read_names
from pointrend.io import read_json

POINTS_FILE = re.compile(r"(.+)_(n\d+_v\d+)_without_masks\.json")
"""PointSup's name for a copy of a COCO file with labelled points in place of masks."""


@dataclass(frozen=True)
class ObjectSource:
    """Annotated objects that were found."""

    kind: str
    """Such as "COCO file" or "labelme files"."""
    images: Path | str
    """Folder, or address, that image names start from."""
    inspect: Callable[[], Inspection]
    both_splits: bool = False
    """There is one set of images: every tenth is for validation."""


def find_objects(root: Path, split: str) -> ObjectSource | None:
    """The objects of a split ("train" or "val"), in the first layout that is there."""
    for find in (_coco_of_split, _roboflow, _supervisely, _yolo, _coco_for_all, _labelme):
        found = find(root, split)
        if found is not None:
            return found
    return None


def find_points(root: Path, version: str = "") -> ObjectSource | None:
    """Labelled points to train on, in a file of PointSup's name; `version` such as "n10_v1" says which.

    Raises:
        ValueError: there are several, and no version says which.
    """
    train = [path for name in SPLIT_NAMES["train"] if (path := child(root, name)) is not None]
    named = [
        (found[1], found[2], path)
        for folder in (root, root / "annotations", *train)
        for path in sorted(folder.glob("*_without_masks.json"))
        if (found := POINTS_FILE.fullmatch(path.name)) and split_of(found[1]) != "val"
    ]
    chosen = [(base, path) for base, own, path in named if version in ("", own)]
    if len(chosen) > 1:
        versions = ", ".join(f"{root}:points_{own}" for _, own, _ in named)
        raise ValueError(f"{root}: several files of labelled points; choose one of {versions}")
    for base, path in chosen:
        stem = base.removeprefix("instances_")
        folders = (stem, f"images/{stem}", "images/default", "images", *SPLIT_NAMES["train"], ".")
        images = path.parent if path.parent in train else first_child(root, folders)
        if images is not None:
            both = split_of(path.relative_to(root).as_posix()) != "train"
            return _coco(images, path, both_splits=both)
    return None


def _coco_of_split(root: Path, split: str) -> ObjectSource | None:
    """A file named as its split: instances_*.json before others, and the newest year if there are several."""
    files = [path for path in _coco_files(root) if split_of(path.stem) == split]
    for file in sorted(files, key=lambda path: not path.name.lower().startswith(RELEASED)):
        released = file.name.lower().startswith(RELEASED)
        content = None if released else coco_content(file)
        if released or content is not None:
            stem = file.stem[len(RELEASED) :] if released else file.stem
            names = (stem, *SPLIT_NAMES[split])
            folders = [place for name in names for place in (name, f"images/{name}")]
            images = first_child(root, (*folders, "images", "."))
            assert images is not None
            return _coco(images, file, content)
    return None


RELEASED = "instances_"


def _coco_files(root: Path) -> list[Path]:
    """JSON files of the folder and of its annotations/, the newest year first; without copies that have points in
    place of masks.
    """
    return [
        path
        for folder in (root, child(root, "annotations") or root / "annotations")
        for path in sorted(folder.glob("[!.]*.json"), reverse=True)
        if not POINTS_FILE.fullmatch(path.name)
    ]


def _roboflow(root: Path, split: str) -> ObjectSource | None:
    """A folder for each split, with the images and a COCO file (Roboflow: _annotations.coco.json)."""
    for name in SPLIT_NAMES[split]:
        folder = child(root, name)
        for file in sorted(folder.glob("[!.]*.json")) if folder is not None else []:
            content = coco_content(file)
            if content is not None and not POINTS_FILE.fullmatch(file.name):
                return _coco(file.parent, file, content)
    return None


def _coco_for_all(root: Path, split: str) -> ObjectSource | None:
    """One COCO file for all images: CVAT's annotations/instances_default.json, Label Studio's result.json."""
    images = first_child(root, ("images/default", "images", "."))
    for file in sorted(_coco_files(root), key=lambda path: (path.parent == root, path.name)):
        content = coco_content(file) if split_of(file.stem) is None else None
        if content is not None and images is not None:
            return _coco(images, file, content, both_splits=True)
    return None


def _coco(
    images: Path, file: Path, content: Mapping[str, object] | None = None, *, both_splits: bool = False
) -> ObjectSource:
    def inspect() -> Inspection:
        return inspect_coco(file if content is None else content, file_names=True, name=str(file))

    return ObjectSource("COCO file", images, inspect, both_splits)


def coco_content(path: Path) -> Mapping[str, object] | None:
    """The content of a COCO file; None for any other JSON file."""
    if path.name in ("classes.json", "meta.json") or path.name.startswith("lvis_"):
        return None
    try:
        content = read_json(path)
    except ValueError:
        return None
    known = isinstance(content, Mapping) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )
    return content if known and not _is_panoptic(content) else None


def _is_panoptic(content: object) -> bool:
    """Whether a file of COCO's form has segments in PNG files instead of objects."""
    records = content.get("annotations") if isinstance(content, Mapping) else None
    return isinstance(records, list) and any(
        isinstance(r, Mapping) and "segments_info" in r for r in records[:5]
    )


def _yolo(root: Path, split: str) -> ObjectSource | None:
    for images, labels, both in _yolo_folders(root, split):
        if images is not None and labels is not None and has_files(labels, ".txt"):
            return ObjectSource("YOLO text files", images, partial(_inspect_yolo, root, images, labels), both)
    return None


def _inspect_yolo(root: Path, images: Path, labels: Path) -> Inspection:
    names = find_names(root)
    if names is None:
        raise ValueError(
            f"{labels}: text files as of YOLO, but no class names; put data.yaml or classes.txt into {root}"
        )
    files = [(path, path.relative_to(images)) for path in visible_files(images, *IMAGE_SUFFIXES)]
    pairs = [(own.as_posix(), path, labels / own.with_suffix(".txt")) for path, own in files]
    without = sorted({*visible_files(labels, ".txt")} - {text for _, _, text in pairs})
    return inspect_yolo(str(labels), pairs, read_names(names), partial(image_size, upright=True), without)


def _yolo_folders(root: Path, split: str) -> list[tuple[Path | None, Path | None, bool]]:
    """Folders of images and of text files, and whether they are of both splits."""
    found = []
    for name in SPLIT_NAMES[split]:
        found += [
            (child(root, f"images/{name}"), child(root, f"labels/{name}"), False),
            (child(root, f"{name}/images"), child(root, f"{name}/labels"), False),
        ]
    labels = child(root, "labels")
    split_up = labels is not None and is_split_up(labels)
    return found if split_up else [*found, (child(root, "images"), labels, True)]


def _labelme(root: Path, split: str) -> ObjectSource | None:
    folders = [(child(root, name), False) for name in SPLIT_NAMES[split]]
    for folder, both in folders if is_split_up(root) else [(root, True)]:
        if folder is not None and any(is_labelme(path) for path in visible_files(folder, ".json")[:5]):
            inspect = partial(inspect_labelme, folder, partial(image_size, upright=True))
            return ObjectSource("labelme files", folder, inspect, both)
    return None


def _supervisely(root: Path, split: str) -> ObjectSource | None:
    folders = [path.parent for path in sorted(root.glob("*/ann")) if (path.parent / "img").is_dir()]
    if not folders:
        return None
    split_up = any(split_of(folder.name) in SPLIT_NAMES for folder in folders)
    mine = [folder for folder in folders if split_of(folder.name) == split] if split_up else folders
    if not mine:
        return None
    return ObjectSource(
        "Supervisely project", root, lambda: inspect_supervisely(root, mine), both_splits=not split_up
    )


def describe(root: Path, most: int = 12) -> str:
    """What a folder holds, and what its annotation files were taken for."""
    lines = []
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    for path in entries[:most]:
        if path.is_dir():
            lines.append(f"  {path.name}/: {_counted(path)}")
        elif path.suffix == ".json":
            lines.append(f"  {path.name}: {_taken_for(path)}")
        elif path.suffix == ".xml":
            lines.append(f"  {path.name}: XML, which is not read; export as COCO, or CVAT's as COCO 1.0")
        else:
            lines.append(f"  {path.name}")
    if len(entries) > most:
        lines.append(f"  and {len(entries) - most} more")
    return "\n".join(lines) if lines else "  nothing"


def _counted(folder: Path) -> str:
    counts = Counter(
        "folders" if path.is_dir() else path.suffix.lower() or "without suffix" for path in folder.iterdir()
    )
    taken = "".join(f"; {path.name}: {_taken_for(path)}" for path in sorted(folder.glob("*.json"))[:3])
    return (", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "empty") + taken


def _taken_for(path: Path) -> str:
    content = coco_content(path)
    if content is not None:
        return "a COCO file; name it instances_train.json or instances_val.json"
    if is_labelme(path):
        return "a labelme file"
    try:
        content = read_json(path)
    except ValueError:
        return "no readable JSON"
    if _is_panoptic(content):
        return "COCO panoptic annotations, which are not read: panopticapi converts them to COCO or to label maps"
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, Mapping) and {"annotations", "data"} <= first.keys():
        return "Label Studio's own JSON, which is not read; export as COCO"
    images = list(content.values())[:5] if isinstance(content, Mapping) else []
    if "_via_img_metadata" in content or any(isinstance(one, Mapping) and "regions" in one for one in images):
        return "VGG Image Annotator's JSON, which is not read; export as COCO"
    return f"no annotations ({brief(content)})"
