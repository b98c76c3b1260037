"""What strangers may send: bytes, pixels and requests at the same time, none from other sites. Without torch."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import urlsplit

from PIL import Image
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pointrend.data.decode import FORMATS

UPLOADS = 16
"""Files that may arrive at the same time: each takes memory before it is complete."""
READERS = 4
"""Files decoded at the same time."""


class TooManyPixelsError(ValueError):
    """An image is larger than the limit."""


@dataclass(frozen=True)
class Limits:
    """Of uploads."""

    megabytes: float = 20.0
    """Of a file."""
    megapixels: float = 25.0
    """Of an image, known from its header before anything is decoded."""
    long_edge: int = 1024
    """Images are shrunk to this many pixels on their longer side."""

    def __post_init__(self) -> None:
        if not (0 < self.megabytes < math.inf and 0 < self.megapixels < math.inf and self.long_edge >= 32):
            raise ValueError(
                "limits: expected positive, finite megabytes and megapixels and a long edge of at least 32 pixels, got "
                f"{self.megabytes}, {self.megapixels} and {self.long_edge}"
            )

    @property
    def bytes(self) -> int:
        """Of a file."""
        return int(self.megabytes * 2**20)

    def check_size(self, count: int) -> None:
        """Raise a ValueError for a file of so many bytes, if it is too large or empty."""
        if count > self.bytes:
            raise ValueError(
                f"The file is larger than {self.megabytes:g} MB, which is the limit here. Save the image smaller or "
                "as JPEG, or use `pointrend predict` on your own computer."
            )
        if count == 0:
            raise ValueError("The file is empty. Choose an image.")

    def check_pixels(self, height: int, width: int) -> None:
        """Raise a TooManyPixelsError for an image of this size, if it is too large."""
        if height * width > self.megapixels * 1e6:
            raise TooManyPixelsError(
                f"The image has {width} × {height} = {height * width / 1e6:.0f} megapixels; the limit here is "
                f"{self.megapixels:g}. Scale it down, or use `pointrend predict` on your own computer."
            )


def header_size(content: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """(height, width) that the file's header claims; nothing is decoded.

    Raises:
        ValueError: no image; a TooManyPixelsError, if it is larger than Pillow would open at all.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return image.height, image.width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(
            f"The image has far more than {limits.megapixels:g} megapixels, which is the limit here. Scale it down."
        ) from error
    except Exception as error:  # whatever Pillow's plugins raise on a bad header
        raise ValueError(unreadable(name)) from error


def unreadable(name: str) -> str:
    """The message for a file that is no image."""
    return (
        f"“{name}” is no image that can be read here, or it is damaged. "
        "Try JPEG, PNG, WebP, GIF, BMP or TIFF."
    )


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request, of which at most `limit` + 1 bytes are kept: what uses it refuses a longer one.

    The rest is read and dropped, up to four times the limit: a client that is still sending would not see an answer.
    """
    body, count = bytearray(), 0
    async for part in request.stream():
        count += len(part)
        body += part[: limit + 1 - len(body)]
        if count > 4 * limit:
            break
    return bytes(body)


SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class RequestFilter:
    """ASGI middleware: refuses requests from other sites, and tells the browser to fetch nothing from them.

    It checks the names in a request's Host and Origin, and adds `SECURITY_HEADERS` to every response.

    Args:
        hosts: names that the page may be asked for by, without ports; any if not given. This turns away a foreign
            page whose own name was made to point to this computer (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await (self.refusal(Headers(scope=scope)) or self.app)(scope, receive, send_with_headers)

    def refusal(self, headers: Headers) -> PlainTextResponse | None:
        """The response to a request with these headers that is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            return PlainTextResponse("this server is not known by that name", 421)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("only the page itself may call this", 403)
        return None
