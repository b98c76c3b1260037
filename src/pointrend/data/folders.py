"""Pictures with label maps: two folders matched by name, or a list of pairs."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pointrend.data.loading import IMAGE_SUFFIXES, read_image, read_labels
from pointrend.structures import IGNORE_LABEL, Sample, SemanticTarget

MOST_CLASSES = 255  # labels are uint8 and 255 means ignored

RGB = tuple[int, int, int]
Pair = tuple[Path, Path]


@dataclass(frozen=True)
class ClassTable:
    """Names, colours and the number that means "no class" in the label files (it becomes 255 in memory)."""

    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    ignore_label: int | None = IGNORE_LABEL
    ids: tuple[int, ...] | None = None
    """The number of each class in the label files; 0..K-1 if not given. With ids, 255 is ignored too."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST_CLASSES:
            raise ValueError(f"names: expected 1 to {MOST_CLASSES} classes, got {len(self.names)}")
        if len(self.palette) != len(self.names):
            raise ValueError(f"palette: expected {len(self.names)} colours, got {len(self.palette)}")
        if self.ids is not None and not (len(self.ids) == len(set(self.ids)) == len(self.names)):
            raise ValueError(f"ids: expected {len(self.names)} different numbers, got {len(self.ids)}")


class SemanticFolder(Dataset[Sample]):
    """Pictures and label maps as `Sample`s with a `SemanticTarget`: labels 0..K-1, 255 ignored.

    Build it by `from_folders` or `from_list`, or from pairs of paths (picture, label map). Reading raises
    ValueError, naming the files, if a picture is unreadable, if its label map has another size, or if a label
    is neither a class nor the ignore label.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: ClassTable,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        if not pairs:
            raise ValueError("expected at least one pair of picture and label map, got none")
        self.pairs = list(pairs)
        self.classes = classes
        self.transforms = transforms

    @classmethod
    def from_folders(
        cls,
        images: str | Path,
        labels: str | Path,
        classes: ClassTable | None = None,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> SemanticFolder:
        """`images/a/b.jpg` belongs to `labels/a/b.png`. Without `classes`, see `find_classes`."""
        pairs = match_folders(Path(images), Path(labels))
        return cls(pairs, classes or find_classes(Path(labels), pairs), transforms=transforms)

    @classmethod
    def from_list(
        cls,
        file: str | Path,
        classes: ClassTable | None = None,
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> SemanticFolder:
        """A text file with "picture labels" in each line, relative to its folder; see `find_classes`."""
        pairs = read_pairs(Path(file))
        return cls(pairs, classes or find_classes(Path(file).parent, pairs), transforms=transforms)

    @property
    def task(self) -> str:
        """The kind of target."""
        return "semantic"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0..K-1."""
        return self.classes.names

    @property
    def palette(self) -> tuple[RGB, ...]:
        """A colour (0..255) for each class."""
        return self.classes.palette

    @property
    def image_ids(self) -> list[str]:
        """Names of the picture files, without suffix."""
        return [image.stem for image, _ in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        labels = to_contiguous(read_labels(label_path), self.classes, label_path)
        if image.shape[-2:] != labels.shape:
            raise ValueError(
                f"{label_path}: expected the size of {image_path}, {image.shape[-2]}x{image.shape[-1]} "
                f"(height x width, after EXIF rotation), got {labels.shape[0]}x{labels.shape[1]}"
            )
        sample = Sample(image, SemanticTarget(labels), image_id=image_path.stem, path=str(image_path))
        return sample if self.transforms is None else self.transforms(sample)


def to_contiguous(labels: Tensor, classes: ClassTable, path: Path) -> Tensor:
    """File numbers (H, W) as uint8 0..K-1, and 255 for what is ignored.

    Raises ValueError, naming file and value, for any other number.
    """
    ignored = torch.zeros_like(labels, dtype=torch.bool)
    if classes.ignore_label is not None:
        ignored = labels == classes.ignore_label
    if classes.ids is not None:
        ignored |= (labels == IGNORE_LABEL) & (IGNORE_LABEL not in classes.ids)
    own, known = _class_of(labels, classes)
    bad = ~ignored & ~known
    if bad.any():
        row, column = (int(v) for v in bad.nonzero()[0])
        numbers = f"0..{len(classes.names) - 1}" if classes.ids is None else f"the {len(classes.ids)} ids"
        raise ValueError(
            f"{path}: expected labels {numbers} or {classes.ignore_label} (ignored), got "
            f"{int(labels[row, column])} at row {row}, column {column}; name the class or the ignore label "
            "in classes.json"
        )
    return own.masked_fill(ignored, IGNORE_LABEL).to(torch.uint8)


def _class_of(labels: Tensor, classes: ClassTable) -> tuple[Tensor, Tensor]:
    """The class 0..K-1 of each file number, and whether it is one."""
    if classes.ids is None:
        return labels, (labels >= 0) & (labels < len(classes.names))
    ids, order = torch.tensor(classes.ids, dtype=labels.dtype).sort()
    place = torch.searchsorted(ids, labels.contiguous()).clamp(max=len(ids) - 1)
    return order[place], ids[place] == labels


def match_folders(images: Path, labels: Path, *, gaps: bool = False) -> list[Pair]:
    """Pairs with equal names but for the suffix, in the order of their names, subfolders included.

    With `gaps`, a picture without a label map, and a map without a picture, is paired with a file that is not there.

    Raises ValueError if a folder is missing, if nothing matches, or if a picture has two label maps or, without
    `gaps`, none.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
    pictures, maps = _by_stem(images), _by_stem(labels)
    if not pictures:
        raise ValueError(f"{images}: expected pictures ({', '.join(sorted(IMAGE_SUFFIXES))}), found none")
    if gaps:
        return [
            (pictures.get(stem, images / f"{stem}.jpg"), maps.get(stem, labels / f"{stem}.png"))
            for stem in sorted(pictures.keys() | maps.keys())
        ]
    missing = [str(pictures[stem]) for stem in pictures if stem not in maps]
    if missing:
        raise ValueError(
            f"{labels}: expected a label map of the same name for each picture of {images}; {len(missing)} "
            f"of {len(pictures)} have none, such as {', '.join(missing[:3])}"
        )
    return [(pictures[stem], maps[stem]) for stem in sorted(pictures)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{path}: expected one file of this name, but there is {found[stem].name} too")
        found[stem] = path
    return found


def read_pairs(file: Path) -> list[Pair]:
    """Pairs of a text file, one per line, separated by white space (or by one tab, if names contain spaces).

    Raises ValueError, naming the line, if it does not hold two names.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a readable text file ({error})") from error
    pairs: list[Pair] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        names = line.strip().split("\t") if "\t" in line else line.split()
        if len(names) != 2:
            raise ValueError(
                f"{file}, line {number}: expected a picture and a label map, got {len(names)} names; put a "
                "tab between names that contain spaces"
            )
        pairs.append((file.parent / names[0].strip(), file.parent / names[1].strip()))
    if not pairs:
        raise ValueError(f"{file}: expected at least one line with a picture and a label map, got none")
    return pairs


def find_classes(folder: Path, pairs: Iterable[Pair]) -> ClassTable:
    """The table in `classes.json` of this folder or the two above it, else inferred from all label maps."""
    for candidate in (folder, folder.parent, folder.parent.parent):
        if (candidate / "classes.json").is_file():
            return read_classes(candidate / "classes.json")
    return infer_classes(label_path for _, label_path in pairs)


def read_classes(path: Path) -> ClassTable:
    """The table of a file such as {"classes": [names], "ignore_label": 11, "palette": [[r, g, b], ...]}.

    The last two may be left out (255, generated colours). A palette may have more colours than classes. "ids" lists
    the classes' numbers in the label files, if they are not 0..K-1; "reduce_zero_label": true is short for 1..K
    with 0 ignored.

    Raises ValueError, naming file and field, if something has another form.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(table, dict) or not isinstance(table.get("classes"), list):
        raise ValueError(f'{path}: expected an object with a list "classes"')
    names = table["classes"]
    if not all(isinstance(name, str) for name in names) or not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"{path}, classes: expected 1 to {MOST_CLASSES} names, got {str(names)[:80]}")
    ids = _ids(table, path)
    ignore = table.get("ignore_label", IGNORE_LABEL if not table.get("reduce_zero_label") else 0)
    taken = range(len(names)) if ids is None else ids
    if ignore is not None and (type(ignore) is not int or ignore in taken):
        raise ValueError(f"{path}, ignore_label: expected a number that is no class, got {ignore!r}")
    palette = [_color(value, path) for value in table.get("palette") or generate_palette(len(names))]
    if len(palette) < len(names):
        raise ValueError(f"{path}, palette: expected {len(names)} colours, got {len(palette)}")
    return ClassTable(tuple(names), tuple(palette[: len(names)]), ignore, ids)


def _ids(table: dict[str, Any], path: Path) -> tuple[int, ...] | None:
    count = len(table["classes"])
    if table.get("reduce_zero_label"):
        if table["reduce_zero_label"] is not True or "ids" in table:
            raise ValueError(f"{path}, reduce_zero_label: expected true, and no ids besides")
        return tuple(range(1, count + 1))
    ids = table.get("ids")
    if ids is None:
        return None
    fits = isinstance(ids, list) and all(type(one) is int and 0 <= one < 2**16 for one in ids)
    if not fits or not len(ids) == len(set(ids)) == count:
        raise ValueError(f"{path}, ids: expected {count} different numbers of 0..65535, got {str(ids)[:80]}")
    return tuple(ids)


def _color(value: object, path: Path) -> RGB:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        red, green, blue = value
        if all(isinstance(v, int) and 0 <= v <= 255 for v in value):
            return red, green, blue
    raise ValueError(f"{path}, palette: expected [red, green, blue] of 0..255, got {value!r}")


def infer_classes(
    label_paths: Iterable[Path], ignore_label: int = IGNORE_LABEL, *, gaps: bool = False
) -> ClassTable:
    """As many classes as the largest label needs; every file is read. Names are "class 0", "class 1", ...

    Raises ValueError if no label is found or, unless `gaps` has them passed over, a file is unreadable or its labels
    do not fit into 0..254.
    """
    largest = -1
    for path in label_paths:
        try:
            largest = max(largest, _largest_label(path, ignore_label))
        except ValueError:
            if not gaps:
                raise
    if largest < 0:
        raise ValueError("expected at least one labelled pixel to infer the classes from, got none")
    names = tuple(f"class {index}" for index in range(largest + 1))
    return ClassTable(names, generate_palette(len(names)), ignore_label)


def _largest_label(path: Path, ignore_label: int) -> int:
    """The largest label of a file, -1 if all are ignored."""
    labels = read_labels(path)
    labels = labels[labels != ignore_label]
    if not labels.numel():
        return -1
    least, most = int(labels.min()), int(labels.max())
    if not 0 <= least <= most < MOST_CLASSES:
        raise ValueError(
            f"{path}: expected labels 0..{MOST_CLASSES - 1} or {ignore_label} (ignored), got {least}..{most}"
        )
    return most


def generate_palette(count: int) -> tuple[RGB, ...]:
    """Distinct colours: the golden angle around the colour circle, in changing lightness."""
    colors = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(
            index * 0.618034 % 1, (0.85, 0.55, 0.7)[index % 3], (0.95, 0.8, 0.6)[index // 3 % 3]
        )
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colors)
