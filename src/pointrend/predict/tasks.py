"""The images of a job: named by paths, addresses or a list, one after the other, and shared among shards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pointrend.data.image_io import local_path
from pointrend.data.remote import is_store, is_url, list_objects, object_version
from pointrend.distributed import Shard
from pointrend.predict.inputs import find_images

Id = int | str


@dataclass(frozen=True)
class Task:
    """One image to predict."""

    image: str
    """Its path or address, as it was given."""
    id: Id | None = None
    """What the list calls it."""
    version: str | None = None
    """See `version`, where a listing has told it."""

    @property
    def key(self) -> int:
        """64 bits that stand for image and id: the same in every process and every run."""
        return key_of(self.image, self.id)


def key_of(image: str, own_id: Id | None) -> int:
    """64 bits that stand for an image and its id."""
    text = f"{'' if own_id is None else own_id}\n{image}"
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big"
    )


def version(task: Task) -> str:
    """What changes when the image does: size and time of change of a file; of an object see `object_version`.

    Raises:
        ValueError, ConnectionError: there is no such file, its name is no text, or the store does not answer.
    """
    name = task.image.encode(errors="backslashreplace").decode()
    if name != task.image:
        raise ValueError(f"{name}: the name is not UTF-8, which the columns of a table need; rename the file")
    if task.version is not None:
        return task.version
    if is_url(task.image):
        return object_version(task.image)
    try:
        found = local_path(task.image).stat()
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"{task.image}: {reason}") from error
    return f"{found.st_size} {found.st_mtime_ns}"


def find_tasks(sources: Sequence[str | os.PathLike[str]], listed: str | None = None) -> Iterator[Task]:
    """The images of files, folders, patterns and addresses, then those of a list; each as it is reached.

    An address in an object store that ends in "/", or has `*`, `?` or `[`, stands for what is there.

    Args:
        listed: a file, or "-" for the standard input; see `read_list`.

    Raises:
        ValueError: a folder, pattern or address with no image; a line of the list that is none.
        ConnectionError: a store that cannot be listed.
    """
    for source in sources:
        address = str(source)
        if is_store(address) and re.search(r"[*?\[]|/$", address):
            there = False
            for name, tag in list_objects(address):
                there = True
                yield Task(name, version=tag)
            if not there:
                raise ValueError(f"{address}: nothing is there; expected images")
            continue
        found, failures = find_images([source])
        if failures:
            raise ValueError(f"{failures[0].path}: {failures[0].reason}")
        if not found:
            raise ValueError(f"{source}: no image is in this folder")
        yield from (Task(str(one)) for one in found)
    if listed is not None:
        try:
            with (
                nullcontext(sys.stdin) if listed == "-" else Path(listed).open(encoding="utf-8-sig") as lines
            ):
                yield from read_list(lines, listed)
        except OSError as error:
            raise ValueError(f"{listed}: cannot be read ({error.strerror or error})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{listed}: expected text in UTF-8 ({error})") from error


def read_list(lines: Iterable[str] | IO[str], name: str) -> Iterator[Task]:
    """A path or an address a line, or JSON: {"image": ..., "id": ...}; empty lines are passed over.

    Raises:
        ValueError: naming the line, if it is JSON but not this.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip("\r\n")
        if text.lstrip().startswith("{"):
            yield _from_json(text, f"{name}, line {number}")
        elif text.strip():
            yield Task(text)


def _from_json(text: str, where: str) -> Task:
    try:
        entry: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    image, own = entry.get("image"), entry.get("id")
    right_id = own is None or (isinstance(own, Id) and not isinstance(own, bool))
    if not isinstance(image, str) or not image or not right_id:
        raise ValueError(
            f'{where}: expected {{"image": a path or an address, "id": a number or text}}, got {text[:80]}'
        )
    return Task(image, own)


def parse_shard(text: str) -> Shard:
    """A shard "I/N": I of 0..N-1.

    Raises:
        ValueError: another text.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError(f"shard: expected I/N with I from 0 to N-1, such as 0/4, got {text!r}")
    return Shard(int(found[1]), int(found[2]))


def shard_from_environment() -> Shard:
    """That of RANK and WORLD_SIZE, as torchrun sets them; alone without. The processes need not find each other."""
    return parse_shard(f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}")
