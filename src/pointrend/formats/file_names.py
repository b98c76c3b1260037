"""Images found by the file names that annotations and predictions give them, whatever lies before the last part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class FileNames:
    """Images by file name: the same last part, and as many equal folders before it as possible."""

    def __init__(self, names: Mapping[int | str, str]) -> None:
        self.names = names
        self._by_last: dict[str, list[tuple[int | str, list[str]]]] = {}
        for image_id, name in names.items():
            parts = _parts(name)
            self._by_last.setdefault(parts[0], []).append((image_id, parts))

    def find(self, name: str) -> list[int | str]:
        """The ids of those that agree best; none if no last part agrees."""
        parts = _parts(name)
        shared = [(image_id, _common(parts, own)) for image_id, own in self._by_last.get(parts[0], [])]
        most = max((count for _, count in shared), default=0)
        return [image_id for image_id, count in shared if count == most]


def _parts(name: str) -> list[str]:
    return re.split(r"[/\\]", name)[::-1]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count
