"""Files by the names that annotation files give them: Windows' or a web address's, in either Unicode form, or with the
folders of the machine that wrote them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote


class FileFinder:
    """The files of a folder, by name.

    A name is taken as it is where there is such a file. Else the file is looked for whose path ends as the name does,
    or the other way round: the name may have folders before it that are not here, or lack those that are. Of several
    the longest is meant.
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
        parts = name_parts(name)
        if not parts:
            return direct
        same = self._by_last_part.get(parts[-1], [])
        fitting = [(len(own), path) for own, path in same if _ends_alike(parts, own)]
        longest = max((length for length, _ in fitting), default=0)
        best = [path for length, path in fitting if length == longest]
        return best[0] if len(best) == 1 else direct

    @cached_property
    def _by_last_part(self) -> dict[str, list[tuple[list[str], Path]]]:
        found: dict[str, list[tuple[list[str], Path]]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                parts = name_parts(path.relative_to(self.folder).as_posix())
                found.setdefault(parts[-1], []).append((parts, path))
        return found


def name_parts(name: str) -> list[str]:
    """The folders and the file of a name, comparable: NFC, lower case, without a drive, "." or an address's escapes."""
    if re.match(r"[a-z]+://", name):
        name = unquote(re.sub(r"^[a-z]+://", "", name))
    parts = re.split(r"[/\\]+", unicodedata.normalize("NFC", name).casefold())
    return [part for part in parts if part not in ("", ".", "..") and not part.endswith(":")]


def _ends_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the shorter is the end of the longer."""
    count = min(len(one), len(other))
    return one[-count:] == other[-count:]
