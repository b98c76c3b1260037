"""Real objects, 4x conv against PointRend with everything else equal: mask AP, AP at IoU 0.75 and above, Boundary AP.

    python benchmarks/instances.py --data ../shared/data --set fruits --head pointrend --seed 0 --out runs/fruits-pr-0

Trains Mask R-CNN on an ImageNet-pretrained MobileNetV2-FPN with the chosen mask head and scores it on the validation
images; PointRend also at other resolutions. The scores go to scores.json in the output folder.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from runs import print_progress, training_parser, write_result

from pointrend.checkpoints.imagenet import load_pretrained_backbone
from pointrend.checkpoints.native import save
from pointrend.data.coco import CocoInstances
from pointrend.data.image_io import build_loader
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import Compose, RandomFlip, ResizeShortEdge
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

SUPERCATEGORIES = ("person", "animal", "vehicle", "furniture", "food", "electronic")
SETS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "fruits": ("fruits_nuts", None),
    "person": ("coco_mini", ("person",)),
    "super": ("coco_mini", SUPERCATEGORIES),
}
HEADS = {
    "conv28": ("conv28", MaskConfig(width=128)),
    "pointrend": ("pointrend", MaskConfig(width=128, coarse_width=256)),
    "residual": ("pointrend", MaskConfig(width=128, coarse_width=256, residual=True)),
    "fine": ("pointrend", MaskConfig(width=128, coarse_width=256, residual=True, features=("p2", "stem"))),
}


def build(arguments: argparse.Namespace, data: CocoInstances | ShapeScenes, name: str) -> InstanceSegmenter:
    """The detector with the mask head of this name, for the classes of the data."""
    head, masks = HEADS[name]
    config = InstanceConfig(
        class_names=data.class_names,
        backbone=BackboneConfig("mobilenet_v2"),
        preprocessing=Preprocessing(
            mean=(127.5,) * 3, std=(127.5,) * 3, short_edge=arguments.size, long_edge=2 * arguments.size
        ),
        mask_head=head,
        fpn_channels=128,
        boxes=BoxHeadConfig(width=512, samples=128),
        masks=masks,
    )
    torch.manual_seed(arguments.seed)
    model = InstanceSegmenter(config)
    weights = arguments.data / "weights" / "mobilenetv2_features_bnfolded_fp16.safetensors"
    load_pretrained_backbone(model.backbone, weights)
    return model


def training_images(arguments: argparse.Namespace) -> CocoInstances:
    """Those with objects, at 0.8 to 1.2 of the size for testing."""
    folder, categories = SETS[arguments.set]
    root = arguments.data / folder
    edges = tuple(int(arguments.size * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2))
    return CocoInstances(
        root / "train",
        root / "instances_train.json",
        categories=categories,
        transforms=Compose([ResizeShortEdge(edges, 2 * arguments.size), RandomFlip()]),
        keep_empty=False,
    )


def score(model: InstanceSegmenter, data: CocoInstances, truth: dict, sides: tuple[int, ...]) -> dict:
    """Named numbers in percent, for each output resolution of the mask head."""
    found = {}
    for side in sides:
        if side and model.config.mask_head == "pointrend":
            model.mask_head.config = replace(model.mask_head.config, mask_size=side)
        scores = evaluate_instances(model, data, ground_truth=truth, category_ids=data.category_ids)[0]
        found[str(side or "28")] = {name: round(100 * value, 3) for name, value in scores.numbers.items()}
    return found


def options(description: str, *, steps: int) -> argparse.ArgumentParser:
    """What every training of instances here is told."""
    parser = training_parser(
        description, data="coco_mini/ and weights/", steps=steps, batch=4, lr=5e-4, threads=2
    )
    parser.add_argument("--set", choices=SETS, default="person")
    parser.add_argument(
        "--size", type=int, default=320, help="short edge in training (x 0.8 to 1.2) and testing"
    )
    return parser


def recipe(arguments: argparse.Namespace, steps: int) -> Recipe:
    return Recipe(
        steps=steps,
        batch_size=arguments.batch,
        optimizer="adamw",
        learning_rate=arguments.lr,
        weight_decay=1e-4,
        backbone_factor=0.5,
        warmup_steps=50,
        clip_gradient=10.0,
        precision="bfloat16",
        seed=arguments.seed,
    )


def held_out_images(arguments: argparse.Namespace) -> CocoInstances:
    folder, categories = SETS[arguments.set]
    root = arguments.data / folder
    return CocoInstances(root / "val", root / "instances_val.json", categories=categories)


def main() -> None:
    parser = options(__doc__.splitlines()[0], steps=400)
    parser.add_argument("--head", choices=HEADS, default="pointrend")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    training, held_out = training_images(arguments), held_out_images(arguments)
    model = build(arguments, training, arguments.head)
    plan = recipe(arguments, arguments.steps)
    started = time.time()
    loader = build_loader(training, plan.batch_size, seed=arguments.seed)
    train(model, loader, plan, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    save(model, arguments.out / "model.safetensors")
    sides = (28, 56, 112, 224) if model.config.mask_head == "pointrend" else (0,)
    write_result(score(model, held_out, held_out.as_coco(), sides), seconds, arguments)


if __name__ == "__main__":
    main()
