"""Fetching a published file once: resumable, checked, and never half there under its own name."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

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


def offline() -> bool:
    """Whether POINTREND_OFFLINE forbids the network ("1", "true", "yes")."""
    return os.environ.get("POINTREND_OFFLINE", "").lower() in ("1", "true", "yes")


def file_sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, target: str | Path, *, sha256: str = "", progress: Progress | None = None) -> Path:
    """The file at `url`, as `target`; not fetched where it is there already.

    What an interrupted download left ("target.part") is continued. sha256: its hexadecimal beginning, of any
    length.

    Raises ConnectionError where the network is off, forbidden or failed, naming the URL and where to put the
    file by hand; ValueError for a file with another hash, which is removed if it was downloaded here.
    """
    target = Path(target)
    if target.is_file():
        _check(target, url, sha256)
        return target
    advice = f"download {url} by other means and put it at {target}"
    if offline():
        raise ConnectionError(f"POINTREND_OFFLINE is set and {target.name} is not in the cache; {advice}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _download(url, part, progress)
    except (OSError, ValueError) as error:  # urllib's URLError and every time-out are an OSError
        kept = f"; {part.stat().st_size} bytes are kept, run again to continue" if part.exists() else ""
        raise ConnectionError(f"{url} could not be fetched ({error}){kept}; or {advice}") from error
    try:
        _check(part, url, sha256)
    except ValueError:
        part.unlink()
        raise
    os.replace(part, target)
    return target


def _download(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pointrend"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if (
                error.code != 416
            ):  # a range behind the end: what is there is the whole file, or of another one
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


def _check(path: Path, url: str, sha256: str) -> None:
    if sha256:
        found = file_sha256(path)
        if not found.startswith(sha256.lower()):
            raise ValueError(
                f"{path}: SHA-256 {found} does not begin with {sha256}, so it is not the file of {url}; remove it "
                "and fetch it again"
            )
