"""The first updates of every published training: do its losses fall, and stay finite?

    python benchmarks/recipes.py --out runs/recipes
    python benchmarks/recipes.py --out runs/recipes-full --full --names pointrend_rcnn_R_50_FPN_1x_coco

Batch, learning rates with their warm-up, momentum, weight decay, points, frozen norms and the order of the images'
changes are the recipe's own. Images and crops are a tenth as large, of generated scenes; the network has its own
structure with a ResNet-18 from random weights and few channels, or all of its own with --full.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointrend.checkpoints.native import build
from pointrend.data.annotations import PlacedObjects, PlacedPoints
from pointrend.data.sample_points import place_points
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import Compose, RandomCrop, RandomFit, ResizeShortEdge, movable
from pointrend.formats.records import PointLabels
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig
from pointrend.structures import Sample
from pointrend.training.config import TrainingConfig
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loggers import MEASURES
from pointrend.training.loop import train
from pointrend.training.paper import TRAININGS as RECIPES

SCENE = (72, 96)
PIXELS = (58.395, 57.12, 57.375)


def small(published: TrainingConfig, names: tuple[str, ...]) -> Any:
    """The network with fewer channels, everything else alike."""
    config = published.config(names)
    backbone = replace(config.backbone, name="resnet18", stride_in_1x1=False, stem_width=32)
    pixels = replace(config.preprocessing, std=PIXELS)  # random weights want small numbers
    config = replace(config, backbone=backbone, preprocessing=pixels, fpn_channels=16)
    if isinstance(config, InstanceConfig):
        masks = replace(config.masks, width=16, coarse_width=16)
        boxes = BoxHeadConfig(width=32, samples=32)
        # Frozen random weights are no features.
        return replace(config, masks=masks, boxes=boxes, freeze_stages=0)
    if config.point_rend is None:
        return replace(config, decoder_channels=16)
    rend = replace(config.point_rend, width=16, sampling=replace(config.point_rend.sampling, num_points=64))
    return replace(config, decoder_channels=16, point_rend=rend)


def shrunk(step: Any) -> Any:
    """The same change of images a tenth as large."""
    if isinstance(step, ResizeShortEdge):
        return ResizeShortEdge([round(size / 10) for size in step.sizes], step.longest and step.longest // 10)
    if isinstance(step, RandomCrop):
        return replace(step, height=64, width=64)
    if isinstance(step, RandomFit):
        return replace(step, long=200, short=100)
    return step


def with_points(sample: Sample) -> Sample:
    """The sample with ten labelled points of each object, as PointSup's trainings learn from."""
    objects = movable(sample)
    assert isinstance(objects, PlacedObjects)
    points = []
    for shape, (x1, y1, x2, y2) in zip(objects.shapes, objects.boxes, strict=True):
        assert shape is not None
        box = np.array([x1, y1, x2 - x1, y2 - y1])
        places = place_points(box, objects.image_size, torch.rand(10, 2).double().numpy())
        inside = [shape.pixels((y, x, 1, 1))[0, 0] for x, y in places.tolist()]
        points.append(PointLabels(places, np.array(inside, dtype=np.int64)))
    return replace(sample, target=replace(objects, points=PlacedPoints.of(points)))


def first_updates(published: TrainingConfig, steps: int, *, full: bool = False) -> list[float]:
    """The summed loss of each of the first updates, with the recipe's own numbers."""
    recipe = replace(published.recipe, log_every=1, state_every=0)
    first = [with_points] if published.point_labels else []
    changes = Compose([*first, *(shrunk(step) for step in published.augmentation)])
    scenes = ShapeScenes(recipe.batch_size, published.task, size=SCENE, objects=(2, 3), transforms=changes)
    torch.manual_seed(0)
    config = published.config(scenes.class_names) if full else small(published, scenes.class_names)
    if full:
        config = replace(config, preprocessing=replace(config.preprocessing, std=PIXELS))
    model = build(config)
    totals: list[float] = []

    def note(step: int, entry: dict[str, float]) -> None:
        totals.append(sum(value for name, value in entry.items() if name not in MEASURES))

    loader = TrainingLoader(scenes, recipe)
    train(model, loader, recipe, device="cpu", report=note, stop=lambda: len(totals) == steps)  # type: ignore[arg-type]
    return totals


def falls(totals: list[float]) -> bool:
    """Whether all are finite, and the last fifth is less than the first in the mean."""
    fifth = max(1, len(totals) // 5)
    return all(map(math.isfinite, totals)) and sum(totals[-fifth:]) < sum(totals[:fifth])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", choices=RECIPES, default=tuple(RECIPES))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--full", action="store_true", help="with its own backbone and channels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    print(
        "| recipe | batch | learning rates | loss, first fifth | last fifth | |\n"
        "| --- | ---: | --- | ---: | ---: | --- |"
    )
    for name in arguments.names:
        published = RECIPES[name]
        started = time.time()
        rows[name] = totals = first_updates(published, arguments.steps, full=arguments.full)
        fifth = max(1, len(totals) // 5)
        recipe = published.recipe
        rates = [recipe.learning_rate * recipe.factor(step) for step in (0, arguments.steps - 1)]
        print(
            f"| {name} | {recipe.batch_size} | {rates[0]:.2g} to {rates[1]:.2g} | {sum(totals[:fifth]) / fifth:.3f} | "
            f"{sum(totals[-fifth:]) / fifth:.3f} | {'falls' if falls(totals) else 'DOES NOT FALL'} |",
            flush=True,
        )
        (arguments.out / "recipes.json").write_text(json.dumps(rows, indent=1))
        print(f"{name}: {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
