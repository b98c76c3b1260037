"""YOLO's segmentation files: a text file for each image, a line "class x1 y1 x2 y2 ..." for each object, in shares of
the image's width and height; names in data.yaml or classes.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pointrend.formats.coco_json import Fault, Inspection
from pointrend.formats.image_annotations import AnnotatedImage, together
from pointrend.masks.polygons import Polygons

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt", "obj.names")
SLACK = 0.01
"""Share of the image by which a point may lie outside."""


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
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[number] for number in range(len(names))]
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"{path}, names: expected a list of class names, or names by number from 0")
    return [str(name) for name in names]


def _yaml(path: Path, text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    if "&" in text and "*" in text:
        raise ValueError(f"{path}: anchors and aliases are not read")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({str(error).splitlines()[0]})") from error
    return content.get("names") if isinstance(content, dict) else None


def inspect_yolo(
    source: str,
    pairs: Iterable[tuple[str, Path, Path]],
    class_names: list[str],
    image_size: Callable[[Path], tuple[int, int]],
) -> Inspection:
    """The objects of images with their text files.

    Args:
        source: of the whole, for messages.
        pairs: name, image and text file of each; without the text file an image has no object.
        class_names: by number.
        image_size: (height, width) of an image file, upright.
    """
    images: list[AnnotatedImage] = []
    faults: list[Fault] = []
    for name, image_path, labels in pairs:
        try:
            size = image_size(image_path)
        except ValueError as error:
            faults.append(Fault("unreadable image", name, str(error)))
            continue
        image = AnnotatedImage(name, size)
        images.append(image)
        try:
            lines = labels.read_text(encoding="utf-8-sig").splitlines() if labels.is_file() else []
        except (OSError, UnicodeDecodeError) as error:
            faults.append(Fault("unreadable annotation", labels.name, str(error)))
            continue
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                image.objects.append(_object(line, class_names, size))
            except ValueError as error:
                kind = "missing mask" if "box" in str(error) else "malformed line"
                faults.append(Fault(kind, f"{labels.name}, line {number}", str(error)))
    return together(source, images, faults, class_names)


def _object(line: str, names: list[str], size: tuple[int, int]) -> tuple[str, Polygons]:
    try:
        numbers = np.array([float(part) for part in line.split()])
    except ValueError:
        raise ValueError(f"expected numbers, got {line[:60]!r}") from None
    if not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < len(names):
        raise ValueError(f"expected a class number of 0..{len(names) - 1}, got {line.split()[0][:20]}")
    points = numbers[1:]
    if len(points) == 4:
        raise ValueError("a box (x, y, width, height), no outline: this is a data set for detection")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"expected three or more x, y pairs, got {len(points)} numbers")
    if points.min() < -SLACK or points.max() > 1 + SLACK:
        raise ValueError(f"expected shares of the image, 0..1, got {points.min():g}..{points.max():g}")
    height, width = size
    return names[int(numbers[0])], Polygons((points.reshape(-1, 2) * (width, height),))
