"""Which files to read, and what to call what is written."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import local_path
from pointrend.data.remote import is_url
from pointrend.predict.results import Failure

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
            matches = sorted(_images_below(path))
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


def _images_below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = [f for f in folders if not f.startswith(".") and not _was_written(here / f)]
        for name in files:
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
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
