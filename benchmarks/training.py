"""What one training step costs: seconds for data, forward, backward and update, peak memory, PointRend's share.

    python benchmarks/training.py --out runs/training-speed

R50-FPN Mask R-CNN at 800x1088 with PointRend, with its coarse head alone and with the 4x conv head; SemanticFPN at
512x1024 with and without PointRend. Weights are random, so boxes count as positive from a small overlap on: the mask
head then sees its full 128 boxes an image, as late in a training. Each variant runs in a process of its own, so that
peak memory is its own; variants take turns, --rounds times, and numbers are medians with the least and the most.
PointRend's share is what a step takes longer than with the coarse head alone; "head" is the part of the forward pass
that is spent in the loss of the mask or point head. With --processor-time seconds are those that the process had a
core, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
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
from pointrend.models.devices import peak_memory
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training.data_loading import TrainingLoader
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
    return InstanceSegmenter(InstanceConfig(names, network, mask_head=variant, freeze_stages=2, boxes=boxes))  # type: ignore[arg-type]


class Clock:
    """Seconds spent in each part, one number for each time; waits for the GPU where there is one."""

    def __init__(self, device: torch.device, *, processor: bool = False) -> None:
        self.device = device
        self.now = time.process_time if processor else time.perf_counter
        self.seconds: dict[str, list[float]] = {part: [] for part in (*PARTS, "head")}

    def measure(self, part: str, work: Callable[[], Any]) -> Any:
        self._wait()
        started = self.now()
        result = work()
        self._wait()
        self.seconds[part].append(self.now() - started)
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
    clock = Clock(device, processor=arguments.processor_time)

    def timed(inner: Callable[..., Any]) -> Callable[..., Any]:
        def loss(features: Any, targets: Any, *rest: Any, **more: Any) -> Any:
            regions.append(len(targets.regions) if task == "instance" else 0)
            return clock.measure("head", lambda: inner(features, targets, *rest, **more))

        return loss

    if task == "instance":
        model.mask_head.loss = timed(model.mask_head.loss)
    elif model.point_rend is not None:
        model.point_rend.loss = timed(model.point_rend.loss)

    def step() -> None:
        images, targets, _ = clock.measure("data", lambda: next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            losses = clock.measure("forward", lambda: model.loss(images, targets))
        clock.measure("backward", lambda: sum(losses.values()).backward())
        clock.measure("update", optimizer.step)
        optimizer.zero_grad()

    for _ in range(1 + arguments.steps):  # the first one warms up: buffers, algorithms
        step()
    return {
        "task": task,
        "variant": variant,
        "size": [height, width],
        "seconds": {part: found[1:] for part, found in clock.seconds.items()},
        "peak_gib": peak_memory(device) / 2**30,
        "boxes_with_masks": sum(regions) / max(1, len(regions)) if task == "instance" else 0,
    }


def total(row: dict[str, Any]) -> float:
    """Seconds of a step, the median."""
    return statistics.median(map(sum, zip(*(row["seconds"][part] for part in PARTS), strict=True)))


def joined(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The same variant, several times, as one row."""
    seconds = {part: [s for row in rounds for s in row["seconds"][part]] for part in rounds[0]["seconds"]}
    return {**rounds[0], "seconds": seconds, "peak_gib": max(row["peak_gib"] for row in rounds)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, with the share of a step that each head adds to the coarse head's."""
    lines = [
        "| model | step | data | forward | of it head | backward | update | peak GiB | more than coarse |"
    ]
    lines.append("| --- |" + " ---: |" * 8)
    coarse = {row["task"]: total(row) for row in rows if row["variant"] == "coarse"}
    for row in rows:
        more = f"{100 * (1 - coarse[row['task']] / total(row)):.1f} %" if row["task"] in coarse else ""
        order = ("data", "forward", "head", "backward", "update")
        parts = " | ".join(spread(row["seconds"][part]) for part in order)
        name = f"{row['task']}, {row['variant']}, {row['size'][0]}x{row['size'][1]}"
        lines.append(f"| {name} | {total(row):.2f} s | {parts} | {row['peak_gib']:.2f} | {more} |")
    return "\n".join(lines)


def spread(seconds: list[float]) -> str:
    """Such as "1.20 s (1.10 to 1.30)"; a dash where nothing was measured."""
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.3g} s ({min(seconds):.3g} to {max(seconds):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=VARIANTS, default=tuple(VARIANTS))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="of each process, after one that warms up")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each variant, in turns")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="of the images' sides, for a quick look")
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
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    wanted = [(task, variant) for task in arguments.tasks for variant in VARIANTS[task]]
    for _ in range(arguments.rounds):
        for task, variant in wanted:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", task, variant]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(f"{task}, {variant}: {answer.stderr}")
            found.setdefault((task, variant), []).append(json.loads(answer.stdout.splitlines()[-1]))
            print(answer.stdout.splitlines()[-1], flush=True)
    rows = [joined(rounds) for rounds in found.values()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available() and not arguments.cpu
        else f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    )
    given = {name: str(value) for name, value in vars(arguments).items()}
    result = {"machine": machine, "torch": torch.__version__, "arguments": given, "rows": rows}
    (arguments.out / "training.json").write_text(json.dumps(result, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
