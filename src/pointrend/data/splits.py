"""Which files and folders are of the training part and which of the validation part, by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SPLIT_NAMES = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
}
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
HOLD_OUT = 10


def split_of(stem: str) -> str | None:
    """ "train", "val" or "test" by the words of a name, whatever their case: of `instances_Train2017` the first, but
    none of `trainval` or `carnival`, nor of a name with words of two splits.
    """
    words = (word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", stem))
    found = {WORDS[word] for word in words if word in WORDS}
    return found.pop() if len(found) == 1 else None


def child(folder: Path, name: str) -> Path | None:
    """The entry of this name, also with folders before it and in another case; None without."""
    direct = folder / name
    if direct.exists():
        return direct
    first, _, rest = name.partition("/")
    entries = os.listdir(folder) if folder.is_dir() else []
    named = sorted(entry for entry in entries if entry.lower() == first.lower())
    found = (child(folder / entry, rest) if rest else folder / entry for entry in named)
    return next((path for path in found if path is not None), None)


def first_child(folder: Path, names: Iterable[str], suffix: str = "") -> Path | None:
    """The first of these that is there: folders, or files with a suffix."""
    paths = (child(folder, f"{name}{suffix}") for name in names)
    return next((p for p in paths if p is not None and (p.is_file() if suffix else p.is_dir())), None)


def is_split_up(folder: Path) -> bool:
    """Whether it has a folder named as a split."""
    return any(first_child(folder, names) is not None for names in SPLIT_NAMES.values())


def held_out(items: Sequence[T], split: str) -> list[T]:
    """Of one set of images, those of a split: every tenth for validation; a single one for both."""
    if split == "val" or len(items) == 1:
        return list(items[::HOLD_OUT])
    return [item for number, item in enumerate(items) if number % HOLD_OUT]
