"""Where the objects of a folder are annotated: COCO files, and what annotation tools export."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pointrend.data.class_table import read_class_file, read_lines
from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import image_size
from pointrend.data.label_io import read_labels
from pointrend.formats.coco_json import Inspection, brief, inspect_coco
from pointrend.formats.file_names import FileFinder
from pointrend.formats.labelme import inspect_labelme, is_labelme
from pointrend.formats.pascal_voc import VOID, inspect_voc
from pointrend.formats.supervisely import inspect_supervisely
from pointrend.formats.yolo import CLASS_FILES, inspect_yolo, read_names
from pointrend.io import read_json
from pointrend.metadata import pascal_voc
from pointrend.structures import RGB

SPLIT_NAMES = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
}
HOLD_OUT = 10
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
    named = [
        (found[1], found[2], path)
        for folder in (root, root / "annotations", *(root / name for name in SPLIT_NAMES["train"]))
        for path in sorted(folder.glob("*_without_masks.json"))
        if (found := POINTS_FILE.fullmatch(path.name)) and not any(n in found[1] for n in SPLIT_NAMES["val"])
    ]
    chosen = [(base, path) for base, own, path in named if version in ("", own)]
    if len(chosen) > 1:
        versions = ", ".join(f"{root}:points_{own}" for _, own, _ in named)
        raise ValueError(f"{root}: several files of labelled points; choose one of {versions}")
    for base, path in chosen:
        stem = base.removeprefix("instances_")
        folders = (stem, f"images/{stem}", "images/default", "images", *SPLIT_NAMES["train"], ".")
        images = path.parent if path.parent.name in SPLIT_NAMES["train"] else _images_of(root, folders)
        if images is not None:
            both = not any(name in str(path.relative_to(root)) for name in SPLIT_NAMES["train"])
            return _coco(images, path, both_splits=both)
    return None


def _coco_of_split(root: Path, split: str) -> ObjectSource | None:
    """A file named as its split; the newest year if there are several."""
    for name in SPLIT_NAMES[split]:
        for folder in (root, root / "annotations"):
            for file in _coco_files(folder, f"instances_{name}*.json"):
                stem = file.stem.removeprefix("instances_")
                images = _images_of(root, (stem, f"images/{stem}", "images", name))
                if images is not None:
                    return _coco(images, file)
    for name in SPLIT_NAMES[split]:
        for folder in (root, root / "annotations"):
            for file in _coco_files(folder, f"*{name}*.json"):
                content = coco_content(file)
                images = _images_of(root, (name, f"images/{name}", "images", "."))
                if content is not None and images is not None:
                    return _coco(images, file, content)
    return None


def _coco_files(folder: Path, pattern: str) -> list[Path]:
    """The newest year first; without copies that have points in place of masks."""
    return [
        path for path in sorted(folder.glob(pattern), reverse=True) if not POINTS_FILE.fullmatch(path.name)
    ]


def _roboflow(root: Path, split: str) -> ObjectSource | None:
    """A folder for each split, with the images and a COCO file (Roboflow: _annotations.coco.json)."""
    for name in SPLIT_NAMES[split]:
        for file in _coco_files(root / name, "*.json")[::-1]:
            content = coco_content(file)
            if content is not None:
                return _coco(root / name, file, content)
    return None


def _coco_for_all(root: Path, split: str) -> ObjectSource | None:
    """One COCO file for all images: CVAT's annotations/instances_default.json, Label Studio's result.json."""
    for file in [*_coco_files(root / "annotations", "*.json")[::-1], *_coco_files(root, "*.json")[::-1]]:
        content = coco_content(file)
        images = _images_of(root, ("images/default", "images", "."))
        if content is not None and images is not None and not _other_split(file.stem):
            return _coco(images, file, content, both_splits=True)
    return None


def _other_split(stem: str) -> bool:
    return any(name in stem for names in SPLIT_NAMES.values() for name in names)


def _images_of(root: Path, names: Iterable[str]) -> Path | None:
    """The first of these folders that is there."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def _coco(
    images: Path, file: Path, content: Mapping[str, Any] | None = None, *, both_splits: bool = False
) -> ObjectSource:
    def inspect() -> Inspection:
        return inspect_coco(file if content is None else content, file_names=True, name=str(file))

    return ObjectSource("COCO file", images, inspect, both_splits)


def coco_content(path: Path) -> Mapping[str, Any] | None:
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


def _is_panoptic(content: Any) -> bool:
    """Whether a file of COCO's form has segments in PNG files instead of objects."""
    records = content.get("annotations") if isinstance(content, Mapping) else None
    return isinstance(records, list) and any(
        isinstance(r, Mapping) and "segments_info" in r for r in records[:5]
    )


def _yolo(root: Path, split: str) -> ObjectSource | None:
    for images, labels, both in _yolo_folders(root, split):
        if images.is_dir() and labels.is_dir() and any(labels.rglob("*.txt")):
            return ObjectSource("YOLO text files", images, partial(_inspect_yolo, root, images, labels), both)
    return None


def _inspect_yolo(root: Path, images: Path, labels: Path) -> Inspection:
    names = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if names is None:
        raise ValueError(
            f"{labels}: text files as of YOLO, but no class names; put data.yaml or classes.txt into {root}"
        )
    pairs = [
        (image.relative_to(images).as_posix(), image, labels / image.relative_to(images).with_suffix(".txt"))
        for image in sorted(images.rglob("*"))
        if image.suffix.lower() in IMAGE_SUFFIXES
    ]
    return inspect_yolo(str(labels), pairs, read_names(names), partial(image_size, upright=True))


def _yolo_folders(root: Path, split: str) -> list[tuple[Path, Path, bool]]:
    """Folders of images and of text files, and whether they are of both splits."""
    found = []
    for name in SPLIT_NAMES[split]:
        found += [
            (root / "images" / name, root / "labels" / name, False),
            (root / name / "images", root / name / "labels", False),
        ]
    split_up = any((root / "labels" / name).is_dir() for names in SPLIT_NAMES.values() for name in names)
    return found if split_up else [*found, (root / "images", root / "labels", True)]


def _labelme(root: Path, split: str) -> ObjectSource | None:
    folders = [(root / name, False) for name in SPLIT_NAMES[split]]
    split_up = any((root / name).is_dir() for names in SPLIT_NAMES.values() for name in names)
    for folder, both in folders if split_up else [(root, True)]:
        if folder.is_dir() and any(is_labelme(path) for path in sorted(folder.rglob("*.json"))[:5]):
            return ObjectSource("labelme files", folder, partial(inspect_labelme, folder), both)
    return None


def _supervisely(root: Path, split: str) -> ObjectSource | None:
    folders = [path.parent for path in sorted(root.glob("*/ann")) if (path.parent / "img").is_dir()]
    if not folders:
        return None
    names = {folder.name for folder in folders}
    split_up = any(name in names for names_of in SPLIT_NAMES.values() for name in names_of)
    mine = [folder for folder in folders if folder.name in SPLIT_NAMES[split]] if split_up else folders
    if not mine:
        return None
    return ObjectSource(
        "Supervisely project", root, lambda: inspect_supervisely(root, mine), both_splits=not split_up
    )


@dataclass(frozen=True)
class VocFolder:
    """JPEGImages/, SegmentationClass/ and lists of the splits, as of Pascal VOC and of CVAT's mask export."""

    root: Path

    @classmethod
    def find(cls, root: Path) -> VocFolder | None:
        """In the folder, or in VOCdevkit/VOC2012 of it."""
        for folder in (
            root,
            *sorted(root.glob("VOCdevkit/VOC*"), reverse=True),
            *sorted(root.glob("VOC20*")),
        ):
            if (folder / "SegmentationClass").is_dir() and (folder / "JPEGImages").is_dir():
                return cls(folder)
        return None

    def names(self, split: str) -> tuple[list[str], bool]:
        """Images of a split by their list in ImageSets/Segmentation, else all with a class map, of both splits."""
        for name in SPLIT_NAMES[split]:
            file = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
            if file.is_file():
                return [line.strip() for line in read_lines(file) if line.strip()], False
        if any((self.root / "ImageSets" / "Segmentation").glob("[tv][ra]*.txt")):
            return [], False
        folder = self.root / "SegmentationClass"
        return sorted(
            path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")
        ), True

    def files(self, split: str) -> list[tuple[str, Path, Path]]:
        """Name of the image, class map and object map."""
        names, both = self.names(split)
        if both:
            names = held_out(names, split)
        images = FileFinder(self.root / "JPEGImages")
        known = {
            path.relative_to(images.folder).with_suffix("").as_posix(): path
            for path in images.folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
        }
        return [
            (
                known.get(name, images.folder / f"{name}.jpg").relative_to(images.folder).as_posix(),
                self.root / "SegmentationClass" / f"{name}.png",
                self.root / "SegmentationObject" / f"{name}.png",
            )
            for name in names
        ]

    def class_names_and_colors(self) -> tuple[tuple[str, ...], Mapping[RGB, int]]:
        """Of labelmap.txt or classes.json, else Pascal VOC's own."""
        table = read_class_file(self.root)
        if table is not None:
            return table.names, dict(zip(table.palette, range(len(table.names)), strict=True))
        colors = {color: number for number, color in enumerate(pascal_voc.palette())}
        return pascal_voc.CLASSES, {**colors, pascal_voc.VOID_COLOR: VOID}

    def objects(self, split: str) -> ObjectSource | None:
        """The objects of a split; None without object maps."""
        if not (self.root / "SegmentationObject").is_dir():
            return None
        names, colors = self.class_names_and_colors()

        def inspect() -> Inspection:
            return inspect_voc(
                str(self.root),
                self.files(split),
                names,
                lambda path: read_labels(path, colors).numpy(),
                _object_numbers,
            )

        return ObjectSource("Pascal VOC folders", self.root / "JPEGImages", inspect)


class _AnyColor(dict[RGB, int]):
    """Every colour a number of its own: black is 0, VOC's seam 255, others as they come."""

    def __contains__(self, color: object) -> bool:
        return True

    def __missing__(self, color: RGB) -> int:
        taken = len(self) + 1
        self[color] = 0 if color == (0, 0, 0) else VOID if color == pascal_voc.VOID_COLOR else taken
        return self[color]


def _object_numbers(path: Path) -> np.ndarray:
    numbers: np.ndarray = read_labels(path, _AnyColor()).numpy()
    return numbers


def held_out(items: Sequence[Any], split: str) -> list[Any]:
    """Of one set of images, those of a split: every tenth for validation; a single one for both."""
    if split == "val" or len(items) == 1:
        return list(items[::HOLD_OUT])
    return [item for number, item in enumerate(items) if number % HOLD_OUT]


def describe(root: Path, most: int = 12) -> str:
    """What a folder holds, and what its annotation files were taken for."""
    lines = []
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    for path in entries[:most]:
        if path.is_dir():
            lines.append(f"  {path.name}/: {_counted(path)}")
        elif path.suffix == ".json":
            lines.append(f"  {path.name}: {_taken_for(path)}")
        else:
            lines.append(f"  {path.name}")
    if len(entries) > most:
        lines.append(f"  and {len(entries) - most} more")
    return "\n".join(lines) if lines else "  nothing"


def _counted(folder: Path) -> str:
    counts: dict[str, int] = {}
    for path in folder.iterdir():
        kind = "folders" if path.is_dir() else path.suffix.lower() or "without suffix"
        counts[kind] = counts.get(kind, 0) + 1
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
        if _is_panoptic(content):
            return "COCO panoptic annotations, which are not read: panopticapi converts them to COCO or to label maps"
        return f"no annotations ({brief(content)})"
    except ValueError:
        return "no readable JSON"
