"""The demo: the bundled model on the bundled photographs, without and with PointRend, in less than a minute."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from pointrend.core.subdivision import SubdivisionStep, share_predicted
from pointrend.data.class_table import ClassTable
from pointrend.data.image_io import read_image
from pointrend.data.label_folders import SemanticFolder
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.report import Scores, gain, to_json
from pointrend.io import write_text
from pointrend.models.semantic import SemanticSegmenter
from pointrend.predict import Predictor
from pointrend.samples import SAMPLES
from pointrend.visualize import (
    as_image,
    draw_chosen,
    draw_labels,
    enlarge,
    largest_differences,
    save_figure,
    side_by_side,
    traced_box,
)
from pointrend.visualize.colors import RGBImage
from pointrend.zoo import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL = "photo-semantic"
SHOWN = ("mIoU", "mIoU@1px", "mIoU@3px", "boundary IoU")
"""Scores in the table."""
SCALE = 2
"""Pixels of a figure for each pixel of the photograph."""


@dataclass(frozen=True)
class Timing:
    """One photograph through the model."""

    name: str
    size: tuple[int, int]
    """Rows and columns."""
    coarse_seconds: float
    """Without points."""
    seconds: float
    """With points."""
    share: float
    """Point predictions in all steps over the pixels that the network sees."""


def run(out: Path, *, device: str = "cpu") -> list[Scores]:
    """Predict, draw, score and print; returns the scores without and with points.

    Writes OUT/NAME.png, a figure of each photograph, and OUT/scores.json. Uses one thread: on a busy machine, threads
    that wait for one another take many times as long.

    Raises:
        ValueError: a device that cannot be used.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(out, device)
    finally:
        torch.set_num_threads(threads)


def _run(out: Path, device: str) -> list[Scores]:
    started = time.perf_counter()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    model = cast("SemanticSegmenter", load(MODEL))
    Predictor(model, device=device)  # moves it there
    console.print(f"{MODEL}, a model of {len(model.config.class_names)} classes, on one thread:")
    for name, (path, _) in SAMPLES.items():
        timing, figure = predict_and_draw(model, name, path)
        save_figure(figure, out / name, formats=("png",))
        console.print(
            f"  {name}, {timing.size[1]}x{timing.size[0]}: {timing.coarse_seconds:.2f} s coarse, "
            f"{timing.seconds:.2f} s with points at {timing.share:.0%} of the pixels -> {out / name}.png"
        )
    rows = evaluate(model)
    write_text(out / "scores.json", to_json(rows))
    console.print(gains_table(rows))
    console.print(
        "The labels are COCO's polygons, which are a few pixels coarse themselves; docs/results.md has finer ones.",
        f"{time.perf_counter() - started:.0f} seconds in all. Next:",
        "  pointrend predict YOUR_IMAGES --model photo-semantic        # overlays and label PNGs",
        f"  pointrend explain YOUR_IMAGE --model {MODEL}          # features, points and every step",
        "  pointrend app                                               # in the browser (pip install 'pointrend[app]')",
        "  pointrend train --data shapes --steps 300 --out runs/shapes # train a model of your own",
        sep="\n",
    )
    return rows


def predict_and_draw(model: SemanticSegmenter, name: str, path: Path) -> tuple[Timing, Figure]:
    """Time a photograph without and with points, and draw it: the photograph, the coarse prediction, the points and the
    prediction with points, magnified below where the two differ most.
    """
    image, trace = read_image(path), list[SubdivisionStep]()
    start = time.perf_counter()
    coarse = model.predict([image], refine=False)[0].labels.cpu()
    middle = time.perf_counter()
    refined = model.predict([image])[0].labels.cpu()
    end = time.perf_counter()
    model.predict([image], trace=trace)
    assert model.point_rend is not None
    share = share_predicted([step.size for step in trace], model.point_rend.num_points)
    height, width = image.shape[1:]
    large = as_image(Image.fromarray(as_image(image)).resize((SCALE * width, SCALE * height)))

    def overlay(labels: torch.Tensor) -> RGBImage:
        return draw_labels(large, enlarge(labels.numpy(), SCALE), model.config.palette)

    panels = {
        "photograph": large,
        "coarse, interpolated": overlay(coarse),
        f"points, {share:.0%} of the pixels": draw_chosen(
            image, trace, box=traced_box(image, model.config.preprocessing), scale=SCALE
        ),
        "with PointRend": overlay(refined),
    }
    windows = largest_differences(coarse, refined, size=min(height, width) // 5, count=2)
    figure = side_by_side(panels, windows=[window.scaled(SCALE) for window in windows], width=4.0)
    return Timing(name, (height, width), middle - start, end - middle, share), figure


def evaluate(model: SemanticSegmenter) -> list[Scores]:
    """Both predictions against the label maps of the photographs."""
    pairs = [(sample.image, sample.labels) for sample in SAMPLES.values()]
    data = SemanticFolder(pairs, ClassTable(model.config.class_names, model.config.palette))
    return evaluate_semantic(model, data, {"coarse, interpolated": {"refine": False}, "with PointRend": {}})


def gains_table(rows: list[Scores]) -> Table:
    """The scores as a table with a line for each, in per cent, and the difference."""
    coarse, refined = rows
    table = Table(title=f"{len(SAMPLES)} photographs", title_justify="left")
    table.add_column("per cent", no_wrap=True)
    for row in (coarse, refined, gain(coarse, refined, name="gained")):
        table.add_column(row.name, justify="right", style="bold" if row.name == "gained" else "")
    for key in SHOWN:
        before, after = 100 * coarse.numbers[key], 100 * refined.numbers[key]
        table.add_row(key, f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}")
    return table
