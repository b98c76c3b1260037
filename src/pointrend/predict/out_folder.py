"""Files in a folder, or below an address of an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pointrend.data.remote import explained, file_system, is_store, retried
from pointrend.io import atomic_write

T = TypeVar("T")


class OutFolder:
    """Files by name. Each appears when it is complete; errors of a store that may pass are tried again.

    Raises:
        ImportError: the store's package is not installed.
        OSError: as its methods do, where a file cannot be read or written.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out).rstrip("/")
        self.store: Any
        self.store, root = file_system(self.out) if is_store(self.out) else (None, self.out)
        self.root = root.rstrip("/")

    def __str__(self) -> str:
        return self.out

    @property
    def local(self) -> Path | None:
        """The folder, where it is on this computer's disk."""
        return Path(self.root) if self.store is None else None

    def names(self) -> list[str]:
        """What is in it, sorted."""
        if self.store is None:
            return sorted(path.name for path in Path(self.root).glob("*"))

        def listed() -> list[str]:
            try:
                return self.store.ls(self.root, detail=False)
            except FileNotFoundError:
                return []

        return sorted(name.rpartition("/")[2] for name in self._asked(listed))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        path = f"{self.root}/{name}"
        return (
            Path(path).read_bytes() if self.store is None else self._asked(lambda: self.store.cat_file(path))
        )

    def write(self, name: str, content: bytes) -> None:
        """A whole file, in place of one of this name."""
        path = f"{self.root}/{name}"
        if self.store is None:
            try:
                with atomic_write(path, durable=True) as unfinished:
                    unfinished.write_bytes(content)
            except OSError as error:
                raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
        else:
            self._asked(lambda: self.store.pipe_file(path, content))

    def remove(self, name: str) -> None:
        """Remove a file."""
        path = f"{self.root}/{name}"
        if self.store is None:
            Path(path).unlink(missing_ok=True)
        else:
            self._asked(lambda: self.store.rm_file(path))

    def _asked(self, call: Callable[[], T]) -> T:
        def once() -> T:
            with explained(self.out):
                return call()

        return retried(once)
