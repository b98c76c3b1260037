"""Images a second of published models, and what a training step holds, in the rows that others published.

    python benchmarks/throughput.py --device cuda
    python benchmarks/throughput.py --device cpu --threads 2 --repeats 3

MMSegmentation's model zoo gives images a second and training memory of its PointRend models on a V100, the paper's
authors about 13 images a second for the instance model: those are the figures in the column "published". Ours are
measured on the machine at hand, so on another one the two columns do not compare. One image at a time from uint8 to
labels or masks (`predict`), after one that warms up; on a GPU time is taken when it is done. A training step holds
the published images of one GPU, and its peak memory is what is above the memory before the model is built. Weights
are random, and instance models return 100 detections.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from timing import peak_above_rest
from torch import Tensor
from whole_model import build, make_image

from pointrend.models.semantic import SemanticSegmenter
from pointrend.structures import SemanticTarget
from pointrend.training.paper import find_recipe
from pointrend.training.recipe import build_optimizer

STREET, ROOMS = "4xb2-80k_cityscapes-512x1024", "4xb4-160k_ade20k-512x512"
PREDICTED = {
    f"pointrend_r50_{STREET}": ((1024, 2048), 8.48),
    f"pointrend_r101_{STREET}": ((1024, 2048), 7.00),
    f"pointrend_r50_{ROOMS}": ((512, 512), 17.31),
    f"pointrend_r101_{ROOMS}": ((512, 512), 15.50),
    "pointrend_rcnn_R_50_FPN_1x_coco": ((800, 1088), 13.0),
}
"""Rows, columns, and published images a second (one V100; the paper's machine for the last)."""
TRAINED = {
    f"pointrend_r50_{STREET}": (2, (512, 1024), 3.1),
    f"pointrend_r101_{STREET}": (2, (512, 1024), 4.2),
    f"pointrend_r50_{ROOMS}": (4, (512, 512), 5.1),
    f"pointrend_r101_{ROOMS}": (4, (512, 512), 6.1),
}
"""Images of one GPU, rows, columns, and published GB."""


def seconds(model: Any, image: Tensor, repeats: int, device: torch.device) -> list[float]:
    """Of each prediction, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        model.predict([image])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return times[1:]


def predictions(names: list[str], arguments: argparse.Namespace, device: torch.device) -> None:
    print("| model | image | way | images a second | lowest to highest | published |")
    print("| --- | --- | --- | ---: | --- | ---: |")
    for name in names:
        size, published = PREDICTED[name]
        size = scaled(size, arguments.scale)
        model = build(name, detections=100).to(device)
        ways = {"default": model, "optimized": model.optimize(), "bfloat16": model.optimize("bfloat16")}
        for way, one in ways.items():
            rates = sorted(1 / each for each in seconds(one, make_image(size), arguments.repeats, device))
            spread = f"{rates[0]:.2f}-{rates[-1]:.2f}"
            print(
                f"| {name} | {size[0]}x{size[1]} | {way} | {statistics.median(rates):.2f} | {spread} | {published} |",
                flush=True,
            )


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return round(size[0] * scale / 32) * 32, round(size[1] * scale / 32) * 32


def step(name: str, size: tuple[int, int], images: int, device: torch.device) -> None:
    """Build a model and its optimizer, and take one step."""
    published = find_recipe(name)
    config = published.network
    model = SemanticSegmenter(replace(config, preprocessing=replace(config.preprocessing, short_edge=None)))  # type: ignore[arg-type]
    model.to(device).train()
    optimizer = build_optimizer(model, published.recipe)
    labels = torch.randint(0, model.config.num_classes, (size[0] // 32, size[1] // 32), dtype=torch.uint8)
    target = SemanticTarget(labels.repeat_interleave(32, 0).repeat_interleave(32, 1))
    sum(model.loss([make_image(size)] * images, [target] * images).values()).backward()  # type: ignore[union-attr]
    optimizer.step()


def memory(names: list[str], arguments: argparse.Namespace, device: torch.device) -> None:
    print("\n| model | images of a step | GB | published |\n| --- | --- | ---: | ---: |")
    for name in names:
        images, size, published = TRAINED[name]
        size = scaled(size, arguments.scale)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            step(name, size, images, device)
            peak = torch.cuda.max_memory_allocated(device)
        else:
            peak = peak_above_rest(lambda: step(name, size, images, device))  # noqa: B023  (called at once)
        print(f"| {name} | {images} of {size[0]}x{size[1]} | {peak / 1e9:.1f} | {published} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(PREDICTED), default=list(PREDICTED))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of the images' sides, for a quick look")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    predictions(arguments.models, arguments, device)
    memory([name for name in arguments.models if name in TRAINED], arguments, device)


if __name__ == "__main__":
    main()
