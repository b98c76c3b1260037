"""What one training step costs: seconds for data, forward, backward and update, peak memory, PointRend's share.

    python benchmarks/training.py --out runs/training-speed

R50-FPN Mask R-CNN at 800x1088 with PointRend, with its coarse head alone and with the 4x conv head; SemanticFPN at
512x1024 with and without PointRend. Weights are random, so boxes count as positive from a small overlap on: the mask
head then sees its full 128 boxes a picture, as late in a training. Each variant runs in a process of its own, so that
peak memory is its own. PointRend's share is what a step takes longer than with the coarse head alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import Compose, RandomFlip, ResizeShortEdge
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training.loading import TrainingLoader
from pointrend.training.recipe import Recipe, build_optimizer

PARTS = ("data", "forward", "backward", "update")
VARIANTS = {
    "instance": ("pointrend", "coarse", "conv28"),
    "semantic": ("pointrend", "coarse"),
}
SIZES = {"instance": (800, 1088), "semantic": (512, 1024)}


def build(task: str, variant: str, names: tuple[str, ...], backbone: str) -> Any:
    network = BackboneConfig(backbone)  # type: ignore[arg-type]
    if task == "semantic":
        rend = SemanticPointRendConfig() if variant == "pointrend" else None
        return SemanticSegmenter(SemanticConfig(names, backbone=network, point_rend=rend))
    boxes = BoxHeadConfig(positive_iou=0.05)
    return InstanceSegmenter(InstanceConfig(names, network, head=variant, freeze_stages=2, boxes=boxes))  # type: ignore[arg-type]


class Clock:
    """Seconds spent in each part; waits for the GPU where there is one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def measure(self, part: str, work: Callable[[], Any]) -> Any:
        self._wait()
        started = time.perf_counter()
        result = work()
        self._wait()
        self.seconds[part] += time.perf_counter() - started
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(arguments: argparse.Namespace, task: str, variant: str) -> dict[str, Any]:
    """One variant, in this process."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() and not arguments.cpu else "cpu")
    height, width = (max(32, int(side * arguments.scale)) for side in SIZES[task])
    changes = Compose([ResizeShortEdge([height], width), RandomFlip()])
    scenes = ShapeScenes(64, task, size=(height, width), objects=(8, 12), transforms=changes)  # type: ignore[arg-type]
    recipe = Recipe(batch_size=arguments.batch)
    batches = TrainingLoader(scenes, recipe).batches()
    model = build(task, variant, scenes.class_names, arguments.backbone).to(device).train()
    optimizer = build_optimizer(model, recipe)
    regions: list[int] = []
    if task == "instance":
        inner = model.mask_head.loss
        model.mask_head.loss = lambda features, boxes, *rest, **more: (
            regions.append(len(boxes)),
            inner(features, boxes, *rest, **more),
        )[1]

    def step(clock: Clock) -> None:
        images, targets, _ = clock.measure("data", lambda: next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            losses = clock.measure("forward", lambda: model.loss(images, targets))
        clock.measure("backward", lambda: sum(losses.values()).backward())
        clock.measure("update", optimizer.step)
        optimizer.zero_grad()

    step(Clock(device))  # warm up: buffers, algorithms
    before = _peak(device)
    clock = Clock(device)
    for _ in range(arguments.steps):
        step(clock)
    seconds = {part: value / arguments.steps for part, value in clock.seconds.items()}
    return {
        "task": task,
        "variant": variant,
        "size": [height, width],
        "seconds": seconds,
        "pictures_per_second": arguments.batch / sum(seconds.values()),
        "peak_gib": max(before, _peak(device)),
        "boxes_with_masks": sum(regions) / max(1, len(regions)),
    }


def _peak(device: torch.device) -> float:
    """GiB: of the GPU's allocator, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, with the share of a step that each head adds to the coarse head's."""
    lines = ["| model | pictures/s | data | forward | backward | update | peak GiB | more than coarse |"]
    lines.append("| --- |" + " ---: |" * 7)
    coarse = {row["task"]: sum(row["seconds"].values()) for row in rows if row["variant"] == "coarse"}
    for row in rows:
        seconds = row["seconds"]
        total = sum(seconds.values())
        more = f"{100 * (total - coarse[row['task']]) / total:.1f} %" if row["task"] in coarse else ""
        parts = " | ".join(f"{seconds[part]:.3f} s" for part in PARTS)
        name = f"{row['task']}, {row['variant']}, {row['size'][0]}x{row['size'][1]}"
        lines.append(
            f"| {name} | {row['pictures_per_second']:.2f} | {parts} | {row['peak_gib']:.2f} | {more} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=VARIANTS, default=tuple(VARIANTS))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the pictures' sides, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", nargs=2, metavar=("TASK", "VARIANT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(measure(arguments, *arguments.one)))
        return
    rows = []
    for task in arguments.tasks:
        for variant in VARIANTS[task]:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", task, variant]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(f"{task}, {variant}: {answer.stderr}")
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available() and not arguments.cpu
        else f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    )
    result = {"machine": machine, "torch": torch.__version__, "batch": arguments.batch, "rows": rows}
    (arguments.out / "training.json").write_text(json.dumps(result, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
