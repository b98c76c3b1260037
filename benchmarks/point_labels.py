"""Labelled points against masks, everything else equal: mask AP of the same detector after the same updates.

    python benchmarks/point_labels.py --data ../shared/data --set fruits --batch 2 --size 256 --out runs/points

Trains Mask R-CNN on an ImageNet-pretrained MobileNetV2-FPN, from masks and from points that are drawn from them (as
PointSup's were), and scores each on the validation images, with their masks. Scores go to OUT/scores.json, in percent;
`--table` prints them. The models stay in OUT/LABELS-SEED, for true_boxes.py.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from instances import SETS, build, held_out_images, options, recipe, score, training_images
from runs import print_progress

from pointrend.checkpoints.native import save
from pointrend.data.coco import CocoInstances
from pointrend.data.sample_points import write_points
from pointrend.data.transforms import Compose, SamplePoints
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train

RUNS = (
    "conv28 masks",
    "conv28 points 1",
    "conv28 points 5",
    "conv28 points 10",
    "conv28 points 10 aug 5",
    "conv28 points 20",
    "residual masks",
    "residual points 10",
    "residual points 10 aug 5",
)
"""Mask head, labels: masks, or points of each object and how many of these are drawn for each sample."""


def labelled(arguments: argparse.Namespace, words: list[str]) -> CocoInstances:
    """The training images with masks, or with points in their place."""
    data = training_images(arguments)
    if words == ["masks"]:
        return data
    folder, categories = SETS[arguments.set]
    root = arguments.data / folder
    file = write_points(root / "instances_train.json", arguments.out, points=int(words[1]))[0][0]
    assert isinstance(data.transforms, Compose)
    steps = [*data.transforms.steps, *([SamplePoints(int(words[3]))] if "aug" in words else [])]
    return CocoInstances(
        root / "train", file, categories=categories, transforms=Compose(steps), keep_empty=False
    )


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and score one of `RUNS`."""
    head, *words = name.split()
    data, held_out = labelled(arguments, words), held_out_images(arguments)
    model, plan = build(arguments, data, head), recipe(arguments, arguments.steps)
    before = time.process_time()
    train(model, TrainingLoader(data, plan), plan, device="cpu", report=print_progress)
    seconds = time.process_time() - before
    kept = arguments.out / f"{name.replace(' ', '-')}-{arguments.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    save(model, kept / "model.safetensors")
    side = 0 if head == "conv28" else 224
    (numbers,) = score(model, held_out, held_out.as_coco(), (side,)).values()
    found = {"set": arguments.set, "run": name, "seed": arguments.seed, "cpu_seconds": round(seconds)}
    return {**found, "scores": numbers}


def table(results: list[dict[str, Any]]) -> str:
    """The scores in Markdown, a row for each run, in the order of `RUNS`."""
    columns = ("box AP", "mask AP", "mask AP50", "mask AP75", "boundary AP")
    lines = [f"| run | prediction | {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * len(columns)]
    for one in sorted(results, key=lambda one: (one["set"], one["seed"], RUNS.index(one["run"]))):
        head, *words = one["run"].split()
        labels = "masks" if words == ["masks"] else f"{words[1]} point{'s' * (words[1] != '1')}"
        drawn = f", {words[3]} drawn" if "aug" in words else ""
        cells = " | ".join(f"{one['scores'][column]:.2f}" for column in columns)
        lines.append(f"| {one['set']}-{one['seed']} | {head}, {labels}{drawn} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__.splitlines()[0], steps=200)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS[:6])
    parser.add_argument("--table", action="store_true", help="print OUT/scores.json and train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scores = arguments.out / "scores.json"
    results = json.loads(scores.read_text()) if scores.is_file() else []
    for name in [] if arguments.table else arguments.runs:
        results.append(run(name, arguments))
        scores.parent.mkdir(parents=True, exist_ok=True)
        scores.write_text(json.dumps(results, indent=2) + "\n")
        print(results[-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
