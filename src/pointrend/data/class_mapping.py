"""Two data sets, or a model and a data set, with the same classes in another order: labels are matched by name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pointrend.structures import (
    IGNORE_LABEL,
    RGB,
    Dataset,
    InstanceTarget,
    Sample,
    SemanticTarget,
    Target,
    Task,
)


def match_classes(data: Dataset, names: Sequence[str], *, of: str) -> Dataset:
    """The data set with its labels in the order of `names`; itself where they are so already.

    Classes that the data set lacks are no error: it has no objects of them.

    Args:
        data: the data set to be renumbered, such as the validation part.
        names: of the classes 0..K-1, each once.
        of: whose names they are, for messages: "the training part", "the model".

    Raises:
        ValueError: the data set has a class that is not among the names, or a name is there twice.
    """
    if tuple(data.class_names) == tuple(names):
        return data
    for whose, own in ((of, names), ("the data set", data.class_names)):
        twice = sorted({name for name in own if list(own).count(name) > 1})
        if twice:
            raise ValueError(f"classes: {whose} has {twice[0]!r} twice, so classes cannot be matched by name")
    unknown = [name for name in data.class_names if name not in names]
    if unknown:
        raise ValueError(
            f"classes: the data set has {', '.join(map(repr, unknown[:8]))}, which {of} lacks: its classes are "
            f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}; leave them out by --categories"
        )
    return RenumberedClasses(data, names)


class RenumberedClasses(Dataset):
    """A data set whose labels are those of other names; see `match_classes`."""

    class_names: tuple[str, ...] = ()
    file_names: Sequence[str] = ()
    image_sizes: Sequence[tuple[int, int]] = ()

    def __init__(self, data: Dataset, names: Sequence[str]) -> None:
        self.data, self.class_names = data, tuple(names)
        self.file_names, self.image_sizes = data.file_names, data.image_sizes
        numbers = [self.class_names.index(name) for name in data.class_names]
        self._table = torch.tensor(numbers, dtype=torch.int64)

    @property
    def task(self) -> Task:
        """The data set's."""
        return self.data.task

    @property
    def palette(self) -> tuple[RGB, ...]:
        """The data set's colours; grey for classes that it lacks."""
        own = dict(zip(self.data.class_names, self.data.palette, strict=False))
        return tuple(own.get(name, (128, 128, 128)) for name in self.class_names) if own else ()

    @property
    def category_ids(self) -> list[int]:
        """The data set's ids; of classes that it lacks, ids that it has not."""
        own = dict(zip(self.data.class_names, self.data.category_ids, strict=True))
        free = itertools.count(max(own.values(), default=0) + 1)
        return [own[name] if name in own else next(free) for name in self.class_names]

    @property
    def image_ids(self) -> Sequence[int | str]:
        """The data set's."""
        return self.data.image_ids

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[index]
        return replace(sample, target=self._renumbered(sample.target))

    def as_coco(self) -> dict[str, list[dict[str, object]]] | None:
        """The data set's, with the categories that it lacks besides."""
        content = self.data.as_coco()
        if content is None:
            return None
        known = {category["id"] for category in content["categories"]}
        more = [
            {"id": own, "name": name}
            for own, name in zip(self.category_ids, self.class_names, strict=True)
            if own not in known
        ]
        return {**content, "categories": [*content["categories"], *more]}

    def instance_ids(self, index: int) -> Tensor:
        """The data set's."""
        return self.data.instance_ids(index)

    def _renumbered(self, target: Target) -> Target:
        if isinstance(target, InstanceTarget):
            return replace(target, labels=self._table[target.labels])
        if isinstance(target, SemanticTarget):
            table = torch.full((256,), IGNORE_LABEL, dtype=torch.uint8)
            table[: len(self._table)] = self._table.to(torch.uint8)
            return SemanticTarget(table[target.labels.long()])
        return target
