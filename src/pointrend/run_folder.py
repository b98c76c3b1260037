"""A folder that belongs to one run, which goes on where it was when it was stopped or killed.

    FOLDER/run.json   what the run is (model, data, settings); another run is refused
    FOLDER/*.jsonl    a line of JSON for each item that is done, from each process

A line that was cut off by the end of its process does not count.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pointrend.distributed import Shard
from pointrend.io import write_text

__all__ = ["RunFolder", "locked", "other_run"]

Key = int | str


class RunFolder:
    """What the processes of a run have done, on disk; a context manager that gives the folder free at its end.

    Memory grows with the number of items, not with what is noted of each.

    Args:
        folder: made if it is not there. All processes of the run must see it.
        settings: all that decides the results, as JSON can hold it.
        shard: this process among those of the run; each has to make this object.
        fresh: throw away what another run, or this one, has left in the folder.

    Raises:
        ValueError: in all processes, where the folder has another run's results, is in use, or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, object] | None = None,
        *,
        shard: Shard | None = None,
        fresh: bool = False,
    ) -> None:
        self.folder, self.shard = Path(folder), shard or Shard()
        self._own = self.folder / f"{time.time_ns()}-{self.shard.index}-of-{self.shard.count}.jsonl"
        self._lock: FileLock | None = None
        problem = None
        try:
            if self.shard.first:
                self._claim(dict(settings or {}), fresh)
        except (ValueError, OSError) as error:  # for the other processes, which wait for this one
            problem = str(error)
        problem = self.shard.gather(problem)[0]
        try:
            if problem is not None:
                raise ValueError(problem)
            self.refresh()
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def get(self, key: Key) -> Any:
        """What was noted last for an item, None if nothing was."""
        if key not in self._places:
            return None
        file, offset = self._places[key]
        with self._files[file].open("rb") as lines:
            lines.seek(offset)
            return json.loads(lines.readline())["value"]

    def __iter__(self) -> Iterator[Key]:
        """The items that were noted, as of the last `refresh`."""
        return iter(self._places)

    def add(self, key: Key, value: object) -> None:
        """Note an item. It survives the end of the process at once, a power cut a little later."""
        line = json.dumps({"key": key, "value": value}, allow_nan=False)
        with self._own.open("ab") as file:
            file.write(line.encode() + b"\n")

    def refresh(self) -> None:
        """Wait for the other processes, and read what all have noted.

        Raises:
            ValueError: naming file and line, for a line that `add` does not write.
        """
        self.shard.wait()
        self._files = sorted(self.folder.glob("*.jsonl"))  # by time: what was noted later counts
        self._places: dict[Key, tuple[int, int]] = {}
        for number, path in enumerate(self._files):
            with path.open("rb") as file:
                offset = 0
                for count, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        self._places[_key(line, f"{path}, line {count}")] = number, offset
                    offset += len(line)
        self.shard.wait()  # nobody adds before all have read

    def forget(self) -> None:
        """Remove the lines, when what they say is written elsewhere; for the first process."""
        for path in self.folder.glob("*.jsonl"):
            path.unlink()

    def remove(self) -> None:
        """Remove the folder, when all processes are done with it."""
        self.shard.wait()
        self.close()
        if self.shard.first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give the folder free for another run."""
        if self._lock is not None:
            self._lock.release()

    def _claim(self, settings: Mapping[str, object], fresh: bool) -> None:
        """Lock the folder and make it this run's."""
        busy = "another run is writing to this folder; wait for it, or choose another"
        self._lock = locked(self.folder, ".lock", busy)
        file, mine = self.folder / "run.json", json.loads(json.dumps(settings))
        if fresh and file.exists():
            _empty(self.folder)
        try:
            theirs = dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else mine
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{file}: expected the settings of a run, {error}; start over with --fresh (fresh=True)"
            ) from error
        if problem := other_run(self.folder, theirs, mine):
            raise ValueError(problem)
        write_text(file, json.dumps(mine, indent=1) + "\n")


def locked(folder: Path, name: str, busy: str) -> FileLock:
    """The folder's lock of this name, taken; the folder is made if it is not there.

    Raises:
        ValueError: another process has it, in the words of `busy`; or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: {busy}") from None
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be made into a folder for predictions ({error.strerror or error})"
        ) from error
    return lock


def other_run(folder: str | Path, theirs: Mapping[str, object], mine: Mapping[str, object]) -> str | None:
    """What to say where the settings of the run whose folder this is are not mine, by the first that differs."""
    for name in {**mine, **theirs}:
        was, now = theirs.get(name), mine.get(name)
        if was != now:
            return (
                f"{folder}: holds predictions of another run ({name}: {was!r}, now {now!r}); repeat that run's command "
                "to go on with it, choose another folder, or start over with --fresh (fresh=True)"
            )
    return None


def _key(line: bytes, where: str) -> Key:
    try:
        entry = json.loads(line)
        key, _ = entry["key"], entry["value"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: expected a key and a value, {error!r}") from error
    if not isinstance(key, int | str):
        raise ValueError(f"{where}: expected a number or text as key, got {key!r}")
    return key


def _empty(folder: Path) -> None:
    """All but the lock, which is held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()
