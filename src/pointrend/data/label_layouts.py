"""Where the label maps of a folder's images are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.exports import SPLIT_NAMES, held_out
from pointrend.data.label_folders import Pair, match_folders, match_masks, read_pairs

IMAGES = ("images", "imgs", "img", "image", "img_dir")
LABELS = ("stuffthingmaps", "labels", "masks", "annotations", "ann_dir", "label", "mask")
BESIDE = ("_masks", "_labels", "_mask", "_label", "_annotations", "annot")
"""Behind the name of a split's folder, as in train/ and train_masks/."""

Folders = tuple[Path, Path]
Finder = Callable[[Path, str], Folders | None]


def find_semantic_pairs(root: Path, *, allow_missing: bool = False) -> dict[str, list[Pair]]:
    """Images with label maps of both splits, empty lists where there are none."""
    lists = {split: _first(root, SPLIT_NAMES[split], ".txt") for split in SPLIT_NAMES}
    if any(lists.values()):
        return {split: read_pairs(file) if file else [] for split, file in lists.items()}
    for find in (_kind_then_split, _split_then_kind, _beside_split):
        parts = {split: find(root, split) for split in SPLIT_NAMES}
        if any(parts.values()):
            return {
                split: match_folders(*both, allow_missing=allow_missing) if both else []
                for split, both in parts.items()
            }
    if (both := _of_kinds(root)) is not None:
        pairs = match_folders(*both, allow_missing=allow_missing)
        return {split: held_out(pairs, split) for split in SPLIT_NAMES}
    return _masks_beside_images(root, allow_missing)


def _kind_then_split(root: Path, split: str) -> Folders | None:
    """images/train and labels/train; of COCO-Stuff train2017 and stuffthingmaps/train2017."""
    both = _of_kinds(root)
    if both is None:
        return None
    images, labels = both
    # COCO-Stuff's images are COCO's, and often only one split of the maps was fetched.
    part = _first(labels if images == root else images, SPLIT_NAMES[split])
    return None if part is None else (images / part.name, labels / part.name)


def _split_then_kind(root: Path, split: str) -> Folders | None:
    part = _first(root, SPLIT_NAMES[split])
    return None if part is None else _of_kinds(part)


def _beside_split(root: Path, split: str) -> Folders | None:
    part = _first(root, SPLIT_NAMES[split])
    labels = None if part is None else _first(root, [part.name + more for more in BESIDE])
    return None if part is None or labels is None else (part, labels)


def _of_kinds(root: Path) -> Folders | None:
    labels = next((root / name for name in LABELS if _has_images(root / name)), None)
    images = _first(root, IMAGES)
    if images is None and labels is not None and labels.name == "stuffthingmaps":
        images = root
    return None if images is None or labels is None else (images, labels)


def _masks_beside_images(root: Path, allow_missing: bool) -> dict[str, list[Pair]]:
    """Roboflow's semantic masks: in a folder for each split, or in one."""
    parts: Mapping[str, Path | None] = {split: _first(root, SPLIT_NAMES[split]) for split in SPLIT_NAMES}
    if any(parts.values()):
        return {
            split: match_masks(folder, allow_missing=allow_missing) if folder else []
            for split, folder in parts.items()
        }
    pairs = match_masks(root, allow_missing=allow_missing)
    return {split: held_out(pairs, split) for split in SPLIT_NAMES}


def _first(root: Path, names: tuple[str, ...] | list[str], suffix: str = "") -> Path | None:
    """The first of these that is there: folders, or files with a suffix."""
    paths = (root / f"{name}{suffix}" for name in names)
    return next((path for path in paths if (path.is_file() if suffix else path.is_dir())), None)


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
