"""One argument, any data set: what `--data` of the command line understands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pointrend.data.cityscapes import Cityscapes
from pointrend.data.coco import CocoInstances
from pointrend.data.folders import (
    Pair,
    SemanticFolder,
    infer_classes,
    match_folders,
    read_classes,
    read_pairs,
)
from pointrend.data.shapes import ShapeScenes
from pointrend.structures import Sample

Split = Literal["train", "val"]
Task = Literal["semantic", "instance"]
Transforms = Callable[[Sample], Sample]

LAYOUTS = """\
  shapes, shapes:instance                       generated scenes, nothing to download
  DIR/instances_{train,val}.json, DIR/{train,val}/                       COCO format
  DIR/annotations/instances_{train,val}2017.json, DIR/{train,val}2017/   COCO as released
  DIR/leftImg8bit/, DIR/gtFine/                 Cityscapes (DIR:instance for its objects)
  DIR/{train,val}.txt                           lines "picture labels", relative to DIR
  DIR/images/{train,val}/, DIR/labels/{train,val}/   pictures and label maps of the same names
  DIR/images/, DIR/labels/                      the same, every tenth for validation
with an optional DIR/classes.json for label maps: {"classes": [names], "ignore_label": 255}"""

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
LABEL_FOLDERS = ("labels", "masks", "annotations")
SCENES = {"train": (0, 20_000), "val": (1_000_000, 200)}  # first scene and how many
HOLD_OUT = 10


class SegmentationData(Protocol):
    """What every data set here offers: samples, and what their labels mean."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0..K-1."""

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """A colour (0..255) for each class."""

    @property
    def task(self) -> str:
        """ "semantic" or "instance": the kind of target."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def open_dataset(
    data: str | Path,
    split: Split,
    *,
    transforms: Transforms | None = None,
    categories: Sequence[str] | None = None,
) -> SegmentationData:
    """The data set that `data` names (LAYOUTS), its task by its kind or by a ":semantic" or ":instance"
    behind it.

    `categories` chooses categories or supercategories of COCO data (see `CocoInstances`). In training,
    pictures without objects are left out of COCO data, as Detectron2 does.

    Raises ValueError if the layout is none of those, or something in it is wrong.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f'split: expected "train" or "val", got {split!r}')
    name, task = _split_task(str(data))
    if name == "shapes" and not Path(name).exists():
        found: SegmentationData | None = _shapes(split, task or "semantic", transforms)
    elif Path(name).is_dir():
        found = _folder(Path(name), split, task, transforms, categories)
    else:
        raise ValueError(f"{name}: no such folder. A data set is one of\n{LAYOUTS}")
    if found is None:
        raise ValueError(f"{name}: found none of the layouts below for the split {split!r}\n{LAYOUTS}")
    if task is not None and found.task != task:
        raise ValueError(f"{name}: this is data for {found.task} segmentation, not {task}")
    if categories is not None and not isinstance(found, CocoInstances):
        raise ValueError(f"{name}: categories can be chosen in COCO data only")
    return found


def _split_task(data: str) -> tuple[str, Task | None]:
    if data.endswith(":semantic"):
        return data.removesuffix(":semantic"), "semantic"
    if data.endswith(":instance"):
        return data.removesuffix(":instance"), "instance"
    return data, None


def _shapes(split: Split, task: Task, transforms: Transforms | None) -> ShapeScenes:
    first, count = SCENES[split]
    return ShapeScenes(count, task, first=first, transforms=transforms)


def _folder(
    root: Path,
    split: Split,
    task: Task | None,
    transforms: Transforms | None,
    categories: Sequence[str] | None,
) -> SegmentationData | None:
    coco = _find_coco(root, split)
    if coco is not None:
        images, annotations = coco
        return CocoInstances(
            images, annotations, transforms=transforms, categories=categories, keep_empty=split != "train"
        )
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        return Cityscapes(root, split, task or "semantic", transforms=transforms)
    pairs = find_semantic_pairs(root)
    if not pairs[split]:
        return None
    # Both splits' label maps count: a class may occur in one of them only.
    table = root / "classes.json"
    maps = (label_path for _, label_path in [*pairs["train"], *pairs["val"]])
    classes = read_classes(table) if table.is_file() else infer_classes(maps)
    return SemanticFolder(pairs[split], classes, transforms=transforms)


def _find_coco(root: Path, split: str) -> tuple[Path, Path] | None:
    """Pictures and annotation file, if they are there; the newest year if there are several."""
    for name in SPLIT_NAMES[split]:
        for folder in (root, root / "annotations"):
            for file in sorted(folder.glob(f"instances_{name}*.json"), reverse=True):
                stem = file.stem.removeprefix("instances_")
                for images in (root / stem, root / "images" / stem, root / "images"):
                    if images.is_dir():
                        return images, file
    return None


def find_semantic_pairs(root: Path) -> dict[str, list[Pair]]:
    """Pictures with label maps of both splits, empty lists where there are none."""
    lists = {split: _first_file(root, split) for split in SPLIT_NAMES}
    if any(lists.values()):
        return {split: read_pairs(file) if file else [] for split, file in lists.items()}
    labels = next((root / name for name in LABEL_FOLDERS if (root / name).is_dir()), None)
    if labels is None or not (root / "images").is_dir():
        return {split: [] for split in SPLIT_NAMES}
    parts = {split: _first_folder(root / "images", split) for split in SPLIT_NAMES}
    if any(parts.values()):
        return {
            split: match_folders(folder, labels / folder.name) if folder else []
            for split, folder in parts.items()
        }
    pairs = match_folders(root / "images", labels)
    return {
        "train": [pair for number, pair in enumerate(pairs) if number % HOLD_OUT or len(pairs) == 1],
        "val": pairs[::HOLD_OUT],
    }


def _first_file(root: Path, split: str) -> Path | None:
    return next((root / f"{n}.txt" for n in SPLIT_NAMES[split] if (root / f"{n}.txt").is_file()), None)


def _first_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()), None)
