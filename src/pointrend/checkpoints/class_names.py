"""Class names that a checkpoint does not say: taken from what the caller gives, never guessed from their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pointrend.io import read_json
from pointrend.models.base import Pretrained


def read_names(values: Sequence[str]) -> tuple[str, ...]:
    """Names as they are; or those of one file: a COCO JSON (by ascending id, as Detectron2 numbers them), or text.

    Raises:
        ValueError: a file without names, a name that is empty or there twice.
    """
    names = tuple(values)
    if len(values) == 1 and Path(values[0]).suffix.lower() in (".json", ".txt"):
        path = Path(values[0])
        if not path.is_file():
            raise ValueError(f"{path}: no such file of class names")
        if path.suffix.lower() == ".json":
            names = _coco_names(path)
        else:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"classes: expected names, each once, got {', '.join(map(repr, names)) or 'none'}")
    return names


def _coco_names(path: Path) -> tuple[str, ...]:
    content = read_json(path)
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and type(one.get("id")) is int
        for one in categories
    ):
        raise ValueError(
            f'{path}: expected a COCO JSON with "categories", each with a number "id" and a "name"'
        )
    return tuple(one["name"] for one in sorted(categories, key=lambda one: one["id"]))


def name_classes(model: Pretrained, names: Sequence[str]) -> None:
    """Give the classes of a model these names, in the order of its outputs.

    Raises:
        ValueError: for another number of names.
    """
    known = model.config.class_names
    if len(names) != len(known):
        unknown = [name for name in names if name not in known]
        raise ValueError(
            f"classes: the model has {len(known)} classes ({', '.join(known[:5])}{', ..' if len(known) > 5 else ''}), "
            f"got {len(names)} names{f', of which it has no {unknown[0]!r}' if unknown else ''}"
        )
    model.config = replace(model.config, class_names=tuple(names))
