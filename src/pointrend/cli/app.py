"""`pointrend app`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class App:
    """Watch subdivision in the browser: drop an image, slide resolution and points. Needs no download to start.

    Two small models that know generated scenes come with the package. For photographs name your own checkpoints, or
    choose a published model on the page, which is downloaded then.
    """

    models: Positional[Annotated[tuple[str, ...], arg(metavar="MODEL ...")]] = ()
    """Checkpoints written by `pointrend train`, or names listed by `pointrend zoo`, to choose from."""
    host: str = "127.0.0.1"
    """Address to answer at. The default is reached from this computer only; 0.0.0.0 from everywhere."""
    port: int = 7860
    """0 takes a free one."""
    zoo: bool = True
    """Offer all published models, each downloaded when first chosen; --no-zoo where others choose."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    max_megabytes: float = 20.0
    """Largest file that visitors may send."""
    max_megapixels: float = 25.0
    """Largest image, known before it is decoded."""
    queue: int = 24
    """Visitors who may wait; further ones are told that the server is busy."""
    memory: int = 512
    """Megabytes for what is kept of visitors' images."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        if self.queue < 1 or self.memory < 64 or not 0 <= self.port < 65536:
            raise ValueError(
                f"expected a queue of at least 1, memory of at least 64 (MB) and a port of 0..65535, got {self.queue}, "
                f"{self.memory} and {self.port}"
            )
        require_gradio()
        import torch

        from pointrend.app.model_cache import ModelCache
        from pointrend.app.service import Desk
        from pointrend.app.uploads import Limits

        local = self.host in LOCAL
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        shelf = ModelCache(self.models, zoo=self.zoo, device=device)
        shelf.check()
        desk = Desk(shelf, Limits(self.max_megabytes, self.max_megapixels), megabytes=self.memory)
        port = free_port(self.host, self.port)
        from pointrend.app.server import build_app, serve  # gradio takes seconds: mistakes are told before

        app = build_app(desk, waiting=self.queue, hosts=frozenset(LOCAL) if local else None)
        shown = "localhost" if local else self.host
        print(f"PointRend is at http://{shown}:{port}  (Ctrl-C ends it)", flush=True)
        serve(app, self.host, port)
        return 0


def require_gradio() -> None:
    """Raise an ImportError that says what to install, where gradio is missing."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`pointrend app` needs gradio; install it with: pip install 'pointrend[app]'"
        ) from error


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
