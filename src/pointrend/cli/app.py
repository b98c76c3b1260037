"""`pointrend app`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class App:
    """Watch subdivision in the browser: drop an image, move the sliders for resolution and points.

    Two small models that know generated scenes come with the package. For photographs name your own checkpoints, or
    choose a published model on the page, which is downloaded then.
    """

    models: Positional[Annotated[tuple[str, ...], arg(metavar="MODEL ...")]] = ()
    """Checkpoints, or names listed by `pointrend zoo`, to choose from."""
    host: str = "127.0.0.1"
    """Address to listen at: 127.0.0.1 is reached from this computer only, 0.0.0.0 from everywhere."""
    port: int = 7860
    """To listen at; 0 takes a free one."""
    zoo: bool = True
    """Offer all published models, each downloaded when first chosen."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    max_megabytes: float = 20.0
    """Largest file that may be uploaded."""
    max_megapixels: float = 25.0
    """Largest image that may be uploaded."""
    queue: int = 24
    """Requests that may wait; further ones get "busy"."""
    memory: int = 512
    """Megabytes for the features of visitors' images, and half of it for their images and results."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        if self.queue < 1 or self.memory < 64 or not 0 <= self.port < 65536:
            raise ValueError(
                f"expected a queue of at least 1, memory of at least 64 (MB) and a port of 0..65535, got {self.queue}, "
                f"{self.memory} and {self.port}"
            )
        require_server()
        import torch

        from pointrend.app.limits import Limits
        from pointrend.app.model_cache import ModelCache
        from pointrend.app.server import build_app, serve
        from pointrend.app.service import Service

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        models = ModelCache(self.models, zoo=self.zoo, device=device)
        models.preload()
        limits = Limits(self.max_megabytes, self.max_megapixels)
        service = Service(models, limits, megabytes=self.memory)
        port, address, hosts = listening(self.host, self.port)
        app = build_app(service, max_waiting=self.queue, hosts=hosts)
        print(f"PointRend is at {address}  (Ctrl-C ends it)", flush=True)
        serve(app, self.host, port)
        return 0


def require_server() -> None:
    """Raise an ImportError that says what to install, where FastAPI or uvicorn is missing."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the page in the browser needs FastAPI and uvicorn; install them with: pip install 'pointrend[app]'"
        ) from error


def listening(host: str, port: int) -> tuple[int, str, tuple[str, ...] | None]:
    """The port, a free one for 0; the address to open; and the hosts that requests may name, None for any.

    Raises ValueError as `free_port`.
    """
    port, local = free_port(host, port), host in LOCAL
    return port, f"http://{'localhost' if local else host}:{port}", LOCAL if local else None


def free_port(host: str, port: int) -> int:
    """The port itself if nothing listens there, or any free one for 0.

    Raises:
        ValueError: it is taken, or the address is not one of this computer's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot answer at {host}, port {port} ({error.strerror}); choose another with --port, or --port 0"
            ) from error
        return int(probe.getsockname()[1])
