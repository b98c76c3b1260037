"""Objects by their address: s3://, gs://, az://, hf:// by fsspec, http(s):// directly. Untrusted, and sometimes away.

content = retried(lambda: read_object("s3://bucket/photo.jpg"))
"""

from __future__ import annotations

import http.client
import io
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pointrend.io import offline

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "memory": "fsspec",
}
"""Scheme of an object store -> the package that reads it."""
LARGEST_OBJECT = 2**28
"""Bytes of an image behind an address."""
ATTEMPTS = 5
LONGEST_PAUSE = 30.0
_TIMEOUT = 30.0
_PASSING = {408, 425, 429}
"""HTTP answers, beside those from 500 on, after which the same request may succeed."""


def is_url(source: object) -> bool:
    """Whether a text is an address: http(s), or of an object store."""
    return isinstance(source, str) and scheme_of(source) in {"http", "https", *PACKAGES}


def is_store(source: object) -> bool:
    """Whether a text is an address in an object store, which can be listed and written."""
    return isinstance(source, str) and scheme_of(source) in PACKAGES


def scheme_of(address: str) -> str:
    """ "s3" of "s3://bucket/key"; "" of a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", address)
    return found[1].lower() if found else ""


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The store of an address, and the path in it.

    Credentials, regions and endpoints come from where the store's package looks for them (AWS_ENDPOINT_URL, ...).

    Raises:
        ImportError: the store's package is not installed; says how to install it.
        ConnectionError: the store cannot be reached as it is set up (no account), or POINTREND_OFFLINE is set.
    """
    _check_online(address)
    import fsspec

    try:
        with explained(address):
            return fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES.get(scheme_of(address), "its fsspec package")
        raise ImportError(
            f"{address}: reading it needs {package}; install it with: pip install {package} (or, for all stores, "
            "'pointrend[remote]')"
        ) from error


def read_object(address: str, largest: int | None = None) -> bytes:
    """The whole content.

    Raises:
        ConnectionError: it cannot be fetched, arrived in part, has more than `largest` bytes (`LARGEST_OBJECT` if not
            given), or POINTREND_OFFLINE is set.
        ImportError: the store's package is not installed.
    """
    largest = LARGEST_OBJECT if largest is None else largest
    return _read_http(address, largest) if not is_store(address) else _read_store(address, largest)


class ObjectFile(io.BytesIO):
    """A content in memory that messages call by its address."""

    def __init__(self, address: str, content: bytes) -> None:
        super().__init__(content)
        self.address = address

    def __str__(self) -> str:
        return self.address


def opened(source: Path | str, largest: int | None = None) -> Path | ObjectFile:
    """A path as it is; the content of an address, asked for again after errors that may pass.

    Raises:
        ConnectionError, ImportError: as `read_object` does.
    """
    if isinstance(source, Path):
        return source
    return ObjectFile(source, retried(lambda: read_object(source, largest)))


def below(address: str, name: str) -> str:
    """The address of an object by its name below another address; of a web server, with escapes."""
    return f"{address.rstrip('/')}/{name if is_store(address) else urllib.parse.quote(name)}"


def object_version(address: str) -> str:
    """What changes when the content does: the ETag, or size and time. Empty where a web server says neither.

    Raises:
        ConnectionError, ImportError: as `read_object` does.
    """
    if is_store(address):
        store, path = file_system(address)
        with explained(address):
            return version_of(store.info(path))
    _check_online(address)
    with explained(address):
        request = urllib.request.Request(address, headers={"User-Agent": "pointrend"}, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            if error.code in (403, 405, 501):  # answers GET only
                return ""
            raise
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')


def version_of(entry: Mapping[str, object]) -> str:
    """The version that a store's listing gives for an object."""
    tag = entry.get("ETag") or entry.get("etag") or entry.get("blob_id")
    changed = entry.get("LastModified") or entry.get("last_modified") or entry.get("created") or ""
    if isinstance(changed, datetime):  # some stores say the same time in two ways
        changed = changed.timestamp()
    return str(tag).strip('"') if tag else f"{entry.get('size')} {changed}"


def list_objects(address: str) -> Iterator[tuple[str, str]]:
    """Address and version of everything below an address that ends in "/", or that a pattern fits, by name.

    Raises:
        ConnectionError, ImportError: as `read_object` does.
    """
    store, path = file_system(address)
    with explained(address):
        found = (
            store.glob(path, detail=True)
            if re.search(r"[*?\[]", path)
            else store.find(path.rstrip("/") + "/", detail=True)
        )
    for name, entry in sorted(found.items()):
        if entry.get("type") != "directory":
            yield f"{scheme_of(address)}://{name.lstrip('/')}", version_of(entry)


def retried(call: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """What `call` returns, at last: after an error that may pass it is called again, up to `attempts` times.

    The pauses double from half a second on, and are drawn at random below that, so that many clients do not come back
    at the same moment.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except OSError as error:
            if attempt == attempts or not is_transient(error):
                raise
            time.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1)))
    raise ValueError(f"attempts: expected at least 1, got {attempts}")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: a lost connection, an overloaded store; not a missing object."""
    cause = error.__cause__
    if isinstance(cause, urllib.error.HTTPError):
        return cause.code in _PASSING or cause.code >= 500
    lasting = (
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        NotADirectoryError,
        ValueError,
        http.client.InvalidURL,
    )
    return isinstance(error, ConnectionError) and cause is not None and not isinstance(cause, lasting)


def is_missing(error: BaseException) -> bool:
    """Whether an object is not there. Who may not list a bucket is told "forbidden" of what is not in it."""
    cause = error.__cause__
    if isinstance(cause, urllib.error.HTTPError):
        return cause.code in (403, 404, 410)
    return isinstance(cause, FileNotFoundError | PermissionError)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Whatever goes wrong between here and a store, as a ConnectionError that names the address."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # each store's package has exceptions of its own
        said = "there is no such object" if isinstance(error, FileNotFoundError) else str(error)
        raise ConnectionError(f"{address}: could not be fetched ({said or type(error).__name__})") from error


def _read_store(address: str, largest: int) -> bytes:
    store, path = file_system(address)
    with explained(address):
        size = store.info(path).get("size")
        if size is None or size <= largest:
            content: bytes = store.cat_file(path)
            if size is not None and len(content) != size:
                raise http.client.IncompleteRead(content, size - len(content))
            return content
    raise _too_large(address, largest)


def _read_http(address: str, largest: int) -> bytes:
    _check_online(address)
    with explained(address):
        request = urllib.request.Request(address, headers={"User-Agent": "pointrend"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(largest + 1)
            if len(content) <= largest and answer.length:
                raise http.client.IncompleteRead(content, answer.length)
    if len(content) > largest:
        raise _too_large(address, largest)
    return content


def _too_large(address: str, largest: int) -> ConnectionError:
    return ConnectionError(f"{address}: more than {largest:,} bytes; download it by other means")


def _check_online(address: str) -> None:
    if offline():
        raise ConnectionError(
            f"{address}: POINTREND_OFFLINE is set; download it by other means and name the file"
        )
