"""Fetching a published file once: resumable, checked, and never half there under its own name.

Several processes may want one file at the same time (torchrun with an empty cache): one fetches it, the others wait
and find it. The lock is the system's own, so a process that dies lets go of it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pointrend.io import offline, write_text

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes on disk so far and, where the server tells, those of the whole file."""

_CHUNK = 2**20
_TIMEOUT = 60.0  # seconds without a byte


def cache_folder() -> Path:
    """Where files are kept: the environment variable POINTREND_CACHE, or "pointrend" in the user's cache
    folder.
    """
    chosen = os.environ.get("POINTREND_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pointrend"


def file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file, read in pieces."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def exclusive(target: str | Path) -> Iterator[None]:
    """One process at a time may be in here for one `target`; the others wait. Leaves an empty "target.lock".

    Whoever waited has to look whether the file is there now.
    """
    from filelock import FileLock

    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        yield


def fetch(url: str, target: str | Path, *, checksum: str = "", progress: Progress | None = None) -> Path:
    """The file at `url`, as `target`; not fetched where it is there already.

    What an interrupted download left ("target.part") is continued. checksum: "sha256:" or "md5:" and the hexadecimal
    beginning of the file's hash, of any length, as publishers put it into file names; "" where they do not. After a
    download the whole SHA-256 is kept beside the file ("target.sha256", as sha256sum writes it): a file that changes
    later is noticed.

    Raises ConnectionError where the network is off, forbidden or failed, naming the URL and where to put the
    file by hand; ValueError for a file with another hash, which is removed if it was downloaded here.
    """
    target = Path(target)
    if not target.is_file():
        if offline():
            raise ConnectionError(
                f"POINTREND_OFFLINE is set and {target.name} is not in the cache; {_advice(url, target)}"
            )
        with exclusive(target):
            if not target.is_file():
                _fetch(url, target, checksum, progress)
                return target
    _check_kept(url, target, checksum)
    return target


def _fetch(url: str, target: Path, checksum: str, progress: Progress | None) -> None:
    part = target.with_name(target.name + ".part")
    while True:
        continued = part.exists()
        try:
            _download(url, part, progress)
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError, time-outs: OSErrors
            kept = f"; {part.stat().st_size} bytes are kept, run again to continue" if part.exists() else ""
            reason = str(error) or type(error).__name__
            raise ConnectionError(
                f"{url} could not be fetched ({reason}){kept}; or {_advice(url, target)}"
            ) from error
        found = _other_hash(part, checksum)
        if not found:
            break
        part.unlink()
        if not continued:  # else what was there before may have been at fault: once more from the beginning
            raise ValueError(
                f"{url}: {found}, so it is damaged or another file than was published; it was removed. Fetch it again; "
                "if it comes out the same and you trust it, load it from where you put it (`weights=PATH`): a file "
                "that you name is not compared"
            )
    write_text(_record(target), f"{file_hash(part)}  {target.name}\n")
    os.replace(part, target)


def _check_kept(url: str, target: Path, checksum: str) -> None:
    """Compare a file that was there with what was noted when it was fetched, else with the publisher's hash."""
    record = _record(target)
    noted = record.read_text(encoding="utf-8").split()[:1] if record.is_file() else []
    found = _other_hash(target, f"sha256:{noted[0]}" if noted else checksum)
    if found:
        when = "what was fetched" if noted else f"the file of {url}"
        both = f" and {record.name}" if noted else ""
        raise ValueError(
            f"{target}: {found}, so it is not {when}: remove it{both} and run again to download it"
        )


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _other_hash(path: Path, checksum: str) -> str:
    """ "its MD5 is 0123.., expected 4567.." where that is so, else ""."""
    algorithm, _, expected = checksum.lower().partition(":")
    if not expected:
        return ""
    found = file_hash(path, algorithm)
    if found.startswith(expected):
        return ""
    name = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
    return f"its {name} is {found}, expected {expected}{'' if len(expected) == len(found) else '..'}"


def _advice(url: str, target: Path) -> str:
    return f"download {url} by other means and put it at {target}"


def _download(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pointrend"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416:  # a range behind the end: there is the whole file, or one of another
                raise
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total != str(have):
            part.unlink()
            _download(url, part, progress)
        return
    with answer:
        continued = answer.status == 206
        have = have if continued else 0
        length = answer.headers.get("Content-Length")
        total_size = have + int(length) if length else None
        _check_space(part, total_size, have)
        with part.open("ab" if continued else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total_size)
    if total_size is not None and have != total_size:
        raise OSError(f"the connection ended after {have} of {total_size} bytes")


def _check_space(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise OSError(f"{total - have} bytes are needed in {part.parent}, {free} are free")
