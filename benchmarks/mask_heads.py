"""Several mask heads on one detector, trained together: the same boxes and features for all of them.

    python benchmarks/mask_heads.py --data ../shared/data --set person --out runs/heads-person
    python benchmarks/true_boxes.py --data ../shared/data --set person --runs runs/heads-person/conv28 ..

benchmarks/instances.py trains a detector for each mask head, whose boxes differ by chance as much as the masks do. Here
one Mask R-CNN (ImageNet-pretrained MobileNetV2-FPN) learns boxes once; every head sees the same features, boxes and
images and adds its own loss, so what is left between their scores is the heads'. It starts on generated scenes
(--shapes), which teach boxes and outlines sooner. Each head is saved as a model of its own: OUT/HEAD/model.safetensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from instances import HEADS, build, held_out_images, options, recipe, score, training_images
from runs import print_progress, write_result
from torch import Tensor, nn

from pointrend.checkpoints.native import save
from pointrend.data.image_io import build_loader
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import Compose, RandomFlip
from pointrend.models.instance import InstanceSegmenter
from pointrend.training.loop import train


class SideBySide(nn.Module):
    """Mask heads that learn from the same regions; each loss keeps its head's name."""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def loss(self, *targets: Any, **options: Any) -> dict[str, Tensor]:
        return {
            f"{name}.{part}": value
            for name, head in self.heads.items()
            for part, value in head.loss(*targets, **options).items()  # type: ignore[operator]
        }


def join(models: Mapping[str, InstanceSegmenter]) -> InstanceSegmenter:
    """The first model with the mask heads of all; the others come to share its other parts."""
    first = next(iter(models.values()))
    heads = {name: model.mask_head for name, model in models.items()}
    for model in models.values():
        model.backbone, model.fpn = first.backbone, first.fpn
        model.rpn, model.box_head = first.rpn, first.box_head
    joined = InstanceSegmenter(first.config)
    joined.backbone, joined.fpn = first.backbone, first.fpn
    joined.rpn, joined.box_head = first.rpn, first.box_head
    joined.mask_head = SideBySide(heads)  # type: ignore[assignment]
    return joined


def pretrain(arguments: argparse.Namespace, path: Path) -> None:
    """Train on generated scenes and keep what was learned in ``path``; nothing to do if it is there."""
    if path.is_file():
        return
    size = (arguments.size, arguments.size * 5 // 4)
    scenes = ShapeScenes(20_000, "instance", size=size, transforms=Compose([RandomFlip()]))
    model = join({name: build(arguments, scenes, name) for name in arguments.heads})
    plan = recipe(arguments, arguments.shapes)
    train(
        model,
        build_loader(scenes, plan.batch_size, seed=plan.seed),
        plan,
        device="cpu",
        report=print_progress,
    )
    torch.save(model.state_dict(), path)


def take_over(model: InstanceSegmenter, path: Path) -> None:
    """All that was learned on generated scenes and does not belong to a class."""
    known, own = torch.load(path, weights_only=True), model.state_dict()
    model.load_state_dict(
        {name: known[name] if known[name].shape == own[name].shape else own[name] for name in own}
    )


def main() -> None:
    parser = options(__doc__.splitlines()[0], steps=1000)
    parser.add_argument("--heads", choices=HEADS, nargs="+", default=["conv28", "pointrend", "residual"])
    parser.add_argument("--shapes", type=int, default=300, help="updates on generated scenes first")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)

    training, held_out = training_images(arguments), held_out_images(arguments)
    started = time.time()
    if arguments.shapes:
        pretrain(arguments, arguments.out / "shapes.pt")
    models = {name: build(arguments, training, name) for name in arguments.heads}
    joined = join(models)
    if arguments.shapes:
        take_over(joined, arguments.out / "shapes.pt")
    plan = recipe(arguments, arguments.steps)
    loader = build_loader(training, plan.batch_size, seed=arguments.seed)
    train(joined, loader, plan, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    for name, model in models.items():
        (arguments.out / name).mkdir(exist_ok=True)
        save(model.eval(), arguments.out / name / "model.safetensors")
        sides = (28, 224) if model.config.mask_head == "pointrend" else (0,)
        arguments.head = name
        scores = score(model, held_out, held_out.as_coco(), sides)
        write_result(scores, seconds, argparse.Namespace(**{**vars(arguments), "out": arguments.out / name}))


if __name__ == "__main__":
    main()
