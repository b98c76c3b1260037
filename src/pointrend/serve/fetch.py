"""Images behind addresses that strangers name: never from the network in which the server stands."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

ANY = "*"
"""Stands for every host with a public address."""
PORTS = {80, 443}
_CHUNK = 2**16


def fetch_public(url: str, *, hosts: Collection[str], max_bytes: int, seconds: float) -> bytes:
    """The content of an http(s) address.

    The name is looked up once, every address that it has must be public, and the connection goes to the address that
    was checked; answers that lead elsewhere are refused. A host that is named in `hosts` may have a private address,
    and any port.

    Raises:
        ValueError: the address is not allowed, or its content too large.
        ConnectionError: it cannot be fetched in time.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ValueError(f"url: expected an http or https address ({error})") from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise ValueError("url: expected an http or https address without a password")
    if host not in hosts and (ANY not in hosts or port not in PORTS):
        raise ValueError("url: this host and port are not allowed here; send the image itself")
    end = time.monotonic() + seconds
    try:
        address = _checked_address(host, port, private=host in hosts)
        return _get(parts.scheme, host, port, address, _target(parts.path, parts.query), max_bytes, end)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise ConnectionError(f"url: could not be fetched ({type(error).__name__})") from error


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open network."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        # Others may be packed into it: what it leads to is not seen here.
        packed = found.ipv4_mapped or found.sixtofour or found.teredo
        if packed or found in ipaddress.ip_network("64:ff9b::/32"):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def _cut(line: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        line.shutdown(socket.SHUT_RDWR)


def _checked_address(host: str, port: int, *, private: bool) -> str:
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private and not all(is_public(one) for one in found):
        raise ValueError("url: this host is not allowed here; send the image itself")
    return found[0]


def _target(path: str, query: str) -> str:
    return (path or "/") + (f"?{query}" if query else "")


def _get(scheme: str, host: str, port: int, address: str, target: str, max_bytes: int, end: float) -> bytes:
    connection = http.client.HTTPConnection(host, port)
    timeout = max(0.1, min(10.0, end - time.monotonic()))
    connection.sock = socket.create_connection((address, port), timeout=timeout)
    # Who sends a byte now and then never runs into a socket's timeout: the connection is cut from outside.
    line = connection.sock.dup()
    cut = threading.Timer(max(0.1, end - time.monotonic()), _cut, [line])
    cut.daemon = True
    cut.start()
    try:
        if scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        connection.request("GET", target, headers={"User-Agent": "pointrend", "Accept": "image/*"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"url: the host answered with status {answer.status}, expected 200")
        content = bytearray()
        while chunk := answer.read1(_CHUNK):
            content += chunk
            if len(content) > max_bytes:
                raise ValueError(f"url: more than the limit of {max_bytes:,} bytes")
        if time.monotonic() > end:  # what is there may be a part
            raise TimeoutError
        if answer.length:
            raise http.client.IncompleteRead(bytes(content), answer.length)
        return bytes(content)
    finally:
        cut.cancel()
        cut.join()
        line.close()
        connection.close()
