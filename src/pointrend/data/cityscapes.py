"""Cityscapes in its official folders, for both tasks (Cordts et al., CVPR 2016).

    ROOT/leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png
    ROOT/gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_{labelIds,instanceIds}.png

Labels in memory are the 19 (semantic) or 8 (instance) evaluated classes, 0..K-1 in the order of their file
ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointrend.data.image_io import read_image
from pointrend.data.label_io import read_labels
from pointrend.data.transforms import finished
from pointrend.metadata.cityscapes import GROUP, INSTANCE_LABELS, LAST_ID, TRAIN_LABELS
from pointrend.structures import (
    IGNORE_LABEL,
    RGB,
    Dataset,
    InstanceMasks,
    InstanceTarget,
    Sample,
    SemanticTarget,
    Task,
)

FIRST_THING = INSTANCE_LABELS[0].id  # persons and vehicles are told apart one by one


class Cityscapes(Dataset):
    """One split ("train" or "val") of the folder, as samples of one task.

    Groups of things are crowds. Raises ValueError if the folders are not there or, without `allow_missing`, an image
    has no labels, and on reading a sample if a file is missing or unreadable, holds an unknown id, or the sizes differ.
    """

    task: Task = "semantic"
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    palette: tuple[RGB, ...] = ()

    def __init__(
        self,
        root: str | Path,
        split: str,
        task: Task = "semantic",
        *,
        transforms: Callable[[Sample], Sample] | None = None,
        allow_missing: bool = False,
    ) -> None:
        if task not in ("semantic", "instance"):
            raise ValueError(f'task: expected "semantic" or "instance", got {task!r}')
        self.task, self.transforms = task, transforms
        kind = "labelIds" if task == "semantic" else "instanceIds"
        self.pairs = find_pairs(Path(root), split, kind, allow_missing=allow_missing)
        classes = TRAIN_LABELS if task == "semantic" else INSTANCE_LABELS
        self.class_names = tuple(label.name for label in classes)
        self.category_ids = tuple(label.id for label in classes)
        self.palette = tuple(label.color for label in classes)

    @property
    def image_ids(self) -> list[str]:
        """CITY_SEQUENCE_FRAME of each image."""
        return [image.name.removesuffix("_leftImg8bit.png") for image, _ in self.pairs]

    @property
    def file_names(self) -> list[str]:
        """Paths of the image files."""
        return [str(image) for image, _ in self.pairs]

    def instance_ids(self, index: int) -> Tensor:
        """(H, W) int32 ids of an image's instance file, 0 for licence plates; for the instance task."""
        if self.task != "instance":
            raise ValueError("instance_ids: expected data opened for the instance task")
        ids = read_labels(self.pairs[index][1])
        return ids.masked_fill((ids == 255) | (ids == 65535), 0)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.pairs[index]
        image, ids = read_image(image_path), read_labels(label_path)
        if image.shape[-2:] != ids.shape:
            raise ValueError(
                f"{label_path}: expected the size of its image, {tuple(image.shape[-2:])}, got {tuple(ids.shape)}"
            )
        try:
            target = semantic_target(ids) if self.task == "semantic" else instance_target(ids)
        except ValueError as error:
            raise ValueError(f"{label_path}: {error}") from None
        name = image_path.name.removesuffix("_leftImg8bit.png")
        sample = Sample(image, target, image_id=name, path=str(image_path))
        return sample if self.transforms is None else finished(self.transforms(sample))


def find_pairs(root: Path, split: str, kind: str, *, allow_missing: bool = False) -> list[tuple[Path, Path]]:
    """Images of a split with their label files of a kind, by name.

    Raises ValueError if there are none, or a label file is missing and that is not allowed for by `allow_missing`.
    """
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if not images:
        raise ValueError(f"{root}: expected images in leftImg8bit/{split}/CITY/*_leftImg8bit.png, found none")
    pairs = []
    for image in images:
        name = image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
        pairs.append((image, root / "gtFine" / split / image.parent.name / name))
    missing = [str(labels) for _, labels in pairs if not labels.is_file()]
    if missing and not allow_missing:
        raise ValueError(
            f"{root}: {len(missing)} of {len(pairs)} label files are missing, such as {missing[0]}"
        )
    return pairs


def semantic_target(ids: Tensor) -> SemanticTarget:
    """(H, W) file ids as labels 0..18; ids that are not evaluated become 255.

    Raises ValueError for an id the benchmark does not have.
    """
    # The licence plate's -1 is stored as 255 or 65535 in some releases; it is not evaluated.
    if ids.numel() and not ((ids <= LAST_ID) | (ids == 255) | (ids == 65535)).all():
        raise ValueError(f"expected ids 0..{LAST_ID}, got up to {int(ids.max())}")
    table = torch.full((LAST_ID + 2,), IGNORE_LABEL, dtype=torch.uint8)
    for label in TRAIN_LABELS:
        table[label.id] = label.train_id
    return SemanticTarget(table[ids.clamp(0, LAST_ID + 1).long()])


def instance_target(ids: Tensor) -> InstanceTarget:
    """(H, W) instance ids as objects with tight boxes, labels 0..7; things that are not evaluated are left
    out.

    Raises ValueError for an id the benchmark does not have.
    """
    values = ids.numpy()
    known = (values <= LAST_ID) | ((values >= FIRST_THING * GROUP) & (values < (LAST_ID + 1) * GROUP))
    if not (known | (values == 255) | (values == 65535)).all():
        raise ValueError(f"expected class ids, or 1000 * class + number, got {values[~known].max()}")
    label_of = {label.id: number for number, label in enumerate(INSTANCE_LABELS)}
    windows, boxes, labels, crowd = [], [], [], []
    for number, rows, columns in _regions(values):
        kind = number // GROUP if number >= GROUP else number
        if kind not in label_of:
            continue
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        bits = np.zeros((bottom - top, right - left), dtype=np.uint8)
        bits[rows - top, columns - left] = 1
        windows.append(torch.from_numpy(bits))
        boxes.append((left, top, right, bottom))
        labels.append(label_of[kind])
        crowd.append(number < GROUP)
    corners = torch.tensor(np.array(boxes, dtype=np.int64).reshape(-1, 4))
    return InstanceTarget(
        boxes=corners.float(),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=InstanceMasks(windows, corners[:, :2], (values.shape[0], values.shape[1])),
        crowd=torch.tensor(crowd, dtype=torch.bool),
    )


def _regions(
    values: NDArray[np.int32],
) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """(id, rows, columns) of the pixels of each id from the first thing on, in the order of the ids."""
    rows, columns = np.nonzero(values >= FIRST_THING)  # once over the image, however many objects
    numbers = values[rows, columns]
    order = np.argsort(numbers, kind="stable")
    rows, columns, numbers = rows[order], columns[order], numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return [
        (int(numbers[part[0]]), rows[part], columns[part])
        for part in np.split(np.arange(len(numbers)), starts[1:])
        if len(part)
    ]
