"""Files and images by the names that annotations and predictions give them: Windows' or a web address's, in either
Unicode form, or with the folders of the machine that wrote them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote

K = TypeVar("K", bound=Hashable)


class FileNames(Generic[K]):
    """Things by their file names: found by the last part, and by as many equal folders before it as possible."""

    def __init__(self, names: Mapping[K, str]) -> None:
        self.names = names
        self._by_last: dict[str, list[tuple[K, list[str]]]] = {}
        for key, name in names.items():
            parts = name_parts(name)
            if parts:
                self._by_last.setdefault(parts[-1], []).append((key, parts))

    def find(self, name: str, *, same_folders: bool = False) -> list[K]:
        """Those that agree best; none if no last part agrees.

        Args:
            same_folders: one of the two names has to be the end of the other, so that a file in another folder is
                not meant.
        """
        parts = name_parts(name)
        if parts and parts[-1] not in self._by_last and "%" in name:
            parts = name_parts(unquote(name))
        shared = [
            (key, count)
            for key, own in (self._by_last.get(parts[-1], []) if parts else [])
            if (count := _common(parts, own)) == min(len(parts), len(own)) or not same_folders
        ]
        most = max((count for _, count in shared), default=0)
        best = [key for key, count in shared if count == most]
        exact = [key for key in best if _last(self.names[key]) == _last(name)]  # "A.png" beside "a.png"
        return exact if len(best) > 1 and exact else best


def name_parts(name: str) -> list[str]:
    """The folders and the file of a name, comparable: NFC, lower case, without a drive, "." or an address's escapes."""
    if re.match(r"[a-z]+://", name):
        # Label Studio's ".../local-files/?d=folder/a.jpg" has the name behind the question mark.
        name = unquote(re.sub(r"^[a-z]+://|(?<!/)\?.*", "", name))
    parts = re.split(r"[/\\]+", unicodedata.normalize("NFC", name).casefold())
    return [part for part in parts if part not in ("", ".", "..") and not part.endswith(":")]


def _last(name: str) -> str:
    return unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


class FileFinder:
    """The files of a folder, by name.

    A name is taken as it is where there is such a file. Else the file is looked for whose path ends as the name does,
    or the other way round (`FileNames`): the name may have folders before it that are not here, or lack those that are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """The file's path; where it is not there, or several fit equally, the one that the name says."""
        direct = self.folder / name
        try:
            if direct.is_file():
                return direct
        except (OSError, ValueError):  # too long, or with a null character
            return self.folder / "no-such-file"
        found = self._files.find(name, same_folders=True)
        return found[0] if len(found) == 1 else direct

    @cached_property
    def _files(self) -> FileNames[Path]:
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return FileNames(
            {path: path.relative_to(self.folder).as_posix() for path in files if path.name[:1] != "."}
        )


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """The files of a folder and its subfolders, in order; those that systems hide (`._a.json` of macOS) left out."""
    return sorted(_visible(folder, suffixes))


def has_files(folder: Path, *suffixes: str) -> bool:
    """Whether there is one; a folder of a hundred thousand is not listed for it."""
    return next(_visible(folder, suffixes), None) is not None


def _visible(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    paths = folder.rglob("*")
    return (path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith("."))
