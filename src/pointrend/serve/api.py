"""The routes of `pointrend serve`: POST /predict, GET /health, GET /metrics, and their description at /openapi.json.

No route takes a path. Bytes, pixels, requests and seconds are bounded; what is too much is refused with a status that
says so: 408 a slow sender, 413 too large, 422 no image, 502 an address that does not answer, 503 busy, 504 too late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from pointrend.app.limits import (
    READERS,
    UPLOADS,
    Limits,
    RequestFilter,
    TooManyPixelsError,
    header_size,
    read_body,
)
from pointrend.serve.answers import AnswerFormat, MaskFormat
from pointrend.serve.backends import Backend
from pointrend.serve.batcher import Batcher, BusyError, cancelled
from pointrend.serve.fetch import fetch_public

T = TypeVar("T")
LOG = logging.getLogger(__name__)
CALL_BYTES = 2**14
"""Of a request that names an address."""
GONE = 499
"""Status of a request whose client went away; nobody sees it but the metrics."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ServiceLimits:
    """Of a service."""

    upload: Limits
    """Of a file and its image."""
    queue: int = 64
    """Requests at work at once; further ones get 503."""
    seconds: float = 60.0
    """Of a request, from its first byte to its answer; and for those at work when the service is stopped."""
    waiting_bytes: int = 2**30
    """Of decoded pixels of all requests."""
    url_hosts: tuple[str, ...] = ()
    """Hosts whose images may be named by their address; "*" is every host with a public one. None at all if empty."""

    def __post_init__(self) -> None:
        if self.queue < 1 or not 0 < self.seconds < math.inf:
            raise ValueError(
                "limits: expected a queue of at least 1 and positive, finite seconds, got "
                f"{self.queue} and {self.seconds}"
            )


class Metrics:
    """What Prometheus asks for."""

    def __init__(self, batcher: Batcher) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.batcher, self.registry = batcher, CollectorRegistry()
        self.requests = Counter(
            "pointrend_requests", "Requests to /predict by status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "pointrend_request_seconds", "Of answered requests", buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "pointrend_batch_size", "Images predicted together", buckets=SIZES, registry=self.registry
        )
        waiting = Gauge("pointrend_requests_at_work", "Requests at work", registry=self.registry)
        waiting.set_function(lambda: batcher.requests)

    def text(self) -> bytes:
        """In Prometheus' format."""
        from prometheus_client import generate_latest

        sizes, self.batcher.batches = self.batcher.batches, []
        for size in sizes:
            self.batch.observe(size)
        return generate_latest(self.registry)


BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {"url": {"type": "string"}},
                    "additionalProperties": False,
                }
            },
        },
    },
    "responses": {
        "200": {"description": "What was found", "content": {"application/json": {}, "image/png": {}}},
        **{
            str(code): {"description": text, "content": {"application/json": {}}}
            for code, text in {
                403: "A request from another site",
                408: "The image arrived too slowly",
                413: "Too many bytes or pixels",
                422: "No image, or a wrong option",
                502: "The address could not be fetched",
                503: "Busy",
                504: "It took too long",
            }.items()
        },
    },
}


def build_service(
    backend: Backend, limits: ServiceLimits, *, hosts: Collection[str] | None = None
) -> FastAPI:
    """The web application.

    Args:
        backend: such as `TorchBackend(predictor)`.
        hosts: see `RequestFilter`.
    """
    batcher = Batcher(backend, max_waiting=limits.queue, max_bytes=limits.waiting_bytes)
    metrics = Metrics(batcher)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        network = asyncio.create_task(batcher.run())
        yield
        await cancelled(network)

    app = FastAPI(title="PointRend", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(RequestFilter, hosts=hosts)
    receiving, readers = asyncio.Semaphore(UPLOADS), anyio.CapacityLimiter(READERS)

    async def read(request: Request) -> bytes:
        """The image's bytes: of the request's body, or of the address that it names."""
        named = (
            request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        )
        if receiving.locked():
            raise BusyError("many images are arriving")
        async with receiving:
            body = await read_body(request, CALL_BYTES if named else limits.upload.bytes)
            if not named:
                return body
            url = url_of(body)
            return await anyio.to_thread.run_sync(
                lambda: fetch_public(
                    url, hosts=limits.url_hosts, max_bytes=limits.upload.bytes, seconds=limits.seconds
                ),
                limiter=readers,
            )

    async def find(content: bytes, kind: AnswerFormat, masks: MaskFormat, min_score: float) -> Response:
        size = await anyio.to_thread.run_sync(header_size, content, "image", limits.upload, limiter=readers)
        limits.upload.check_pixels(*size)
        with batcher.place(3 * size[0] * size[1]):
            image = await anyio.to_thread.run_sync(backend.read, content, limiter=readers)
            result = await batcher.predict(image)
            found, media_type = await anyio.to_thread.run_sync(backend.answer, result, kind, masks, min_score)
            return Response(found, media_type=media_type)

    @app.post("/predict", openapi_extra=BODY, response_class=Response)
    async def predict(
        request: Request,
        format: Annotated[AnswerFormat, Query(description="Of the answer")] = "json",
        masks: Annotated[MaskFormat, Query(description="In JSON")] = "rle",
        min_score: Annotated[float, Query(ge=0, le=1, description="Of objects")] = backend.min_score,
    ) -> Response:
        """Segment an image: the request's body, or {"url": ...} where the service allows it."""
        begun = time.perf_counter()
        try:
            with anyio.fail_after(limits.seconds):
                content = await read(request)
        except TimeoutError:
            raise HTTPException(408, "the image took too long to arrive") from None
        if len(content) > limits.upload.bytes:
            raise HTTPException(
                413, f"the file is larger than {limits.upload.megabytes:g} MB, the limit here"
            )
        left = limits.seconds - (time.perf_counter() - begun)
        with anyio.fail_after(max(0.0, left)):
            found = await until_disconnected(request, find(content, format, masks, min_score))
        metrics.requests.labels("200").inc()
        metrics.seconds.observe(time.perf_counter() - begun)
        return found

    @app.get("/health")
    async def health() -> dict[str, object]:
        """Whether the service answers."""
        return {"status": "ok", "classes": list(backend.class_names)}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def measured() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def refusal(request: Request, status: int, text: str, **headers: str) -> Response:
        if request.url.path == "/predict":
            metrics.requests.labels(str(status)).inc()
        return JSONResponse({"error": text}, status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return refusal(request, error.status_code, str(error.detail), **dict(error.headers or {}))

    def refuse(kind: type[Exception], status: int, say: Callable[[Any], str] = str, **headers: str) -> None:
        """Have these errors answered by a status and a line."""

        async def handle(request: Request, error: Exception) -> Response:
            return refusal(request, status, say(error), **headers)

        app.add_exception_handler(kind, handle)

    refuse(RequestValidationError, 422, lambda e: f"{e.errors()[0]['loc'][-1]}: {e.errors()[0]['msg']}")
    refuse(ValueError, 422)
    refuse(TooManyPixelsError, 413)
    refuse(ConnectionError, 502)
    refuse(BusyError, 503, lambda e: f"busy: {e}; try again in a few seconds", **{"retry-after": "3"})
    refuse(TimeoutError, 504, lambda _: f"not done within {limits.seconds:g} s")
    refuse(ClientGoneError, GONE, lambda _: "the client went away")
    return app


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def until_disconnected(request: Request, work: Awaitable[T]) -> T:
    """What the work gives; it is ended where the client goes away before.

    Raises:
        ClientGoneError: it did.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def url_of(body: bytes) -> str:
    """The address in a request's body, {"url": ...}.

    Raises:
        ValueError: it is another one.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError('expected JSON, {"url": ...}, or the bytes of an image') from error
    if not isinstance(found, dict) or {*found} != {"url"} or not isinstance(found["url"], str):
        raise ValueError('expected {"url": text} and nothing else')
    return found["url"]
