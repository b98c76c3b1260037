"""The web application: the page, images in, results out. Needs FastAPI and uvicorn.

No route takes a path: the page's own files are a fixed table, images and results stay in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from typing import TypeVar
from urllib.parse import quote, unquote

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import Route

from pointrend.app.limits import READERS, UPLOADS, RequestFilter, read_body
from pointrend.app.service import Service
from pointrend.app.types import Settings

T = TypeVar("T")
CALL_BYTES = 2**16
"""Of a request without an image, which has a few hundred."""
STATIC = {
    "": ("index.html", "text/html"),
    "app.css": ("app.css", "text/css"),
    "app.js": ("app.js", "text/javascript"),
    "viewer.js": ("viewer.js", "text/javascript"),
}
"""Path -> file of the page, and its media type."""


class BusyError(Exception):
    """Too many requests of a kind at once; says so in words for the visitor."""


class Body(BaseModel):
    """Of any request."""

    model_config = ConfigDict(extra="forbid")


B = TypeVar("B", bound=Body)


class RenderRequest(Body):
    """The body of a request to `/render`; the model's own settings where numbers are missing."""

    model: str
    image: str
    resolution: int | None = Field(None, ge=0, lt=2**31)
    points: int | None = Field(None, ge=0, lt=2**31)
    min_score: float = 0.5


def page_app(static: Mapping[str, tuple[str, str]], hosts: Collection[str] | None) -> FastAPI:
    """A web application that serves the files of a page; a ValueError is its answer 422.

    Args:
        static: path -> file of the page, and its media type.
        hosts: see `RequestFilter`.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(RequestFilter, hosts=hosts)

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    for path, (name, media_type) in static.items():
        content = (resources.files("pointrend.app") / "static" / name).read_bytes()
        page_file = Response(content, media_type=media_type, headers={"cache-control": "no-cache"})
        app.routes.append(Route(f"/{path}", page_file, methods=["GET"]))
    return app


def build_app(service: Service, *, max_waiting: int = 24, hosts: Collection[str] | None = None) -> FastAPI:
    """The web application.

    Args:
        max_waiting: requests that wait for the network, which answers one at a time.
        hosts: see `RequestFilter`.
    """
    app = page_app(STATIC, hosts)
    uploads, readers, network = (
        asyncio.Semaphore(UPLOADS),
        anyio.CapacityLimiter(READERS),
        anyio.CapacityLimiter(1),
    )

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return JSONResponse(
            {"error": f"Busy: {error}. Try again in a few seconds."}, 503, {"retry-after": "3"}
        )

    @app.get("/options")
    async def options() -> dict[str, object]:
        return await in_thread(service.options)

    @app.post("/images")
    async def add_image(request: Request) -> dict[str, str]:
        if uploads.locked():
            raise BusyError("many images are arriving")
        async with uploads:
            content = await read_body(request, service.limits.bytes)
            name = unquote(request.headers.get("x-file-name", ""))[:200]
            return {"image": await in_thread(service.add_image, content, name, limiter=readers)}

    @app.post("/render")
    async def render(request: Request) -> dict[str, object]:
        wanted = await parsed(request, RenderRequest)
        if network.statistics().tasks_waiting >= max_waiting:
            raise BusyError("many visitors are waiting")
        settings = Settings(wanted.resolution, wanted.points, wanted.min_score)
        return await in_thread(service.render, wanted.model, wanted.image, settings, limiter=network)

    @app.get("/results/{result}/{name}")
    async def download(result: str, name: str) -> Response:
        found = await in_thread(service.download, result, name)
        if found is None:
            return Response("This result is no longer stored here. Move a slider and download again.", 404)
        content, media_type, file_name = found
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "cache-control": "no-store",
        }
        return Response(content, media_type=media_type, headers=headers)

    return app


async def parsed(request: Request, kind: type[B]) -> B:
    """The body of a request.

    Raises:
        ValueError: it is not of this kind; in words for the visitor.
    """
    try:
        return kind.model_validate_json(await read_body(request, CALL_BYTES))
    except ValidationError as error:
        raise ValueError("This request is not understood. Reload the page.") from error


async def in_thread(
    call: Callable[..., T], *arguments: object, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """The call's answer, computed in a thread, so that the server goes on answering."""
    return await anyio.to_thread.run_sync(call, *arguments, limiter=limiter)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        OSError: the port is taken.
    """
    import uvicorn

    uvicorn.run(
        app, host=host, port=port, log_level="warning", limit_concurrency=400, server_header=False, ws="none"
    )
