"""Atomic file writes: written under another name, then renamed; PNG in memory; reading of JSON from elsewhere."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


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


def write_png(image: Image.Image | np.ndarray, path: str | Path, *, icc_profile: bytes | None = None) -> None:
    """An image as a PNG file, written atomically; missing folders are made.

    Args:
        image: a Pillow image, or an array that `Image.fromarray` takes: (H, W) or (H, W, 3 or 4) uint8, ...
        icc_profile: what its colours mean; sRGB if not given.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    with atomic_write(path) as unfinished:
        image.save(unfinished, format="PNG", icc_profile=icc_profile)


def palette_image(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """A label map (H, W) in 8 bits with a colour (0..255) for each class as its palette; in 16-bit grey beyond 255
    classes.
    """
    from PIL import Image

    if labels.max(initial=0) > 255:
        return Image.fromarray(labels.astype("uint16"))
    image = Image.fromarray(labels.astype("uint8"))
    colors = [value for color in palette[:256] for value in color]
    # With fewer than 256 colours Pillow writes fewer bits, in which 255 has no room.
    image.putpalette(colors + [0] * (768 - len(colors)) if (labels == 255).any() else colors)
    return image


def png_bytes(image: Image.Image, *, compress_level: int = -1) -> bytes:
    """The content of a PNG file of an image; `compress_level` as of zlib, 0 to 9, -1 its own choice."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """A UTF-8 text file, written atomically; missing folders are made. durable: as of `atomic_write`."""
    with atomic_write(path, durable=durable) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json(path: str | Path | BinaryIO) -> Any:
    """The content of a JSON file, of a path or opened, in UTF-8 (with a byte order mark or without), UTF-16 or UTF-32.

    Raises:
        ValueError: naming the file, if it cannot be read or is no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes() if isinstance(path, str | Path) else path.read())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError, MemoryError) as error:  # bad text and bad JSON are both ValueErrors
        raise ValueError(f"{path}: not a readable JSON file ({error or type(error).__name__})") from error


def offline() -> bool:
    """Whether POINTREND_OFFLINE forbids the network ("1", "true", "yes")."""
    return os.environ.get("POINTREND_OFFLINE", "").lower() in ("1", "true", "yes")


def umask() -> int:
    """The permissions that new files lack; can only be read by setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
