"""The numbers that images and classes have in COCO files: a data set's own, so that predictions can be scored by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pointrend.formats.coco_json import read_coco
from pointrend.formats.file_names import FileNames
from pointrend.metadata.coco import CATEGORIES
from pointrend.predict.inputs import Source
from pointrend.results import Model


@dataclass(frozen=True)
class Ids:
    """Numbers for COCO files."""

    categories: tuple[int | None, ...]
    """Of each class 0..K-1; None for a class that is left out."""
    images: tuple[int | str, ...]
    """Of each image."""


def choose_ids(
    sources: Sequence[Source], model: Model, *, like: Path | None = None, classes: Sequence[str] = ()
) -> Ids:
    """The ids to write.

    Classes: those of the annotations `like`, by name; else those of the data that the model was trained on, where its
    checkpoint says so; else COCO's where they are COCO's 80; else 1..K. Images: those of `like`, by file name; else
    1, 2, ...

    Args:
        like: COCO annotations.
        classes: what is predicted at all; every class of the model if empty.

    Raises:
        ValueError: a class or an image that `like` does not have, or has several times.
    """
    names = tuple(model.config.class_names)
    if like is None:
        return Ids(_known_categories(model, names), tuple(range(1, len(sources) + 1)))
    file = read_coco(like, masks=False, file_names=True)
    ids = {category.name: category.id for category in file.categories.values()}
    missing = [name for name in (classes or names) if name not in ids]
    if missing:
        raise ValueError(
            f"{like}: has no category {', '.join(map(repr, missing[:5]))}, which the model predicts; its categories "
            f"are {', '.join(list(ids)[:20])}; choose among them by --classes"
        )
    files = {one: image.file_name for one, image in file.images.items()}
    return Ids(tuple(ids.get(name) for name in names), _images_like(sources, files, like))


def _images_like(
    sources: Sequence[Source], names: Mapping[int | str, str], like: Path
) -> tuple[int | str, ...]:
    finder = FileNames(names)
    chosen: list[int | str] = []
    for source in sources:
        same = finder.find(str(source))
        if len(same) != 1:
            problem = (
                "no image of it has this file name" if not same else f"it may be any of the images {same[:5]}"
            )
            raise ValueError(f"{source}: {problem} in {like}; predict the images that it lists")
        if same[0] in chosen:
            raise ValueError(f"{source}: two images would be image {same[0]} of {like}")
        chosen.append(same[0])
    return tuple(chosen)


def _known_categories(model: Model, names: Sequence[str]) -> tuple[int, ...]:
    noted = getattr(model, "origin", {}).get("category_ids")
    if (
        isinstance(noted, list)
        and len(set(map(str, noted))) == len(names) == len(noted)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in noted)
    ):
        return tuple(noted)
    if names == tuple(category.name for category in CATEGORIES):
        return tuple(category.id for category in CATEGORIES)
    return tuple(range(1, len(names) + 1))
