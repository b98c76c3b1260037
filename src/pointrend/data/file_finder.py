"""Files of a folder by the names that annotation files give them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pointrend.formats.file_names import FileNames


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
