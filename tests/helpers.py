"""What tests of several parts use: the folders of real data, random images, a web server for one test."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("POINTREND_DATA") or ROOT / "../shared/data")
"""Real images and metric samples."""
REFERENCE = Path(os.environ.get("POINTREND_REFERENCE") or ROOT / "../shared/reference")
"""Stored outputs of Detectron2 and MMSegmentation with deterministic weights."""


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) uint8, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Answer requests on this computer meanwhile; the port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class FolderHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of its ``directory``, without a word."""

    def log_message(self, *_: Any) -> None:
        pass
