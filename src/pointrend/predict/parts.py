"""What a job has written: files of some hundred rows each, which are its memory, too.

    part-00000-of-00004-1764486000123456789.parquet   rows of shard 0 of 4; the number is the time in nanoseconds
    failures-00000-of-00004.jsonl                     of the shard's last run: image, id, error
    summary-00000-of-00004.json                       of the same
    run.json                                          model and settings, which all shards share

A part appears under its name when it is complete, and each row says which version of its image it is of: what the parts
hold is done, however the run ended.
"""

from __future__ import annotations

import json
import logging
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pointrend.data.remote import explained, file_system, is_store, retried
from pointrend.distributed import Shard
from pointrend.io import atomic_write
from pointrend.predict.inputs import MARKER
from pointrend.predict.rows import SUFFIXES, PartFormat, Row, drop_rows, encode_rows, row_versions
from pointrend.predict.tasks import key_of
from pointrend.run_folder import locked, other_run

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")
LOG = logging.getLogger(__name__)
PART_BYTES = 2**26
"""Of run lengths: a part is written when it has more, however few its images are."""
PART_SECONDS = 600.0
"""A part is written when it is as old, so that no more work is lost where the process is killed."""
NAME = re.compile(r"(part|failures|summary)-(\d{5,})-of-(\d{5,})(?:-(\d+))?\.(jsonl|parquet|json)")


class Parts:
    """The rows of one shard of a job, onto the disk or into a store; a context manager that writes the last part.

    Memory: the rows of a part, and some 150 bytes for each image of the shard.

    Args:
        out: the job's folder, or its address in an object store, shared by its shards.
        settings: all that decides the rows; other ones than the folder's are refused.
        size: images in a part.
        categories: for COCO files, `id` and `name` of each class.
        fresh: remove what this shard has written before, and all of what jobs of another number of shards have.

    Raises:
        ValueError: the folder has another job's parts, or another process writes the same shard; a damaged part.
        OSError: the folder cannot be read or written.
    """

    def __init__(
        self,
        out: str | Path,
        kind: PartFormat,
        settings: Mapping[str, object],
        *,
        shard: Shard,
        size: int = 1000,
        categories: Sequence[Mapping[str, object]] = (),
        fresh: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"part_size: expected 1 image or more, got {size}")
        self.folder, self.kind, self.shard, self.size = OutFolder(out), kind, shard, size
        self.categories = categories
        self.own = f"{shard.index:05d}-of-{shard.count:05d}"
        self.written: list[str] = []
        self.failed = 0
        self._rows: list[Row] = []
        self._failures: list[bytes] = []
        self._bytes, self._begun = 0, time.monotonic()
        self._done: dict[int, int] = {}
        """Key -> the number of its part (from bit 32 on) and a digest of its version."""
        self._names: list[str] = []
        self._outdated: dict[str, set[int]] = {}
        local, busy = self.folder.local, f"another process is writing shard {self.own} here; wait for it"
        # Stores have no locks: there the scheduler takes care that a shard runs once.
        self._lock = None if local is None else locked(local, f".lock-{self.own}", busy)
        try:
            self._claim({"format": kind, **settings}, fresh)
            self._read()
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._release()

    def mine(self, key: int) -> bool:
        """Whether an image is this shard's: by its name, so that it stays so when the list changes."""
        return key % self.shard.count == self.shard.index

    def digest(self, key: int) -> int | None:
        """`digest` of the version of an image that is done, None if none is."""
        found = self._done.get(key)
        return None if found is None else found & 0xFFFFFFFF

    def add(self, row: Row) -> None:
        """An image's row, or its failure (`image`, `id`, `error`)."""
        if "error" in row:
            self.failed += 1
            self._failures.append(json.dumps(row).encode() + b"\n")
            return
        key = key_of(row["image"], row["id"])
        if self.digest(key) == digest(row["version"]):  # the list has it twice
            return
        self._note(key, row["version"], len(self._names))
        self._rows.append(row)
        self._bytes += sum(map(len, row["masks"]))
        late = time.monotonic() - self._begun > PART_SECONDS
        if len(self._rows) >= self.size or self._bytes > PART_BYTES or late:
            self.flush()

    def flush(self) -> None:
        """Write the rows so far as a part."""
        if self._rows:
            name = f"part-{self.own}-{time.time_ns()}{SUFFIXES[self.kind]}"
            self.folder.write(name, encode_rows(self._rows, self.kind, self.categories))
            LOG.info("%s/%s: %d images, %d failures so far", self.folder, name, len(self._rows), self.failed)
            self._names.append(name)
            self.written.append(name)
        self._rows, self._bytes, self._begun = [], 0, time.monotonic()

    def close(self) -> None:
        """Write what is left, and take rows of outdated versions out of earlier parts."""
        self.flush()
        for name, keys in self._outdated.items():
            left = drop_rows(self.folder.read(name), self.kind, keys)
            if left:
                self.folder.write(name, left)
            else:
                self.folder.remove(name)
        self._outdated = {}
        failures = f"failures-{self.own}.jsonl"
        if self._failures:
            self.folder.write(failures, b"".join(self._failures))
        elif failures in self.folder.names():
            self.folder.remove(failures)

    def summarize(self, summary: Mapping[str, object]) -> None:
        """Write the summary of the run."""
        self.folder.write(f"summary-{self.own}.json", (json.dumps(summary, indent=1) + "\n").encode())

    def _note(self, key: int, version: str, part: int) -> None:
        before = self._done.get(key)
        if before is not None and before >> 32 != part:
            self._outdated.setdefault(self._names[before >> 32], set()).add(key)
        self._done[key] = part << 32 | digest(version)

    def _read(self) -> None:
        """What earlier runs have done: of two rows of an image the later one counts."""
        found = [(NAME.fullmatch(name), name) for name in self.folder.names()]
        parts = sorted((int(one[4]), name) for one, name in found if one and one[1] == "part")
        for number, (_, name) in enumerate(parts):
            self._names.append(name)
            try:
                versions = row_versions(self.folder.read(name), self.kind)
            except ValueError as error:
                raise ValueError(
                    f"{self.folder}/{name}: {error}; remove it, or start over with --fresh"
                ) from error
            for key, version in versions:
                if self.mine(key):
                    self._note(key, version, number)
        for one, name in found:  # of another number of shards: all of these images are tried again
            if one and one[1] != "part" and int(one[3]) != self.shard.count:
                self.folder.remove(name)

    def _claim(self, settings: Mapping[str, object], fresh: bool) -> None:
        """Make the folder this job's."""
        mine, names = json.loads(json.dumps(settings)), self.folder.names()
        for one in [NAME.fullmatch(name) for name in names] if fresh else ():
            if one and (f"{one[2]}-of-{one[3]}" == self.own or int(one[3]) != self.shard.count):
                self.folder.remove(one[0])
        if "run.json" in names and not fresh:
            try:
                theirs = dict(json.loads(self.folder.read("run.json")))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.folder}/run.json: expected the settings of a job; use --fresh"
                ) from error
            if problem := other_run(str(self.folder), theirs, mine):
                raise ValueError(problem)
        else:
            self.folder.write("run.json", (json.dumps(mine, indent=1) + "\n").encode())
            self.folder.write(MARKER, b"")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def digest(version: str) -> int:
    """32 bits that stand for a version of an image."""
    return zlib.crc32(version.encode())


class OutFolder:
    """Files by name. Each appears when it is complete; errors of a store that may pass are tried again.

    Raises:
        ImportError: the store's package is not installed.
        OSError: as its methods do, where a file cannot be read or written.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out).rstrip("/")
        self.store: AbstractFileSystem | None
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
        store = self.store
        if store is None:
            return sorted(path.name for path in Path(self.root).glob("*"))

        def listed() -> list[str]:
            try:
                return store.ls(self.root, detail=False)
            except FileNotFoundError:
                return []

        return sorted(name.rpartition("/")[2] for name in self._asked(listed))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        store, path = self.store, f"{self.root}/{name}"
        return Path(path).read_bytes() if store is None else self._asked(lambda: store.cat_file(path))

    def write(self, name: str, content: bytes) -> None:
        """A whole file, in place of one of this name."""
        store, path = self.store, f"{self.root}/{name}"
        if store is None:
            try:
                with atomic_write(path, durable=True) as unfinished:
                    unfinished.write_bytes(content)
            except OSError as error:
                raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
        else:
            self._asked(lambda: store.pipe_file(path, content))

    def remove(self, name: str) -> None:
        """Remove a file."""
        store, path = self.store, f"{self.root}/{name}"
        if store is None:
            Path(path).unlink(missing_ok=True)
        else:
            self._asked(lambda: store.rm_file(path))

    def _asked(self, call: Callable[[], T]) -> T:
        def once() -> T:
            with explained(self.out):
                return call()

        return retried(once)
