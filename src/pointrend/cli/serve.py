"""`pointrend serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pointrend.cli.app import listening, require_server
from pointrend.evaluation.options import Precision

if TYPE_CHECKING:
    from pointrend.serve.backends import Backend


@dataclass(frozen=True)
class Serve:
    """Answer requests for segmentations over HTTP: POST /predict with the bytes of an image.

    Answers are JSON with run lengths or polygons, a PNG of labels, or a cut-out; /openapi.json describes them, /health
    and /metrics (Prometheus) are for operators. Requests that wait are predicted together. There is no authentication
    and no TLS: put a proxy in front of it before others can reach it.
    """

    model: Positional[Annotated[str, arg(metavar="MODEL")]] = "photo-semantic"
    """A checkpoint, a name listed by `pointrend zoo`, or an exported .onnx or .xml, which needs no torch."""
    host: str = "127.0.0.1"
    """Address to listen at: 127.0.0.1 is reached from this computer only, 0.0.0.0 from everywhere."""
    port: int = 8000
    """To listen at; 0 takes a free one."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    optimize: Precision | None = None
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision where the processor
    or GPU is made for it, "auto" the fastest that is exact to rounding."""
    batch_size: int | None = None
    """Waiting images of equal size predicted together, at most: 8 on a GPU and 1 on a CPU, where it gains nothing, when
    not given."""
    min_score: float | None = None
    """Leave out objects with a lower score, where a request does not say another one."""
    queue: int = 64
    """Requests at work at once; further ones get "busy"."""
    seconds: float = 60.0
    """A request may take, sending included; also for those at work when the service is stopped."""
    max_megabytes: float = 20.0
    """Of a file."""
    max_megapixels: float = 25.0
    """Of an image."""
    allow_urls: tuple[str, ...] = ()
    """Hosts whose images may be named by address instead of sent; "*" for all public ones. None when not given."""

    def run(self) -> int:
        """Serve until Ctrl-C or SIGTERM; requests at work are answered first."""
        require_server("`pointrend serve`", "serve", "prometheus_client")
        from pointrend.app.limits import Limits
        from pointrend.cli.console import announce

        limits = Limits(self.max_megabytes, self.max_megapixels)
        announce(f"loading {self.model}")
        from pointrend.serve.api import ServiceLimits, build_service

        bounds = ServiceLimits(limits, self.queue, self.seconds, url_hosts=self.allow_urls)
        backend = self._backend()
        port, address, hosts = listening(self.host, self.port)
        app = build_service(backend, bounds, hosts=hosts)
        print(f"PointRend answers at {address}/predict  (Ctrl-C ends it)", flush=True)
        import uvicorn

        uvicorn.run(
            app,
            host=self.host,
            port=port,
            log_level="warning",
            limit_concurrency=4 * self.queue + 64,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=max(1, int(self.seconds)),
        )
        return 0

    def _backend(self) -> Backend:
        from pointrend.runtime.sessions import SUFFIXES
        from pointrend.serve.backends import ExportedBackend, TorchBackend

        if self.model.endswith(SUFFIXES):
            given = [name for name in ("device", "optimize", "batch_size") if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: an exported file is run as it was written; leave it out"
                )
            return ExportedBackend(self.model, self.min_score)
        from pointrend.cli.console import load_model
        from pointrend.predict import Predictor

        predictor = Predictor(
            load_model(self.model, optimize=self.optimize),
            device=self.device,
            batch_size=1 if self.batch_size is None else self.batch_size,
            max_pixels=int(self.max_megapixels * 1e6),
            min_score=self.min_score,
        )
        if self.batch_size is None and predictor.device.type != "cpu":
            predictor.batch_size = 8
        return TorchBackend(predictor)
