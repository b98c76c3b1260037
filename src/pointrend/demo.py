"""The three-minute demo: train on generated scenes, compare coarse with refined, draw what happened.

Everything comes from the package itself: scenes with exact outlines (`data.shapes`), a small SemanticFPN whose coarse
prediction has stride 8, PointRend on top, the ordinary training loop, evaluators and images. The numbers compare one
and the same network with and without its point head: coarse logits interpolated to the image's size, against
subdivision. Scenes of the test have other numbers than those of the training and are never trained on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

from pointrend.checkpoints.native import save
from pointrend.cli.console import counting, training
from pointrend.core.selection import PointSampling
from pointrend.core.subdivision import SubdivisionStep, share_predicted, subdivision_sizes
from pointrend.data.image_io import build_loader
from pointrend.data.shapes import ShapeScenes
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.report import Scores, gain, to_json
from pointrend.io import write_text
from pointrend.models.backbones import BackboneConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import Sample, SemanticTarget
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe
from pointrend.visualize import (
    color_labels,
    draw_chosen,
    enlarge,
    largest_differences,
    plot_steps,
    save_figure,
    side_by_side,
    traced_box,
)

TEST_SCENES = 1_000_000  # number of the first scene that is held out
SHOWN = {  # score -> what the table calls it
    "mIoU": "mIoU",
    "mIoU@1px": "mIoU, 1 px about boundaries",
    "mIoU@3px": "mIoU, 3 px about boundaries",
    "boundary IoU": "boundary IoU",
}


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does, and for how long."""

    minutes: float = 3.0
    """Time for the training, at most."""
    out: Path = Path("runs/demo")
    """Folder for the model, the images and the scores."""
    seed: int = 0
    steps: int = 300
    """Updates, where the time suffices."""
    batch_size: int = 8
    scenes: int = 256
    """Different scenes to train on, each seen mirrored in four ways."""
    held_out: int = 32
    """Scenes to score on."""
    size: tuple[int, int] = (144, 192)
    """Height and width of the scenes in pixels."""
    images: int = 3
    """Scenes to draw."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ValueError(f"minutes: expected a positive time for training, got {self.minutes}")


def run(settings: DemoSettings) -> list[Scores]:
    """Do it all; returns the scores of the coarse prediction and of PointRend on the held-out scenes."""
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    console.print(
        "PointRend demo: a small network learns to label generated scenes, at first coarsely (stride 8)."
    )
    with counting("drawing scenes", settings.scenes) as progress:
        scenes = MirroredScenes(settings, progress)
    model = build_model(scenes.source, settings.seed)
    steps, minutes = train_in_time(model, scenes, settings)
    save(
        model,
        settings.out / "model.safetensors",
        extra={"data": "shapes", "seed": settings.seed, "steps": steps},
    )
    if steps < settings.steps:
        console.print(f"The time was enough for {steps} of {settings.steps} steps; --minutes gives more.")
    held_out = ShapeScenes(settings.held_out, first=TEST_SCENES, seed=settings.seed, size=settings.size)
    with counting("scoring", len(held_out)) as progress:
        rows = evaluate_semantic(
            model,
            held_out,
            {"coarse, interpolated": {"refine": False}, "with PointRend": {}},
            progress=progress,
        )
    write_text(settings.out / "scores.json", to_json(rows))
    images = draw_images(model, held_out, settings)
    output = Console(highlight=False, soft_wrap=True)
    output.print(
        gains(rows, title=f"{len(held_out)} scenes never trained on, {steps} steps in {minutes:.1f} min")
    )
    output.print(*what_next(settings, model, images), sep="\n")
    console.print(f"{(time.monotonic() - started) / 60:.1f} minutes in all.")
    return rows


class MirroredScenes(Dataset[Sample]):
    """Generated scenes, drawn once and kept, each time mirrored at random along either axis."""

    def __init__(self, settings: DemoSettings, progress: Callable[[int, int], None]) -> None:
        self.source = ShapeScenes(settings.scenes, seed=settings.seed, size=settings.size)
        self.samples = []
        for number in range(len(self.source)):
            self.samples.append(self.source[number])
            progress(number + 1, len(self.source))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        axes = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
        return replace(
            sample, image=sample.image.flip(axes), target=SemanticTarget(sample.target.labels.flip(axes))
        )


def build_model(data: ShapeScenes, seed: int) -> SemanticSegmenter:
    """A small SemanticFPN on P3 to P5, so that its own prediction has an eighth of the image's resolution."""
    torch.manual_seed(seed)
    return SemanticSegmenter(
        SemanticConfig(
            data.class_names,
            data.palette,
            backbone=BackboneConfig("resnet18", norm="batch"),
            levels=("p3", "p4", "p5"),
            fpn_channels=64,
            decoder_channels=64,
            point_rend=SemanticPointRendConfig(
                features=("p2", "coarse", "stem"),
                width=128,
                residual=True,
                sampling=PointSampling(1024),
                num_points=512,
            ),
        )
    )


def train_in_time(
    model: SemanticSegmenter, data: MirroredScenes, settings: DemoSettings
) -> tuple[int, float]:
    """Train for the settings' steps, or as many as their minutes allow here; returns steps and minutes."""
    loader = build_loader(data, min(settings.batch_size, len(data)), seed=settings.seed)
    seconds = 60 * settings.minutes
    steps = max(1, min(settings.steps, int(0.9 * seconds / seconds_per_step(model, data, settings))))
    recipe = Recipe(
        steps=steps,
        batch_size=settings.batch_size,
        optimizer="adamw",
        learning_rate=2e-3,
        warmup_steps=min(20, steps // 10),
        clip_gradient=5.0,
        seed=settings.seed,
    )
    started = time.monotonic()
    done = 0

    with training(steps) as bar:

        def report(step: int, entry: Mapping[str, float]) -> None:
            nonlocal done
            done = step
            bar(step, entry)

        # The schedule was fitted to the time; the clock only ends a machine that became much slower meanwhile.
        train(
            model,
            loader,
            recipe,
            report=report,
            stop=lambda: time.monotonic() - started > seconds,
            device="cpu",
        )
    model.eval()
    return done, (time.monotonic() - started) / 60


def seconds_per_step(model: SemanticSegmenter, data: MirroredScenes, settings: DemoSettings) -> float:
    """How long one update takes here: the faster of two, after one to warm up, on a copy and with other numbers."""
    trial = copy.deepcopy(model).train()
    samples = data.samples[: settings.batch_size]
    times = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            started = time.perf_counter()
            losses = trial.loss([sample.image for sample in samples], [sample.target for sample in samples])
            torch.stack(list(losses.values())).sum().backward()
            times.append(time.perf_counter() - started)
    return min(times[1:])


def gains(rows: list[Scores], *, title: str) -> Table:
    """The scores as a table with a line for each, in per cent, and the difference."""
    coarse, refined = rows
    table = Table(title=title, title_justify="left")
    table.add_column("per cent", no_wrap=True)
    for row in (coarse, refined, gain(coarse, refined, name="gained")):
        table.add_column(row.name, justify="right", style="bold" if row.name == "gained" else "")
    for key, name in SHOWN.items():
        before, after = coarse.numbers[key], refined.numbers[key]
        table.add_row(name, f"{100 * before:.1f}", f"{100 * after:.1f}", f"{100 * (after - before):+.1f}")
    return table


def draw_images(model: SemanticSegmenter, scenes: ShapeScenes, settings: DemoSettings) -> list[Path]:
    """Draw the held-out scenes of which most was gained; returns the files."""
    gained = []
    for number in range(len(scenes)):
        sample = scenes[number]
        coarse, refined = (model.predict([sample.image], refine=refine)[0].labels for refine in (False, True))
        truth = sample.target.labels
        gained.append(int((refined == truth).sum() - (coarse == truth).sum()))
    best = sorted(range(len(scenes)), key=lambda number: -gained[number])[: settings.images]
    files = []
    for place, number in enumerate(best, start=1):
        for name, figure in draw_scene(model, scenes[number]).items():
            files += save_figure(figure, settings.out / f"scene{place}-{name}", formats=("png",))
    return files


def draw_scene(model: SemanticSegmenter, sample: Sample, *, scale: int = 4) -> dict[str, Figure]:
    """Two figures: the predictions side by side and magnified, and every step of the subdivision."""
    trace: list[SubdivisionStep] = []
    coarse = model.predict([sample.image], refine=False)[0]
    refined = model.predict([sample.image], trace=trace)[0]
    truth, palette = sample.target.labels, refined.palette
    box = traced_box(sample.image, model.config.preprocessing)
    side = min(48, *truth.shape)
    windows = largest_differences(coarse.labels, refined.labels, truth=truth, size=side, count=2)
    panels = {
        "image": enlarge(sample.image, scale),
        "coarse, interpolated": enlarge(color_labels(coarse.labels, palette), scale),
        "points computed anew": draw_chosen(sample.image, trace, box=box, scale=scale),
        "with PointRend": enlarge(color_labels(refined.labels, palette), scale),
        "truth": enlarge(color_labels(truth, palette), scale),
    }
    windows = [window.scaled(scale) for window in windows]
    compared = side_by_side(panels, windows=windows, names=refined.class_names, colors=palette, width=2.4)
    return {"compared": compared, "steps": plot_steps(trace, image=sample.image, box=box, palette=palette)}


def what_next(settings: DemoSettings, model: SemanticSegmenter, images: list[Path]) -> list[str]:
    """Where things are, and commands to go on with."""
    assert model.point_rend is not None
    height, width = settings.size
    sizes = subdivision_sizes((-(-height // 8), -(-width // 8)), settings.size)
    share = share_predicted(sizes, model.point_rend.num_points)
    checkpoint = settings.out / "model.safetensors"
    return [
        f"The point head was evaluated at {share:.0%} as many points as the image has pixels.",
        "",
        f"Look at   {images[0] if images else settings.out}   and the others beside it.",
        f"Then try  pointrend predict YOUR_IMAGES --model {checkpoint}",
        "          pointrend train --data YOUR_FOLDER     (pointrend train --help says what it may hold)",
        "or put PointRend on your own network: examples/refine_your_segmenter.py",
    ]
