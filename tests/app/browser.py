"""A server of the page in a process of its own, and a real browser to look at it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = (
    os.environ.get("POINTREND_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)

WAIT = 60_000  # milliseconds, on a busy machine
# What can be reached by keyboard and has no name that could be read aloud.
NAMELESS = """() => {
  const wanted = 'button, a, select, input:not([type=file]), [tabindex="0"]';
  const named = n => n.innerText || n.ariaLabel || n.title || n.getAttribute('aria-label')
    || (n.labels && n.labels.length) || n.querySelector('img[alt]:not([alt=""])');
  return [...document.querySelectorAll(wanted)].filter(n => n.offsetParent && !named(n)).map(n => n.outerHTML);
}"""


@contextmanager
def served(folder: Path, *options: str, command: str = "app", ready: str = "/options") -> Iterator[str]:
    """`pointrend app` with these options, at the address that this yields; what it says goes to `folder`.

    Or another command, which is there when it answers to the path `ready`.
    """
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'pointrend[app]'")
    log = folder / "server.log"
    arguments = [sys.executable, "-m", "pointrend", command, "--port", "0", *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(arguments, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            yield _address(process, log, ready)
        finally:
            process.terminate()
            process.wait(20)


def _address(process: subprocess.Popen[bytes], log: Path, ready: str) -> str:
    for _ in range(1200):
        said = re.search(r"http://localhost:\d+", log.read_text())
        if said and answers(said[0], ready):
            return said[0].replace("localhost", "127.0.0.1")
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no answer within two minutes:\n{log.read_text()}")


def answers(address: str, path: str = "/options") -> bool:
    """Whether the server is there."""
    try:
        return fetch(address, path)[0] == 200
    except OSError:
        return False


def fetch(address: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; the path goes out exactly as it is given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address + path, data=body, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
