"""Which files to read, and what to call what is written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pointrend.data.image_io import IMAGE_SUFFIXES
from pointrend.predict.results import Failure


def find_images(
    sources: Sequence[str | Path], *, skip: Sequence[Path] = ()
) -> tuple[list[Path], list[Failure]]:
    """Image files that the sources name, each once, in their order; and sources that name nothing.

    A folder stands for the images in it and below it (by suffix, hidden ones and those under `skip` left
    out); a text with `*`, `?` or `[` that is no file, for the files it matches (`**` crosses folders);
    everything else for itself, whatever its suffix.
    """
    found: dict[Path, Path] = {}
    failures: list[Failure] = []
    left_out = {folder.resolve() for folder in skip}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            matches = [
                p for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
            ]
            matches = [
                p for p in matches if not any(part.startswith(".") for part in p.relative_to(path).parts)
            ]
            matches = [p for p in matches if left_out.isdisjoint(p.resolve().parents)]
        elif path.exists() or not glob.has_magic(str(path)):
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
            if not matches:
                failures.append(Failure(path, "no file matches this pattern"))
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values()), failures


def output_names(paths: Sequence[Path]) -> list[str]:
    """A different name, with `/` between folders and without suffix, for each image: `a/one` for
    `x/a/one.jpg`.

    Folders below the common parent are kept. Where only the suffix tells two images apart it stays part of
    the name (`one.jpg`, `one.png`); names that differ in case alone count as the same, as on some file
    systems.
    """
    full = [Path(os.path.abspath(path)) for path in paths]
    if not full:
        return []
    try:
        root = os.path.commonpath([path.parent for path in full])
        short = [path.relative_to(root) for path in full]
    except ValueError:  # on different drives
        short = [Path(path.name) for path in full]
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
