"""The steps of a subdivision as an animated GIF: upsample, choose points, predict there; again, twice as fine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pointrend.core.subdivision import SubdivisionStep
from pointrend.io import atomic_write
from pointrend.visualize.colors import RGBImage
from pointrend.visualize.comparison import Window
from pointrend.visualize.explain import Explanation
from pointrend.visualize.explain_figures import EMPTY, view_of
from pointrend.visualize.figures import extent_of, show
from pointrend.visualize.overlays import draw
from pointrend.visualize.points import color_logits, draw_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def animate_steps(
    explanation: Explanation, *, window: Window | None = None, inches: float = 3.0
) -> list[RGBImage]:
    """Frames (H, W, 3), all of one size: the image beside the prediction, at each moment of the subdivision.

    Three frames for each step (upsampled; the points chosen; predicted there), before them the starting grid and for an
    object its coarse mask, at the end the result on the image.

    Args:
        window: of a whole image, the part that is shown; where the steps change most if not given.
        inches: width of each of the two panels; 100 pixels to the inch.
    """
    from matplotlib.figure import Figure

    view = view_of(explanation, window)
    size = (2 * inches + 0.1, inches * (view[2] - view[3]) / (view[1] - view[0]) + 0.35)
    palette, image = explanation.palette or None, explanation.image
    extent, whole = extent_of(None, explanation.box), extent_of(image, None)

    def frame(
        photo: RGBImage, text: str, grid: RGBImage, step: SubdivisionStep | None = None, *, predicted: str
    ) -> RGBImage:
        figure = Figure(figsize=size, dpi=100)
        panels = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=1 - 0.3 / size[1], wspace=0.02)
        show(panels[0], photo, whole, text)
        show(panels[1], grid, extent, predicted)
        for panel in panels:
            if step is not None:
                draw_points(panel, step, extent, shown=view, inches=inches)
            panel.set(xlim=view[:2], ylim=view[2:], facecolor=EMPTY)
        return _pixels(figure)

    frames = []
    if not explanation.semantic and explanation.coarse is not None:
        rows, columns = explanation.coarse.shape[1:]
        frames.append(
            frame(image, "image", color_logits(explanation.coarse), predicted=f"coarse, {rows}×{columns}")
        )
    rows, columns = explanation.start.shape[1:]
    start = color_logits(explanation.start, palette)
    frames.append(frame(image, "image", start, predicted=f"start, {rows}×{columns}"))
    for step in explanation.steps:
        grid = f"{step.size[0]}×{step.size[1]}"
        before = color_logits(step.upsampled[0], palette)
        after = color_logits(step.logits[0], palette)
        frames.append(frame(image, "image", before, predicted=f"upsampled to {grid}"))
        frames.append(
            frame(image, f"{step.index.shape[1]} points", before, step, predicted=f"upsampled to {grid}")
        )
        frames.append(frame(image, "image", after, predicted=f"predicted there, {grid}"))
    last = color_logits(explanation.grids[-1], palette)
    rows, columns = explanation.grids[-1].shape[1:]
    drawn = draw(image, explanation.result, captions=False)
    frames.append(frame(drawn, explanation.title, last, predicted=f"{rows}×{columns}"))
    return frames


def write_gif(frames: Sequence[RGBImage], path: str | Path, *, seconds: float = 1.1) -> None:
    """Write frames (H, W, 3) of one size as an endless GIF (atomically); the last frame stays twice as long.

    All frames share one palette of 255 colours, so that nothing flickers.

    Raises:
        ValueError: there is no frame.
    """
    if not len(frames):
        raise ValueError("expected at least one frame, got none")
    # A palette from all frames at once: their thumbnails in one tall image.
    tall = np.concatenate([frame[::2, ::2] for frame in frames])
    palette = Image.fromarray(tall).quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [round(1000 * seconds)] * (len(frames) - 1) + [round(2000 * seconds)]
    with atomic_write(path) as unfinished:
        images[0].save(
            unfinished,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=times if len(times) > 1 else times[0],
            loop=0,
        )


def _pixels(figure: Figure) -> RGBImage:
    """The figure as an array (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])
