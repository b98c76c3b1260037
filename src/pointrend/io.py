"""Files that are whole or absent: written under another name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Write to the path that this yields; it becomes ``path`` when the block ends, and vanishes when it fails.

    What was at ``path`` before stays until then. Missing folders are made. ``durable`` waits until the content is on
    the disk before it gets its name, so that not even a crash of the machine leaves an empty file under it.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a file can be renamed onto another only within one file system.
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        if durable:
            with open(name, "rb") as file:
                os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~umask())  # mkstemp makes it private
        os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def umask() -> int:
    """The permissions that new files lack; can only be read by setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
