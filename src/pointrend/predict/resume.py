"""What a run over many files has done so far, on disk: one that was stopped or killed goes on where it was.

While a run is under way its output folder holds `.unfinished/`: `run.json` says with which model and settings, and
every process appends to a journal of its own one line of JSON for each image, once that image's files are there. A
line that was cut off by the end of its process does not count. When all is done the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from pointrend.distributed import Shard
from pointrend.io import atomic_write

FOLDER = ".unfinished"


class Journal:
    """The journals of all processes of a run, and this process's own, which it can write to; a context manager.

    Args:
        out: the folder that the run writes to.
        settings: of the run, JSON; an unfinished run with others is thrown away.
        paths: all images of the run.
        names: what is written for each is called so.
        shard: this process among those that share the run.

    Raises:
        ValueError: the folder cannot be written, or another run is writing to it.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        paths: Sequence[Path],
        names: Sequence[str],
        shard: Shard,
    ) -> None:
        self.out, self.folder, self.shard = out, out / FOLDER, shard
        self.numbers = {(str(path), name): n for n, (path, name) in enumerate(zip(paths, names, strict=True))}
        self.lock: IO[bytes] | None = None
        try:
            if shard.first:
                self._open(settings)
            shard.wait()
            self._read()
            shard.wait()  # until everybody has read; only then somebody writes
            name = f"{shard.index}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
            self.own: IO[bytes] = (self.folder / name).open("ab")
        except OSError as error:
            raise ValueError(
                f"{out}: cannot be made into a folder for predictions ({error.strerror})"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.own.close()
        if self.lock is not None:
            self.lock.close()

    def undone(self) -> list[int]:
        """Numbers of the images that had no prediction when the journal was opened or last read."""
        return [number for number, offset in enumerate(self.offsets) if offset < 0]

    def add(self, path: Path, name: str, files: Sequence[str], found: Mapping[str, Any] | None) -> None:
        """Note that an image's files are there; `found` is kept for it."""
        self._append({"path": str(path), "name": name, "files": list(files), "found": found})

    def fail(self, path: Path, name: str, reason: str) -> None:
        """Note that an image has no prediction. A later run tries it again."""
        self._append({"path": str(path), "name": name, "failure": reason})

    def finish(self) -> None:
        """Wait for the other processes and read what all have done."""
        self.shard.wait()
        self._read()

    def close(self) -> None:
        """All is done: throw the journals away."""
        self.own.close()
        self.shard.wait()
        if self.shard.first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def found(self) -> Iterator[tuple[int, Any]]:
        """Number of each image with a prediction, ascending, and what was noted for it."""
        files = [path.open("rb") for path in self.journals]
        try:
            for number, offset in enumerate(self.offsets):
                if offset >= 0:
                    file = files[self.where[number]]
                    file.seek(offset)
                    yield number, json.loads(file.readline())["found"]
        finally:
            for file in files:
                file.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self.own.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        self.own.flush()  # what the system has survives the process, not a power cut

    def _open(self, settings: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / "lock").open("wb")
        if not _locked(self.lock):
            self.lock.close()
            raise ValueError(
                f"{self.out}: another run is writing to this folder; wait for it, or choose another"
            )
        written = self.folder / "run.json"
        known = written.read_text(encoding="utf-8") if written.is_file() else None
        if known != json.dumps(settings):
            for path in self.folder.glob("*.jsonl"):
                path.unlink()
            with atomic_write(written) as unfinished:
                unfinished.write_text(json.dumps(settings), encoding="utf-8")
        for folder in ("overlays", "labels"):  # begun by a process that was killed
            for path in (self.out / folder).rglob(".*.part"):
                path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Where each image's line is (`where`: journal, `offsets`: byte, -1 without), and why some failed."""
        self.journals = sorted(self.folder.glob("*.jsonl"))
        self.where = array("i", [0]) * len(self.numbers)
        self.offsets = array("q", [-1]) * len(self.numbers)
        self.reasons: dict[int, str] = {}
        for place, path in enumerate(self.journals):
            with path.open("rb") as file:
                offset = 0
                for line in file:
                    self._note(place, offset, line)
                    offset += len(line)

    def _note(self, place: int, offset: int, line: bytes) -> None:
        try:
            entry = json.loads(line) if line.endswith(b"\n") else {}
            number = self.numbers.get((str(entry.get("path")), str(entry.get("name"))))
        except (ValueError, AttributeError):
            return
        if number is None:
            return
        if "failure" in entry:
            self.reasons[number] = str(entry["failure"])
        elif all((self.out / name).is_file() for name in entry["files"]):
            self.where[number], self.offsets[number] = place, offset


def fingerprint(model: Any) -> str:
    """A few digits that tell models apart: of its settings and, for a network, of all its weights.

    Of a stand-in for a model (``models.augmented``), its options and the model.
    """
    inner = getattr(model, "model", None)
    if inner is not None and not isinstance(model, torch.nn.Module):
        return f"{type(model).__name__} {getattr(model, 'options', ())} {fingerprint(inner)}"
    settings = (getattr(model, "config", None), getattr(model, "precision", None))
    digest = zlib.crc32(repr(settings).encode())
    if isinstance(model, torch.nn.Module):
        for name, tensor in model.state_dict().items():
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest = zlib.crc32(content.data, zlib.crc32(name.encode(), digest))
    return f"{type(model).__name__} {digest:08x}"


def _locked(file: IO[bytes]) -> bool:
    """Take the file's lock, which its process keeps until it ends, however that is; False if another has it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs into one folder are not noticed there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
