"""One argument, any data set: what `--data` of the command line understands."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pointrend.data.cityscapes import Cityscapes
from pointrend.data.class_table import ClassTable, infer_classes, read_class_file, read_classes, refuse_masks
from pointrend.data.coco import CocoInstances
from pointrend.data.exports import ObjectSource, describe, find_objects, find_points
from pointrend.data.label_folders import SemanticFolder, find_semantic_pairs, read_pairs
from pointrend.data.remote import ObjectFile, is_missing, is_url, opened
from pointrend.data.shapes import ShapeScenes
from pointrend.data.splits import SPLIT_NAMES, held_out
from pointrend.data.voc_folder import VocFolder
from pointrend.formats.coco_json import inspect_coco
from pointrend.formats.lvis import find_lvis, read_lvis_as_coco
from pointrend.formats.records import CocoFile, Inspection, checked
from pointrend.metadata import ade20k, coco
from pointrend.metadata.colors import default_palette
from pointrend.structures import Dataset, Sample, Task

Split = Literal["train", "val"]
Transforms = Callable[[Sample], Sample]

LAYOUTS = """\
  shapes, shapes:instance                       generated scenes, nothing to download
  DIR/instances_{train,val}.json, DIR/{train,val}/                       COCO format
  DIR/annotations/instances_{train,val}2017.json, DIR/{train,val}2017/   COCO as released
  DIR/annotations/lvis_v{1,0.5}_{train,val}.json, DIR/{train,val}2017/   LVIS, COCO's classes (DIR:lvis beside COCO)
  DIR:points (DIR:points_n10_v1)                labelled points beside masks: *_n10_v1_without_masks.json
  DIR/leftImg8bit/, DIR/gtFine/                 Cityscapes (DIR:instance for its objects)
  DIR/{train,val}.txt                           lines "image labels", relative to DIR
  DIR/images/{train,val}/, DIR/labels/{train,val}/   images and label maps of the same names
  DIR/{train,val}/images/, DIR/{train,val}/labels/; DIR/{train,val}/, DIR/{train,val}_masks/   the same
  DIR/images/, DIR/labels/                      the same, every tenth for validation
  DIR/images/{training,validation}/, DIR/annotations/..., DIR/objectInfo150.txt      ADE20K as released
  DIR/{train,val}2017/, DIR/stuffthingmaps/{train,val}2017/    COCO-Stuff (DIR:semantic beside COCO)
  DIR/JPEGImages/, DIR/SegmentationClass/       Pascal VOC, CVAT's masks (DIR:instance for SegmentationObject)
  DIR/{train,valid}/ with a COCO file in each, or NAME_mask.png beside NAME.jpg   Roboflow
  DIR/annotations/instances_default.json or DIR/result.json, DIR/images/   CVAT, Label Studio; a tenth for validation
  DIR/images/, DIR/labels/*.txt, DIR/data.yaml or classes.txt              YOLO segmentation; also with {train,val}/
  DIR/*.json beside their images, DIR/*/ann/ and DIR/*/img/                labelme; Supervisely
  ADDRESS (s3://, gs://, az://, hf://, http://) of a folder with one of the first two layouts of COCO, or with
    {train,val}.txt and classes.json: images are read as they are needed, and not kept
with an optional DIR/classes.json for label maps (palette: for maps in colour):
  {"classes": [names], "ignore_label": 255, "ids": [numbers in the files], "reduce_zero_label": true,
   "palette": [colours]}"""

POINTS = re.compile(r":points(?:_(n\d+_v\d+))?$")
LARGEST_ANNOTATIONS = 2**31
"""Bytes of an annotation file or a list behind an address; those of COCO's training part are 450 MB."""
COCO_FILES = (("instances_{}.json", "{}"), ("annotations/instances_{}2017.json", "{}2017"))
"""Behind an address: annotation file and folder of images of a split."""
SCENES = {"train": (0, 20_000), "val": (1_000_000, 200)}  # first scene and how many


def open_dataset(
    data: str | Path,
    split: Split,
    *,
    transforms: Transforms | None = None,
    categories: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Dataset:
    """The data set that `data` names (LAYOUTS), its task by its kind or by a ":semantic" or ":instance"
    behind it.

    `categories` chooses categories or supercategories of COCO data (see `CocoInstances`). In training,
    images without objects are left out of COCO data, as Detectron2 does.

    `allow_missing`: a missing label map or image is an error when it is read, not at once: for `data check`.

    Raises ValueError if the layout is none of those, or something in it is wrong.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f'split: expected "train" or "val", got {split!r}')
    name, task = _split_task(str(data))
    lvis = name.endswith(":lvis")
    name = name.removesuffix(":lvis")
    points = POINTS.search(name)
    name = POINTS.sub("", name)
    if (lvis or points) and task == "semantic":
        raise ValueError(f"{data}: LVIS and labelled points are data for instance segmentation, not semantic")
    opening = _Opening(split, task, transforms, categories, allow_missing)
    found: Dataset | None
    if is_url(name):
        if lvis or points:
            raise ValueError(f"{data}: LVIS and labelled points are read from this computer's disk only")
        found = opening.address(name.rstrip("/"))
    elif name == "shapes" and not Path(name).exists():
        first, count = SCENES[split]
        found = ShapeScenes(count, task or "semantic", first=first, transforms=transforms)
    elif Path(name).is_dir():
        root = Path(name)
        if points is not None and split == "train":
            source = find_points(root, points[1] or "")
            if source is None:
                raise ValueError(
                    f"{data}: found no file of labelled points (*_n10_v1_without_masks.json) beside its images; "
                    "`pointrend data sample-points` draws them from masks"
                )
            return opening.objects(source)
        found = None if lvis else opening.folder(root)
        if found is None and task != "semantic":
            found = opening.lvis(root)
    elif Path(name).is_file():
        raise ValueError(
            f"{name}: expected a folder, got a file; give the folder that holds it and its images, archives unpacked. "
            f"A data set is one of\n{LAYOUTS}"
        )
    else:
        raise ValueError(f"{name}: no such folder. A data set is one of\n{LAYOUTS}")
    if found is None:
        raise ValueError(
            f"{name}: found none of the layouts below for the split {split!r}{_other(data, split)}. It holds\n"
            f"{describe(Path(name))}\n"
            f"and a data set is one of\n{LAYOUTS}"
        )
    if task is not None and found.task != task:
        raise ValueError(f"{name}: this is data for {found.task} segmentation, not {task}")
    if categories is not None and not isinstance(found, CocoInstances):
        raise ValueError(f"{name}: categories can be chosen in COCO data only")
    return found


def _other(data: str | Path, split: Split) -> str:
    """That the other split is there, or a folder inside is a data set."""
    other: Split = "train" if split == "val" else "val"
    name, task = _split_task(str(data).removesuffix(":lvis"))
    inside = sorted(path for path in Path(name).iterdir() if path.is_dir())
    for folder, part, text in (
        (Path(name), other, f", but one for {other!r}"),
        *((path, split, f", but one in {path}: give that folder") for path in inside[:20]),
    ):
        with suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _Opening(part, task, allow_missing=True).folder(folder) is not None:
                return text
    return ""


def _split_task(data: str) -> tuple[str, Task | None]:
    if data.endswith(":semantic"):
        return data.removesuffix(":semantic"), "semantic"
    if data.endswith(":instance"):
        return data.removesuffix(":instance"), "instance"
    return data, None


@dataclass(frozen=True)
class _Opening:
    """What was asked of a data set, for each kind of place that it may lie in; see `open_dataset`."""

    split: Split
    task: Task | None
    transforms: Transforms | None = None
    categories: Sequence[str] | None = None
    allow_missing: bool = False

    def folder(self, root: Path) -> Dataset | None:
        """The data in a folder, None where it has none."""
        if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
            task = self.task or "semantic"
            return Cityscapes(
                root, self.split, task, transforms=self.transforms, allow_missing=self.allow_missing
            )
        voc = VocFolder.find(root)
        if voc is not None and self.task != "instance":
            pairs = [(voc.images / image, labels) for image, labels, _ in voc.files(self.split)]
            return SemanticFolder(pairs, voc.classes(), transforms=self.transforms) if pairs else None
        if self.task == "semantic":  # label maps come first, where a folder has both
            maps = self.label_maps(root)
            if maps is not None:
                return maps
        source = find_objects(root, self.split) if voc is None else voc.objects(self.split)
        return self.label_maps(root) if source is None else self.objects(source)

    def address(self, address: str) -> Dataset:
        """The data below an address: annotations are read once, each image when it is its turn, and nothing is listed
        or kept.
        """
        for name, images in COCO_FILES if self.task != "semantic" else ():
            file = _file_at(f"{address}/{name.format(self.split)}")
            if file is not None:
                inspect = partial(inspect_coco, file, file_names=True)
                return self.objects(
                    ObjectSource("COCO file", f"{address}/{images.format(self.split)}", inspect)
                )
        listed = None if self.task == "instance" else _file_at(f"{address}/{self.split}.txt")
        if listed is None:
            raise ValueError(
                f"{address}: found no annotations of {self.split!r} there (or they may not be read): expected "
                f"instances_{self.split}.json, annotations/instances_{self.split}2017.json or, for label maps, "
                f"{self.split}.txt"
            )
        table = _file_at(f"{address}/classes.json")
        if table is None:  # not every label map is read to infer the classes
            raise ValueError(
                f"{address}/classes.json: not there; label maps behind an address need a file that names their classes"
            )
        classes = read_classes(table)
        return SemanticFolder(read_pairs(listed), classes, transforms=self.transforms, address=address)

    def objects(self, source: ObjectSource) -> CocoInstances:
        """Annotated objects; ValueError where there is none to learn from."""
        inspection = source.inspect()
        file = inspection.file if self.allow_missing else checked(inspection)
        if source.both_splits:
            file = file.part(held_out(list(file.images), self.split))
        data = self._coco(source.images, file, inspection)
        if not len(data) and not self.allow_missing:
            objects = [item for items in file.objects.values() for item in items]
            crowds = sum(item.crowd for item in objects)
            why = f", {crowds} of them crowds (iscrowd 1), which are not learnt from" if crowds else ""
            raise ValueError(
                f"{file.source}: expected an image with an object of {', '.join(data.class_names[:10])}; it has "
                f"{len(file.images)} images and {len(objects)} objects{why}; `pointrend data check` says more"
            )
        return data

    def lvis(self, root: Path) -> CocoInstances | None:
        """LVIS's annotations of COCO's images."""
        found = find_lvis(root, self.split)
        return None if found is None else self._coco(root, read_lvis_as_coco(found))

    def label_maps(self, root: Path) -> SemanticFolder | None:
        """Images with label maps."""
        pairs = find_semantic_pairs(root, allow_missing=self.allow_missing)
        if not pairs[self.split]:
            return None
        # Both splits' label maps count: a class may occur in one of them only.
        label_paths = [label_path for _, label_path in [*pairs["train"], *pairs["val"]]]
        classes = _classes(root, label_paths, self.allow_missing)
        return SemanticFolder(pairs[self.split], classes, transforms=self.transforms)

    def _coco(
        self, images: Path | str, file: CocoFile, inspection: Inspection | None = None
    ) -> CocoInstances:
        return CocoInstances(
            images,
            file,
            transforms=self.transforms,
            categories=self.categories,
            keep_empty=self.split != "train",
            inspection=inspection,
        )


def _file_at(address: str) -> ObjectFile | None:
    """An annotation file or a list; None where it is not there."""
    try:
        file = opened(address, LARGEST_ANNOTATIONS)
    except ConnectionError as error:
        if is_missing(error):
            return None
        raise
    assert isinstance(file, ObjectFile)
    return file


def _classes(root: Path, maps: Sequence[Path], allow_missing: bool) -> ClassTable:
    """What the folder says its labels mean, what is known of this data set, or what its label maps need."""
    table = read_class_file(root) or read_class_file(maps[0].parent)
    if table is not None:
        if not allow_missing:
            refuse_masks(table, maps)
        return table
    if (root / "objectInfo150.txt").is_file() or root.name == "ADEChallengeData2016":
        names = ade20k.CLASSES
        return ClassTable(
            names, default_palette(len(names)), ignore_label=0, ids=tuple(range(1, len(names) + 1))
        )
    if (root / "stuffthingmaps").is_dir():
        ids, names = zip(*coco.STUFF_MAP_CLASSES, strict=True)
        return ClassTable(names, default_palette(len(names)), ids=ids)
    return infer_classes(maps, allow_missing=allow_missing)
