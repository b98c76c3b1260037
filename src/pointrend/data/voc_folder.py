"""Pascal VOC's folders, as released and as CVAT's, labelme's and Datumaro's exports have them."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointrend.data.class_table import ClassTable, read_class_file, read_lines, to_contiguous
from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.exports import ObjectSource
from pointrend.data.label_io import read_labels
from pointrend.data.splits import SPLIT_NAMES, child, first_child, held_out, split_of
from pointrend.formats.file_names import has_files, visible_files
from pointrend.formats.image_annotations import AnnotatedImage, ImageAnnotations, mask_shape
from pointrend.formats.records import Inspection
from pointrend.metadata import pascal_voc
from pointrend.structures import RGB

CLASS_MAPS = ("SegmentationClassPNG", "SegmentationClass")
"""labelme's exports have arrays in the second, where they have the first."""
OBJECT_MAPS = ("SegmentationObjectPNG", "SegmentationObject")
VOID = 255
"""In class and object maps: the seam between objects, which belongs to none."""
RELEASED = re.compile(r"20\d\d_\d{6}")


@dataclass(frozen=True)
class VocFolder:
    """JPEGImages/, SegmentationClass/ and lists of the splits, as of Pascal VOC and of CVAT's mask export."""

    root: Path
    images: Path
    class_maps: Path
    object_maps: Path | None

    @classmethod
    def find(cls, root: Path) -> VocFolder | None:
        """In the folder, or in VOCdevkit/VOC2012 of it.

        Raises:
            ValueError: there are label maps, but no images.
        """
        for folder in (
            root,
            *sorted(root.glob("VOCdevkit/VOC*"), reverse=True),
            *sorted(root.glob("VOC20*")),
        ):
            images, maps = first_child(folder, ("JPEGImages", "images")), _with_files(folder, CLASS_MAPS)
            if maps is not None and images is None:
                raise ValueError(
                    f"{maps}: label maps without their images; put them into {folder}/JPEGImages"
                )
            if maps is not None and images is not None:
                return cls(folder, images, maps, _with_files(folder, OBJECT_MAPS))
        return None

    def names(self, split: str) -> tuple[list[str], bool]:
        """Images of a split by their list in ImageSets/Segmentation, else all with a class map, of both splits."""
        lists = sorted((self.root / "ImageSets" / "Segmentation").glob("[!.]*.txt"), key=_shortest_first)
        for file in lists:
            if split_of(file.stem) == split:
                lines = (line.strip() for line in read_lines(file))
                return [_without_suffix(line) for line in lines if line], False
        if any(split_of(file.stem) for file in lists):
            return [], False
        paths = visible_files(self.class_maps, ".png")
        return [path.relative_to(self.class_maps).with_suffix("").as_posix() for path in paths], True

    def files(self, split: str) -> list[tuple[str, Path, Path]]:
        """Name of the image, class map and object map."""
        names, both = self.names(split)
        if both:
            names = held_out(names, split)
        images = (path.relative_to(self.images) for path in visible_files(self.images, *IMAGE_SUFFIXES))
        known = {path.with_suffix("").as_posix(): path.as_posix() for path in images}
        objects = self.object_maps or self.class_maps
        return [
            (known.get(name, f"{name}.jpg"), self.class_maps / f"{name}.png", objects / f"{name}.png")
            for name in names
        ]

    def classes(self) -> ClassTable:
        """Of labelmap.txt, class_names.txt or classes.json; else Pascal VOC's own, with a warning where the images
        have other names than its.
        """
        table = read_class_file(self.root)
        if table is not None:
            return table
        if not all(RELEASED.fullmatch(name) for split in SPLIT_NAMES for name in self.names(split)[0]):
            warnings.warn(
                f"{self.root}: no class names (labelmap.txt, class_names.txt, classes.json), so that the labels are"
                " taken for Pascal VOC's: 1 is aeroplane, 15 person",
                stacklevel=2,
            )
        palette = pascal_voc.palette()
        numbers = {color: number for number, color in enumerate(palette)}
        return ClassTable(pascal_voc.CLASSES, palette, colors={**numbers, pascal_voc.VOID_COLOR: VOID})

    def objects(self, split: str) -> ObjectSource | None:
        """The objects of a split; None without object maps."""
        if self.object_maps is None:
            return None
        return ObjectSource("Pascal VOC folders", self.images, lambda: self._inspect(split))

    def _inspect(self, split: str) -> Inspection:
        """Each object of an object map as a mask, its class that of most of its pixels in the class map."""
        table = self.classes()
        found = ImageAnnotations()
        for name, class_path, object_path in self.files(split):
            with found.recording("unreadable annotation", object_path.name):
                labels = to_contiguous(read_labels(class_path, table.colors), table, class_path).numpy()
                objects = read_labels(object_path, _AnyColor()).numpy()
                if labels.shape != objects.shape:
                    raise ValueError(f"{object_path}: expected the size of {class_path}, got {objects.shape}")
                image = AnnotatedImage(name, (labels.shape[0], labels.shape[1]))
                found.images.append(image)
                for number in np.unique(objects[(objects != 0) & (objects != VOID)]).tolist():
                    with found.recording("object without a class", f"{object_path.name}, object {number}"):
                        rows, columns = np.nonzero(objects == number)
                        counts = np.bincount(labels[rows, columns], minlength=VOID + 1)[:VOID]
                        counts[0] = 0
                        label = int(counts.argmax())
                        if not counts[label] or label >= len(table.names):
                            raise ValueError("has no class pixel")
                        top, left = int(rows.min()), int(columns.min())
                        mask = objects[top : rows.max() + 1, left : columns.max() + 1] == number
                        shape = mask_shape(mask, (left, top), image.size)
                        assert shape is not None
                        image.objects.append((table.names[label], shape))
        return found.merged(str(self.root), table.names[1:])


def _with_files(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these folders that has label maps."""
    folders = (child(folder, name) for name in names)
    return next((path for path in folders if path is not None and has_files(path, ".png")), None)


def _shortest_first(path: Path) -> tuple[int, str]:
    """train.txt before aug_train.txt."""
    return len(path.name), path.name


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


class _AnyColor(dict[RGB, int]):
    """Every colour a number of its own: black is 0, VOC's seam 255, others as they come."""

    def __contains__(self, color: object) -> bool:
        return True

    def __missing__(self, color: RGB) -> int:
        taken = VOID + 1 + len(self)
        self[color] = 0 if color == (0, 0, 0) else VOID if color == pascal_voc.VOID_COLOR else taken
        return self[color]
