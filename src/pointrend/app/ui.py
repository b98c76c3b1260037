"""The page itself: components, and which of the desk's functions each of them calls. Needs gradio.

Nothing is drawn or computed here. What gradio has no component for (the drop zone, the image that tells what lies
under the pointer) are the HTML, CSS and JavaScript files in `static`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, TypeVar

# Before the import: gradio would ask for its newest version and report its use.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from gradio.themes.base import Base

from pointrend.app.service import Controls, Desk, examples
from pointrend.app.types import Range, Settings
from pointrend.app.uploads import shrink
from pointrend.app.views import data_uri
from pointrend.visualize import as_image

T = TypeVar("T")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
INTRO = """# PointRend
A mask is predicted coarsely and upsampled step by step; only points in doubt are computed anew. Slide and watch."""


def build_page(desk: Desk, *, waiting: int = 24) -> gr.Blocks:
    """The page, its queue `waiting` calls long; a visitor who comes when it is full is told to try again."""
    first = examples()[0]
    with gr.Blocks(title="PointRend", analytics_enabled=False) as page:
        gr.Markdown(INTRO, elem_id="intro")
        with gr.Column(elem_id="desk"):
            limits = {"most_bytes": desk.limits.bytes, "most_megabytes": desk.limits.megabytes}
            source = drawn_by("source", first, examples=thumbnails(desk), **limits)
            viewer, facts = drawn_by("viewer"), drawn_by("facts")
            with gr.Column(elem_id="controls"):
                model = gr.Dropdown(
                    desk.shelf.names,
                    value=desk.shelf.names[0],
                    label="Model",
                    info="the embedded ones know generated shapes only",
                    filterable=False,
                    elem_id="model",
                )
                side = gr.Slider(1, 1024, 1, step=1, elem_id="side", label="Output resolution")
                points = gr.Slider(1, 1024, 1, step=1, elem_id="points", label="Points in each step")
                score = gr.Slider(
                    0, 1, 0.5, step=0.05, elem_id="score", label="Least score", visible=False,
                    info="objects below it are left out",
                )  # fmt: skip

        def start(ticket: str, name: str, least_score: float) -> list[Any]:
            controls = told(desk.controls, name, ticket)
            settings = Settings(controls.sides.start, controls.counts.start, least_score)
            return [*sliders(controls), *halves(told(desk.show, name, ticket, settings))]

        def slide(ticket: str, name: str, side: float, points: float, least_score: float) -> list[Any]:
            return halves(told(desk.show, name, ticket, Settings(round(side), round(points), least_score)))

        shown: dict[str, Any] = {
            "show_progress": "minimal",
            "concurrency_id": "network",
            "api_visibility": "private",
        }
        begin = {
            "fn": start,
            "inputs": [source, model, score],
            "outputs": [side, points, score, viewer, facts],
            **shown,
        }
        page.load(**begin)
        source.image(**begin, trigger_mode="always_last")
        model.input(**begin, trigger_mode="always_last")
        # Of many movements only the last one counts: nothing piles up while a slider is dragged.
        for slider in (side, points, score):
            slider.input(
                slide,
                [source, model, side, points, score],
                [viewer, facts],
                trigger_mode="always_last",
                **shown,
            )
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)
    return page


def drawn_by(name: str, value: Any = None, **options: Any) -> gr.HTML:
    """A component of ours: NAME.html, filled by NAME.js with the value and these options."""
    return gr.HTML(
        value,
        html_template=static(f"{name}.html"),
        js_on_load=static(f"{name}.js"),
        apply_default_css=False,
        elem_id=name,
        **options,
    )


def look() -> dict[str, Any]:
    """Theme and style, for `mount_gradio_app`: the system's own fonts, nothing from elsewhere."""
    return {"theme": Base(primary_hue="indigo", font=FONTS, font_mono=MONO), "css": static("page.css")}


def told(call: Callable[..., T], *arguments: Any) -> T:
    """The call's answer; what it refuses with a ValueError is shown to the visitor."""
    try:
        return call(*arguments)
    except ValueError as error:
        raise gr.Error(str(error), duration=12, print_exception=False) from error


def halves(shown: dict[str, Any]) -> list[Any]:
    """What `Desk.show` says, in two parts: for the image, and for what is written beside it."""
    imaged = ("panels", "hover", "summary")
    return [{key: shown[key] for key in imaged}, {k: v for k, v in shown.items() if k not in imaged}]


def sliders(controls: Controls) -> list[Any]:
    """Updates of the three sliders for a model and an image."""
    cells = "cells along each side of a box" if controls.objects else "cells along the longer side"
    points = "in each box" if controls.objects else "where most in doubt"
    return [
        slider(controls.sides, f"{cells}; the model's own: {controls.sides.own}"),
        slider(controls.counts, f"{points}; the model's own: {controls.counts.own}"),
        gr.Slider(visible=controls.objects),
    ]


def slider(values: Range, info: str) -> gr.Slider:
    """A slider over these values."""
    return gr.Slider(values.least, values.most, values.start, step=values.step, info=info)


def thumbnails(desk: Desk) -> Sequence[dict[str, str]]:
    """The examples as small images."""
    uploads = [(ticket, desk.image(ticket)) for ticket in examples()]
    return [
        {
            "ticket": ticket,
            "name": upload.name.removesuffix(".png"),
            "source": data_uri(as_image(shrink(upload.image, 144)), quality=80),
        }
        for ticket, upload in uploads
    ]


def static(name: str) -> str:
    """A text file that comes with this package."""
    return (resources.files("pointrend.app") / "static" / name).read_text(encoding="utf-8")
