"""What a training on generated scenes is worth to real images: from a shapes-trained model, or from ImageNet alone.

    python benchmarks/finetune.py --data ../shared/data --set camvid --out runs/finetune-camvid
    python benchmarks/finetune.py --data ../shared/data --set fruits --out runs/finetune-fruits
    python benchmarks/finetune.py --plot curves.png --runs runs/finetune-camvid runs/finetune-fruits

Both starts have the same ImageNet-pretrained MobileNetV2, the same `finetune_recipe`, seeds and images; "shapes" was
trained on generated scenes before (OUT/shapes.safetensors, taken again where it is there), and its classes were then
exchanged as `pointrend finetune` does. "imagenet, x0.5" lets the backbone learn five times faster than the recipe
does, as `pointrend train` would. Scores go to OUT/curves.json, in per cent, with the update they belong to.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pointrend.checkpoints.imagenet import load_pretrained_backbone
from pointrend.checkpoints.native import build, load, save
from pointrend.data.build import open_dataset
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import (
    Compose,
    RandomFlip,
    instance_training_transforms,
    training_transforms,
)
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import Subset
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.finetune import change_classes, finetune_recipe
from pointrend.training.loop import train
from pointrend.training.presets import preset
from pointrend.training.recipe import Recipe

WEIGHTS = "mobilenetv2_features_bnfolded_fp16.safetensors"
STARTS = ("shapes", "imagenet", "imagenet, x0.5")


@dataclass(frozen=True)
class Setting:
    """One data set and how it is trained on."""

    folder: str
    task: str
    size: int
    """Short edge of instance images; crops of semantic ones are 3/4 of it by it."""
    batch: int
    shown: tuple[str, ...]
    """Scores that are drawn."""


SETS = {
    "camvid": Setting("camvid", "semantic", 256, 4, ("mIoU", "boundary IoU")),
    "fruits": Setting("fruits_nuts", "instance", 256, 2, ("mask AP", "boundary AP")),
}


def fresh(setting: Setting, names: tuple[str, ...], palette: Any, weights: Path) -> Any:
    """The preset's network on ImageNet weights."""
    if setting.task == "semantic":
        config = preset("semantic-fpn-mobilenet", pretrained=True)
    else:
        config = preset("instance-mobilenet", pretrained=True).with_size(setting.size)
    model = build(config.config(names, palette))
    load_pretrained_backbone(model.backbone, weights)
    return model


def changes(setting: Setting) -> Compose:
    if setting.task == "semantic":
        return training_transforms((3 * setting.size // 4, setting.size))
    edges = tuple(round(setting.size * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2))
    return instance_training_transforms(edges, 2 * setting.size)


def pretrain(setting: Setting, arguments: argparse.Namespace, path: Path) -> float:
    """Train on generated scenes and save; minutes, 0 if it was done before."""
    if path.is_file():
        return 0.0
    size = (3 * setting.size // 4, setting.size)
    rich: dict[str, Any] = (
        {"patterned": True, "hue_spread": 0.5, "objects": (5, 25)} if arguments.rich else {}
    )
    scenes = ShapeScenes(20_000, setting.task, size=size, transforms=Compose([RandomFlip()]), **rich)  # type: ignore[arg-type]
    torch.manual_seed(arguments.seed)
    model = fresh(setting, scenes.class_names, scenes.palette, arguments.data / "weights" / WEIGHTS)
    recipe = Recipe(
        steps=arguments.pretrain,
        batch_size=setting.batch,
        optimizer="adamw",
        learning_rate=arguments.shapes_rate or (6e-4 if setting.task == "semantic" else 2e-4),
        backbone_factor=arguments.shapes_backbone,
        warmup_steps=20,
        clip_gradient=10.0,
        precision=arguments.precision,
        seed=arguments.seed,
    )
    started = time.time()
    train(model, TrainingLoader(scenes, recipe), recipe, device="cpu", report=progress("shapes"))
    save(model, path)
    return (time.time() - started) / 60


def start_from(name: str, setting: Setting, data: Any, arguments: argparse.Namespace) -> Any:
    """The model to fine-tune, for the classes of the data."""
    torch.manual_seed(arguments.seed)
    if name == "shapes":
        model, transfer = change_classes(
            load(arguments.out / "shapes.safetensors"), data.class_names, data.palette
        )
        print(transfer, flush=True)
        return model
    return fresh(setting, tuple(data.class_names), tuple(data.palette), arguments.data / "weights" / WEIGHTS)


def finetune(name: str, setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    """One start: its scores at several updates, in per cent."""
    source = f"{arguments.data / setting.folder}:{setting.task}"
    data: Any = open_dataset(source, "train", transforms=changes(setting))
    held_out: Any = open_dataset(source, "val")
    if arguments.few is not None:
        data = Subset(data, [number * len(data) // arguments.few for number in range(arguments.few)])
    count = len(held_out)
    if arguments.images is not None:  # evenly spread: neighbours in a film look alike
        count = min(arguments.images, count)
    part = Subset(held_out, [number * len(held_out) // count for number in range(count)])
    every = arguments.steps // arguments.points
    recipe = replace(
        finetune_recipe(len(data), setting.task),
        steps=arguments.steps,
        batch_size=setting.batch,
        warmup_steps=arguments.steps // 20,
        precision=arguments.precision,
        seed=arguments.seed,
        state_every=0,
    )
    if name.endswith("x0.5"):
        recipe = replace(recipe, backbone_factor=0.5)
    model = start_from(name, setting, data, arguments)
    curve: list[dict[str, float]] = []
    evaluate = evaluate_semantic if setting.task == "semantic" else evaluate_instances

    def score(one: Any) -> Mapping[str, float]:
        numbers = evaluate(one, part)[0].numbers
        curve.append({key: round(100 * value, 3) for key, value in numbers.items()})
        print(name, {key: curve[-1][key] for key in setting.shown}, flush=True)
        return numbers

    started = time.time()
    recipe = replace(recipe, evaluate_every=every)
    train(model, TrainingLoader(data, recipe), recipe, device="cpu", evaluate=score, report=progress(name))
    steps = [every * (number + 1) for number in range(recipe.steps // every)]
    if recipe.steps % every:
        steps.append(recipe.steps)
    return {
        "start": name,
        "seed": arguments.seed,
        "steps": steps,
        "scores": {key: [entry[key] for entry in curve] for key in curve[0]},
        "minutes": round((time.time() - started) / 60, 1),
    }


def progress(what: str) -> Callable[[int, Mapping[str, float]], None]:
    def report(step: int, entry: Mapping[str, float]) -> None:
        if step % 20 == 0:
            print(what, step, {key: round(value, 4) for key, value in entry.items()}, flush=True)

    return report


def plot(runs: list[Path], path: Path) -> None:
    """A panel for each data set and score, a line for each start, thin ones for single seeds."""
    from matplotlib.figure import Figure

    found = [json.loads((run / "curves.json").read_text()) for run in runs]
    panels = [(result, name) for result in found for name in SETS[result["set"]].shown]
    figure = Figure(figsize=(3.2 * len(panels), 3.0), dpi=100, layout="constrained")
    for axes, (result, name) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for color, start in zip(("tab:blue", "tab:orange", "tab:green"), STARTS, strict=True):
            rows = [row for row in result["rows"] if row["start"] == start]
            for row in rows if len(rows) > 1 else []:
                axes.plot(row["steps"], row["scores"][name], color=color, alpha=0.35, linewidth=0.8)
            if rows:
                mean = [
                    sum(values) / len(rows)
                    for values in zip(*(row["scores"][name] for row in rows), strict=True)
                ]
                axes.plot(rows[0]["steps"], mean, color=color, marker="o", markersize=3, label=start)
        axes.set_title(f"{result['set']}, {name}", fontsize=10)
        axes.set_xlabel("updates of fine-tuning")
        axes.set_ylabel("per cent")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a row for each start and seed, a column for each scored update, of the first score."""
    name = SETS[result["set"]].shown[0]
    steps = result["rows"][0]["steps"]
    lines = [f"| {name} after | seed | " + " | ".join(map(str, steps)) + " |"]
    lines.append("| --- | ---: |" + " ---: |" * len(steps))
    for row in result["rows"]:
        numbers = " | ".join(f"{value:.1f}" for value in row["scores"][name])
        lines.append(f"| {row['start']} | {row['seed']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds camvid/, fruits_nuts/ and weights/")
    parser.add_argument("--set", choices=SETS, default="camvid")
    parser.add_argument("--pretrain", type=int, default=600, help="updates on generated scenes")
    parser.add_argument(
        "--shapes-backbone",
        type=float,
        default=0.5,
        help="learning rate of the backbone on generated scenes, relative to the rest's",
    )
    parser.add_argument("--shapes-rate", type=float, help="learning rate on generated scenes")
    parser.add_argument(
        "--rich",
        action="store_true",
        help="scenes of more objects, any hue, a class for each kind and pattern",
    )
    parser.add_argument("--few", type=int, help="fine-tune on so many images, evenly spread, instead of all")
    parser.add_argument("--steps", type=int, default=240, help="updates of fine-tuning")
    parser.add_argument("--points", type=int, default=6, help="of the curve")
    parser.add_argument("--images", type=int, help="score at most so many, evenly spread")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--seed", type=int, default=0, help="of the fine-tuning, and of what is pretrained")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="folder; rows are added to those that are there")
    parser.add_argument("--plot", type=Path, help="draw the curves of --runs into this file instead")
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    if arguments.plot is not None:
        plot(arguments.runs, arguments.plot)
        return
    torch.set_num_threads(arguments.threads)
    setting = SETS[arguments.set]
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "curves.json"
    result: dict[str, Any] = (
        json.loads(path.read_text()) if path.is_file() else {"set": arguments.set, "rows": []}
    )
    minutes = pretrain(setting, arguments, arguments.out / "shapes.safetensors")
    if minutes:
        result["shapes minutes"] = round(minutes, 1)
        result["shapes updates"] = arguments.pretrain
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    for name in arguments.starts:
        result["rows"].append(finetune(name, setting, arguments))
        path.write_text(json.dumps(result, indent=1))
    print(table(result))


if __name__ == "__main__":
    main()
