"""Which files to read, what to call what is written of each, and their numbers in COCO files."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import local_path
from pointrend.data.remote import is_url
from pointrend.formats.coco_json import read_coco
from pointrend.formats.file_names import FileNames
from pointrend.metadata.coco import CATEGORIES
from pointrend.predict.results import Failure
from pointrend.results import Model

Source = Path | str
"""A file, or the text of an address, see `data.remote`."""

MARKER = ".pointrend-predictions"
"""An empty file in each folder that predictions are written to."""
OUTPUT_FOLDERS = frozenset({"overlays", "labels", "cutouts", "voc"})
"""Folders in it that hold images."""


def find_images(sources: Sequence[str | os.PathLike[str]]) -> tuple[list[Source], list[Failure]]:
    """Images that the sources name, each once, in their order; and sources that name nothing.

    A folder stands for the images in it and below it: by suffix; hidden ones and what an earlier run has written
    (overlays, label maps, cutouts) are left out. A text with `*`, `?` or `[` that is no file stands for the files it
    matches (`**` crosses folders); an address stays as it is; everything else is a file, whatever its suffix.
    """
    found: dict[str | Path, Source] = {}
    failures: list[Failure] = []
    for source in sources:
        if is_url(source):
            found.setdefault(str(source), str(source))
            continue
        path = local_path(source)
        if path.is_dir():
            matches = sorted(_images_below(path, failures))
        elif path.exists() or not glob.has_magic(str(path)):
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
            named = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            matches = [p for p in matches if not any(map(_was_written, _between(p, named)))]
            if not matches:
                failures.append(Failure(path, "no file matches this pattern"))
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values()), failures


def _images_below(folder: Path, failures: list[Failure]) -> Iterator[Path]:
    """The images, also links that lead nowhere; folders that cannot be read are added to the failures."""

    def note(error: OSError) -> None:
        failures.append(Failure(Path(error.filename), f"cannot be read ({error.strerror})"))

    for where, folders, files in os.walk(folder, onerror=note):
        here = Path(where)
        folders[:] = [f for f in folders if not f.startswith(".") and not _was_written(here / f)]
        for name in files:
            path = here / name
            a_file = os.path.isfile(path) or not os.path.exists(path)  # no pipe, whose reader would wait
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES and a_file:
                yield path


def _between(path: Path, folder: Path) -> list[Path]:
    """The folders in which a file lies below another one."""
    return [parent for parent in path.parents if folder in parent.parents]


def _was_written(folder: Path) -> bool:
    """Whether an earlier run has written this folder."""
    if folder.name not in OUTPUT_FOLDERS:
        return False
    out = folder.parent
    if (out / MARKER).exists() or (out / ".unfinished").is_dir():
        return True
    others = (out / "labels").is_dir() or (out / "predictions.json").is_file()
    return (out / "overlays").is_dir() and others  # of a version that left no marker


def output_names(sources: Sequence[Source]) -> list[str]:
    """A different name, with `/` between folders and without suffix, for each image: `a/one` for
    `x/a/one.jpg`.

    Folders below the files' common parent are kept; of an address its last part. Where only the suffix tells two
    images apart it stays part of the name (`one.jpg`, `one.png`); names that differ in case alone count as the same,
    as on some file systems.
    """
    files = [Path(os.path.abspath(source)) for source in sources if not is_url(source)]
    try:
        root = Path(os.path.commonpath([path.parent for path in files])) if files else Path()
    except ValueError:  # on different drives
        root = Path()
    short = [_short(source, root) for source in sources]
    stems = [path.with_suffix("").as_posix() for path in short]
    folded = Counter(stem.casefold() for stem in stems)
    names: list[str] = []
    taken: set[str] = set()
    for path, stem in zip(short, stems, strict=True):
        name = stem if folded[stem.casefold()] == 1 else path.as_posix()
        candidate, number = name, 2
        while candidate.casefold() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.casefold())
        names.append(candidate)
    return names


def _short(source: Source, root: Path) -> Path:
    """What tells a source apart: its path below the root, or the last part of an address."""
    if is_url(source):
        last = re.sub(r"[^\w. -]", "_", unquote(urlsplit(str(source)).path).rstrip("/").rpartition("/")[2])
        return Path(last.lstrip(".") or "image")
    path = Path(os.path.abspath(source))
    return path.relative_to(root) if path.is_relative_to(root) and root != Path() else Path(path.name)


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
