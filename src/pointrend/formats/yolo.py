"""YOLO's segmentation files: a text file for each image, a line "class x1 y1 x2 y2 ..." for each object, in shares of
the image's width and height; names in data.yaml or classes.txt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pointrend.formats.image_annotations import AnnotatedImage, ImageAnnotations, ImageSize
from pointrend.formats.records import Fault, Inspection, brief
from pointrend.masks.polygons import Polygons

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt", "obj.names")
NO_LABELS = ("classes.txt", "notes.txt", "train.txt", "val.txt", "test.txt")
SLACK = 0.01
"""Share of the image by which a point may lie outside."""


def find_names(root: Path) -> Path | None:
    """The file with the class names: of a usual name, or the one YAML file of the folder."""
    usual = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    others = [path for suffix in ("yaml", "yml") for path in root.glob(f"[!.]*.{suffix}")]
    return others[0] if usual is None and len(others) == 1 else usual


def read_names(path: Path) -> list[str]:
    """The class names of a data.yaml (a list, or numbers to names) or of a text file with one a line.

    Raises:
        ValueError: naming the file, if it has no names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable text file ({error})") from error
    if path.suffix in (".yaml", ".yml"):
        names = _yaml(path, text)
        numbers = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
        if isinstance(names, dict) and names.keys() == set(numbers):
            names = [names[number] for number in numbers]
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"{path}, names: expected a list of class names, or names by number from 0, got {brief(names)}"
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{path}, names: expected every name once, got {twice[0]!r} twice")
    return names


def _yaml(path: Path, text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # texts and lists alone: `no` is a name
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({str(error).splitlines()[0]})") from error
    return content.get("names") if isinstance(content, dict) else None


def inspect_yolo(
    source: str,
    pairs: Iterable[tuple[str, Path, Path]],
    class_names: list[str],
    image_size: ImageSize,
    without_image: Iterable[Path] = (),
) -> Inspection:
    """The objects of images with their text files.

    Args:
        source: of the whole, for messages.
        pairs: name, image and text file of each; without the text file an image has no object.
        class_names: by number.
        image_size: of an image file.
        without_image: text files beside which there is no image.
    """
    found = ImageAnnotations()
    for name, image_path, labels in pairs:
        with found.recording("unreadable image", name):
            image = AnnotatedImage(name, image_size(image_path))
            found.images.append(image)
            with found.recording("unreadable annotation", labels.name):
                for number, line in enumerate(_lines(labels), start=1):
                    try:
                        if line.strip():
                            image.objects.append(_object(line, class_names, image.size))
                    except ValueError as error:
                        kind = "missing mask" if "box" in str(error) else "malformed line"
                        found.faults.append(Fault(kind, f"{labels.name}, line {number}", str(error)))
    for path in without_image:
        if path.name not in NO_LABELS:
            found.faults.append(Fault("labels without an image", path.name, "left out", repairable=True))
    return found.merged(source, class_names)


def _lines(labels: Path) -> list[str]:
    try:
        return labels.read_text(encoding="utf-8-sig").splitlines() if labels.is_file() else []
    except OSError as error:  # bad text is a ValueError
        raise ValueError(str(error)) from error


def _object(line: str, names: list[str], size: tuple[int, int]) -> tuple[str, Polygons]:
    try:
        numbers = np.array([float(part) for part in line.split()])
    except ValueError:
        raise ValueError(f"expected numbers, got {line[:60]!r}") from None
    if not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < len(names):
        raise ValueError(f"expected a class number of 0..{len(names) - 1}, got {line.split()[0][:20]}")
    points = numbers[1:]
    if len(points) == 4:
        raise ValueError(
            "a box (x, y, width, height), no outline: this is a data set for detection; where it has outlines too, "
            "leave the lines of boxes out"
        )
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"expected three or more x, y pairs, got {len(points)} numbers")
    if points.min() < -SLACK or points.max() > 1 + SLACK:
        raise ValueError(f"expected shares of the image, 0..1, got {points.min():g}..{points.max():g}")
    height, width = size
    return names[int(numbers[0])], Polygons((points.reshape(-1, 2) * (width, height),))
