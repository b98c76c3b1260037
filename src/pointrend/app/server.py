"""The web application: the page, a way in for images, a way out for results, all behind the gate. Needs gradio.

Images come in by a route of ours that keeps them in memory, and results go out by another, so that neither side needs
files: gradio's own upload and file routes stay shut.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pointrend.app.request_filter import App, Gate
from pointrend.app.service import BusyError, Desk
from pointrend.app.ui import build_page, look

ARRIVING = 16
"""Files on their way at the same time: each takes memory before it is complete."""


def build_app(desk: Desk, *, waiting: int = 24, hosts: frozenset[str] | None = None) -> App:
    """The whole web application.

    Args:
        waiting: calls in the queue.
        hosts: names under which the page may be asked for; any, if not given. A page of somebody else's that makes
            its own name point to this computer is turned away by this.
    """
    arriving = asyncio.Semaphore(ARRIVING)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.post("/image")
    async def image(request: Request) -> Response:
        if arriving.locked():
            return JSONResponse({"error": "Busy: many images are arriving. Try again in a few seconds."}, 503)
        async with arriving:
            return await received(request)

    async def received(request: Request) -> Response:
        content = bytearray()
        try:
            count = 0
            async for part in request.stream():
                count += len(part)
                # Of what is too large the rest is read and dropped: a client that still sends does not hear an answer.
                if count > 4 * desk.limits.bytes:
                    break
                if count <= desk.limits.bytes:
                    content += part
            desk.limits.check_size(count)
            name = unquote(request.headers.get("x-file-name", ""))[:200]
            ticket = await run_in_threadpool(desk.accept, bytes(content), name)
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "3"})
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"ticket": ticket})

    @app.get("/result/{ticket}/{name}")
    def result(ticket: str, name: str) -> Response:
        found = desk.download(ticket, name)
        if found is None:
            return Response("This result is no longer kept here. Move a slider and download again.", 404)
        content, media_type, file_name = found
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "cache-control": "no-store",
        }
        return Response(content, media_type=media_type, headers=headers)

    page = build_page(desk, waiting=waiting)
    closed: dict[str, Any] = {
        "allowed_paths": [],
        "blocked_paths": ["/"],
        "max_file_size": 1,
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
    }
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], show_error=True, ssr_mode=False, pwa=False, **closed, **look()
    )
    return Gate(app, hosts)


def serve(app: App, host: str, port: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        OSError: the port is taken.
    """
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", limit_concurrency=400, server_header=False)
