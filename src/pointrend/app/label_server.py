"""The labelling page's web application. Needs FastAPI; no route takes a path."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from pointrend.app.label_session import LabelSession
from pointrend.app.server import Body, in_thread, page_app, parsed
from pointrend.formats.records import MAX_POINTS

STATIC = {
    "": ("label.html", "text/html"),
    "label.css": ("label.css", "text/css"),
    "app.css": ("app.css", "text/css"),
    "label.js": ("label.js", "text/javascript"),
}
"""Path -> file of the page, and its media type."""


class Answer(Body):
    """Labels of an object: all of them, or to be kept, the first."""

    object: int | str
    labels: list[int] = Field(max_length=MAX_POINTS)
    seconds: float = Field(ge=0, lt=1e6)


class Skip(Body):
    """No such object."""

    object: int | str


class Box(Body):
    """A box that was drawn."""

    image: int
    box: list[float] = Field(min_length=4, max_length=4)
    category: str


class Finish(Body):
    """No further box on this image."""

    image: int


def build_label_app(session: LabelSession, *, hosts: Collection[str] | None = None) -> FastAPI:
    """The web application; `hosts` as of `RequestFilter`."""
    app = page_app(STATIC, hosts)

    @app.exception_handler(OSError)
    async def unwritten(request: Request, error: OSError) -> Response:
        return JSONResponse({"error": f"{session.out} cannot be written: {error.strerror or error}."}, 500)

    @app.get("/task")
    async def task() -> dict[str, object]:
        return await in_thread(session.task)

    @app.get("/images/{place}")
    async def image(place: int) -> Response:
        content = await in_thread(session.image, place)
        if content is None:
            return Response("no such image", 404)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    @app.post("/answer")
    async def answer(request: Request) -> dict[str, object]:
        given = await parsed(request, Answer)
        await in_thread(session.answer, given.object, given.labels, given.seconds)
        return await in_thread(session.task)

    @app.post("/keep")
    async def keep(request: Request) -> dict[str, object]:
        given = await parsed(request, Answer)
        await in_thread(session.keep, given.object, given.labels, given.seconds)
        return {}

    @app.post("/skip")
    async def skip(request: Request) -> dict[str, object]:
        await in_thread(session.skip, (await parsed(request, Skip)).object)
        return await in_thread(session.task)

    @app.post("/undo")
    async def undo() -> dict[str, object]:
        await in_thread(session.undo)
        return await in_thread(session.task)

    @app.post("/boxes")
    async def add_box(request: Request) -> dict[str, object]:
        given = await parsed(request, Box)
        await in_thread(session.add_box, given.image, given.box, given.category)
        return await in_thread(session.task)

    @app.post("/finish")
    async def finish(request: Request) -> dict[str, object]:
        await in_thread(session.finish_image, (await parsed(request, Finish)).image)
        return await in_thread(session.task)

    return app
