"""What the numbers in label files mean: names, colours, ids and what is ignored; read from a file, or inferred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pointrend.data.label_io import label_colors, palette_to_name, read_labels
from pointrend.io import read_json
from pointrend.metadata import pascal_voc
from pointrend.metadata.colors import default_palette
from pointrend.structures import IGNORE_LABEL, RGB, numbered_names

MASKS = (
    "the label maps hold 0 and {0} alone, and {0} means ignored. Masks of objects? Say so in classes.json: "
    '{{"classes": ["background", "object"], "ids": [0, {0}], "ignore_label": null}}. One class? {{"classes": ["NAME"]}}'
)
MOST_CLASSES = 255  # labels are uint8 and 255 means ignored


@dataclass(frozen=True)
class ClassTable:
    """Names, colours and the number that means "no class" in the label files (it becomes 255 in memory)."""

    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    ignore_label: int | None = IGNORE_LABEL
    ids: tuple[int, ...] | None = None
    """The number of each class in the label files; 0..K-1 if not given. With ids, 255 is ignored too."""
    colors: Mapping[RGB, int] | None = None
    """The number of each colour, for label files in colour."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST_CLASSES:
            raise ValueError(f"names: expected 1 to {MOST_CLASSES} classes, got {len(self.names)}")
        if len(self.palette) != len(self.names):
            raise ValueError(f"palette: expected {len(self.names)} colours, got {len(self.palette)}")
        if self.ids is not None and not (len(self.ids) == len(set(self.ids)) == len(self.names)):
            raise ValueError(f"ids: expected {len(self.names)} different numbers, got {len(self.ids)}")

    @classmethod
    def in_colors(cls, names: Sequence[str], palette: Sequence[RGB]) -> ClassTable:
        """Of label files in these colours, in the order of the classes."""
        return cls(tuple(names), tuple(palette), colors={color: n for n, color in enumerate(palette)})


def to_contiguous(labels: Tensor, classes: ClassTable, path: object) -> Tensor:
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


def find_classes(folder: Path, pairs: Iterable[tuple[Path, Path]]) -> ClassTable:
    """The table in `classes.json` or `labelmap.txt` of this folder or the two above it, else inferred from all label
    maps.
    """
    tables = map(read_class_file, (folder, folder.parent, folder.parent.parent))
    found = next((table for table in tables if table is not None), None)
    return found or infer_classes(label_path for _, label_path in pairs)


def read_class_file(folder: Path) -> ClassTable | None:
    """The table in the folder's `classes.json`, in the `labelmap.txt` of CVAT's exports, the `class_names.txt` of
    labelme's or the `_classes.csv` of Roboflow's; None without any.
    """
    readers: dict[str, Callable[[Path], ClassTable]] = {
        "classes.json": read_classes,
        "labelmap.txt": read_labelmap,
        "class_names.txt": read_class_names,
        "_classes.csv": read_classes_csv,
    }
    for name, read in readers.items():
        if (folder / name).is_file():
            return read(folder / name)
    return None


def read_classes_csv(path: Path) -> ClassTable:
    """Roboflow's table: lines "number, name" behind a head line.

    Raises ValueError, naming file and line, if a line has another form, or a number is there twice.
    """
    numbers, names = [], []
    for place, line in enumerate(read_lines(path)[1:], start=2):
        number, comma, name = line.partition(",")
        if not line.strip():
            continue
        if not comma or not number.strip().isdecimal() or not name.strip():
            raise ValueError(f"{path}, line {place}: expected a number and a name, got {line[:60]!r}")
        numbers.append(int(number))
        names.append(name.strip())
    if not names or len(set(numbers)) != len(numbers):
        raise ValueError(f"{path}: expected a different number for each class, got {numbers[:20]}")
    ignore = None if IGNORE_LABEL in numbers else IGNORE_LABEL
    return ClassTable(tuple(names), default_palette(len(names)), ignore, ids=tuple(numbers))


def read_class_names(path: Path) -> ClassTable:
    """labelme's table: the name of class 0, 1, .. in each line; "__ignore__" before them is none.

    Raises ValueError, naming the file, if there are no names.
    """
    names = [line.strip() for line in read_lines(path)]
    names = [name for name in names if name not in ("", "__ignore__")]
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"{path}: expected a class name in each line, got {len(names)} names")
    return ClassTable.in_colors(names, pascal_voc.palette(len(names)))


def read_labelmap(path: Path) -> ClassTable:
    """CVAT's and Datumaro's table: lines "name:red,green,blue:parts:actions", comments behind "#".

    Raises ValueError, naming file and line, if a line has another form.
    """
    names, palette = [], []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            palette.append(_color([int(part) for part in rest.split(":")[0].split(",")], path))
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected name:red,green,blue::, got {line[:60]!r}"
            ) from None
        names.append(name.strip())
    if not 1 <= len(names) <= MOST_CLASSES or len(set(palette)) != len(palette):
        raise ValueError(
            f"{path}: expected 1 to {MOST_CLASSES} classes of different colours, got {len(names)}"
        )
    return ClassTable.in_colors(names, palette)


def read_lines(path: Path | BinaryIO) -> list[str]:
    """The lines of a text file, of a path or opened, in UTF-8, with a byte order mark or without.

    Raises ValueError, naming the file, if it cannot be read.
    """
    try:
        content = path.read_bytes() if isinstance(path, Path) else path.read()
        return content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable text file ({error})") from error


def read_classes(path: Path | BinaryIO) -> ClassTable:
    """The table of a file such as {"classes": [names], "ignore_label": 11, "palette": [[r, g, b], ...]}.

    The last two may be left out (255, generated colours). A palette may have more colours than classes. "ids" lists
    the classes' numbers in the label files, if they are not 0..K-1; "reduce_zero_label": true is short for 1..K
    with 0 ignored.

    Raises ValueError, naming file and field, if something has another form.
    """
    table = read_json(path)
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
    given = table.get("palette")
    if given is not None and not isinstance(given, list):
        raise ValueError(f"{path}, palette: expected a list of colours, got {str(given)[:60]}")
    palette = [_color(value, path) for value in given or default_palette(len(names))]
    if len(palette) < len(names):
        raise ValueError(f"{path}, palette: expected {len(names)} colours, got {len(palette)}")
    # What the palette has beyond the classes is ignored; without ids it is the number of its place.
    numbers = [*(ids or ()), *range(len(ids or ()), len(palette))]
    if ids is not None:
        numbers[len(ids) :] = [IGNORE_LABEL if ignore is None else ignore] * (len(palette) - len(ids))
    colors = dict(zip(palette, numbers, strict=True)) if given and len(set(palette)) == len(palette) else None
    return ClassTable(tuple(names), tuple(palette[: len(names)]), ignore, ids, colors)


def _ids(table: dict[str, Any], path: object) -> tuple[int, ...] | None:
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


def _color(value: object, path: object) -> RGB:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        red, green, blue = value
        if all(isinstance(v, int) and 0 <= v <= 255 for v in value):
            return red, green, blue
    raise ValueError(f"{path}, palette: expected [red, green, blue] of 0..255, got {value!r}")


def infer_classes(label_paths: Iterable[Path], *, allow_missing: bool = False) -> ClassTable:
    """As many classes as the largest label needs; every file is read. Names are "class 0", "class 1", ...

    Raises ValueError if no label is found, if there are none but 0 and 255 (a mask of an object, or one class with
    ignored pixels?) or, unless `allow_missing` has them passed over, a file is unreadable or its labels do not fit
    into 0..254.
    """
    found: set[int] = set()
    colors: set[RGB] = set()
    in_colour: Path | None = None
    for path in label_paths:
        try:
            here = label_colors(path)
            colors |= here
            in_colour = path if here and in_colour is None else in_colour
            if not colors:  # else no file is read for more than its colours
                found |= _labels_of(path)
        except ValueError:
            if not allow_missing:
                raise
    if colors and not allow_missing:
        raise ValueError(
            f"{in_colour}: expected a label map with one number per pixel, got an image of mode RGB. Convert its "
            "colours to class numbers (`pointrend data check DIR --fix OUT`), or name the classes of all "
            f"{len(colors)} colours of the label maps in classes.json, in this order: {palette_to_name(colors)}"
        )
    labels = found - {IGNORE_LABEL}
    if not labels and not allow_missing:
        raise ValueError("expected at least one labelled pixel to infer the classes from, got none")
    if found == {0, IGNORE_LABEL} and not allow_missing:
        raise ValueError(MASKS.format(IGNORE_LABEL))
    names = numbered_names(max(labels, default=0) + 1)
    return ClassTable(names, default_palette(len(names)))


def refuse_masks(table: ClassTable, label_paths: Iterable[Path]) -> None:
    """Raise a ValueError where a table of several classes 0..K-1 meets label maps of 0 and 255 alone: masks, in which
    every pixel of an object would be ignored. Of other maps the first is read.
    """
    if table.ids is not None or table.ignore_label != IGNORE_LABEL or len(table.names) == 1:
        return
    found: set[int] = set()
    for path in label_paths:
        with suppress(ValueError):  # said when it is read
            found |= {int(label) for label in torch.unique(read_labels(path, table.colors))}
        if found - {0, IGNORE_LABEL}:
            return
    if found == {0, IGNORE_LABEL}:
        raise ValueError(MASKS.format(IGNORE_LABEL))


def _labels_of(path: Path) -> set[int]:
    """The numbers in a file; the first look at most of these files."""
    found = {int(label) for label in torch.unique(read_labels(path))}
    labels = sorted(found - {IGNORE_LABEL})
    if labels and not 0 <= labels[0] <= labels[-1] < MOST_CLASSES:
        ids = f' with "ids": {labels}' if len(labels) <= 30 else ""
        raise ValueError(
            f"{path}: expected labels 0..{MOST_CLASSES - 1} or {IGNORE_LABEL} (ignored), got "
            f"{labels[0]}..{labels[-1]}; name the classes in classes.json{ids}"
        )
    return found
