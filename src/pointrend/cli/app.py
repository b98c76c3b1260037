"""`pointrend app` and `label`: pages in the browser."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class App:
    """Watch subdivision in the browser: drop an image, move the sliders for resolution and points.

    A model for photographs comes with the package, and two small ones that know generated scenes. Name your own
    checkpoints beside them, or choose a published model on the page, which is downloaded then.
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


@dataclass(frozen=True)
class Label:
    """Label points in the browser: boxes and ten yes-or-no questions each, instead of masks.

    Boxes come from a COCO file, from a model, or are drawn on the page. Random points in each box are shown one after
    the other: Y or N, the arrow keys, or a tap. The file is written after each object; the same command goes on where
    it stopped. `pointrend train --data DIR:points` trains on it.
    """

    images: Positional[Path]
    """Folder of images, such as DIR/train."""
    annotations: Path | None = None
    """COCO file with boxes; masks in it are not used."""
    model: str | None = None
    """Checkpoint, or name that `pointrend zoo` lists, of an instance model that proposes boxes."""
    min_score: float = 0.5
    """Least score of a proposed box."""
    classes: tuple[str, ...] = ()
    """Categories of boxes that are drawn, where neither a file nor a model has any."""
    out: Path | None = None
    """COCO file to write; DIR/instances_train_n10_v1_without_masks.json for the images DIR/train if not given."""
    points: int = 10
    """Points of each object."""
    seed: int = 12345
    """Of the points."""
    host: str = "127.0.0.1"
    """Address to listen at: 127.0.0.1 is reached from this computer only, 0.0.0.0 from everywhere."""
    port: int = 7861
    """To listen at; 0 takes a free one."""
    device: str | None = None
    """Of the model: cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        require_server()
        if not 0 <= self.port < 65536:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        from pointrend.app.label_file import boxes_to_label
        from pointrend.app.label_server import build_label_app
        from pointrend.app.label_session import LabelSession
        from pointrend.app.server import serve

        if self.model is None and (self.device is not None or self.min_score != Label.min_score):
            raise ValueError("device and min_score: are of --model; name one, or leave them out")
        if self.classes and (self.model is not None or self.annotations is not None):
            raise ValueError("classes: come from --annotations or --model where one is given; leave them out")
        if not self.images.is_dir():
            raise ValueError(f"{self.images}: no such folder of images")
        out = self.out or self.images.parent / (
            f"instances_{self.images.name}_n{self.points}_v1_without_masks.json"
        )
        content = {}
        if self.annotations is not None or not out.exists():
            propose = None if self.model is None else self._proposals
            content = boxes_to_label(self.images, self.annotations, classes=self.classes, propose=propose)
        session = LabelSession(
            self.images,
            out,
            content,
            draw=self.annotations is None and self.model is None,
            points=self.points,
            seed=self.seed,
        )
        port, address, hosts = listening(self.host, self.port)
        app = build_label_app(session, hosts=hosts)
        print(f"points go to {out}")
        print(f"Label at {address}  (Ctrl-C ends it)", flush=True)
        serve(app, self.host, port)
        return 0

    def _proposals(self, paths: list[Path]) -> Any:
        """(class names, results of the images) of the model."""
        from pointrend.cli.console import counting, load_model
        from pointrend.predict import Predictor

        assert self.model is not None
        model = load_model(self.model)
        if model.task != "instance":
            raise ValueError(f"model: expected one that finds objects, got one for {model.task} segmentation")
        predictor = Predictor(model, device=self.device, min_score=self.min_score)
        results = []
        with counting("proposing boxes", len(paths)) as progress:
            for number, path in enumerate(paths, start=1):
                results.append(predictor(path))
                progress(number, len(paths))
        return model.config.class_names, results


def require_server(what: str = "the page in the browser", extra: str = "app", *packages: str) -> None:
    """Raise an ImportError that says what to install, where FastAPI, uvicorn or another of the packages is missing."""
    missing = [name for name in ("fastapi", "uvicorn", *packages) if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{what} needs {', '.join(missing)}; install with: pip install 'pointrend[{extra}]'"
        )


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
