"""CamVid, train -> val: networks of five families with and without PointRend, everything else equal.

    python benchmarks/families.py --data DATA --family segformer --seed 0 --out runs/segformer-points-0
    python benchmarks/families.py --data DATA --family segformer --seed 0 --without-points --out runs/segformer-0

All weights are random at first, as no package here carries pretrained ones: the scores compare, and are low. Needs the
extras timm, transformers and smp. The scores of the interpolated coarse prediction and of PointRend go to scores.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from runs import print_progress, write_result
from torch import nn

from pointrend.checkpoints.native import save
from pointrend.data.image_io import build_loader
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.transforms import training_transforms
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import Subset
from pointrend.models.attached import AttachedSegmenter, attach
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import with_backbone
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
from pointrend.models.semantic_model import SemanticModel, SemanticPointRendConfig
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


def on_timm(name: str) -> Callable[[Sequence[str], bool], SemanticModel]:
    """SemanticFPN on a backbone of timm."""

    def build(classes: Sequence[str], points: bool) -> SemanticModel:
        rend = SemanticPointRendConfig(residual=True) if points else None
        config = SemanticConfig(tuple(classes), fpn_channels=128, coarse_stride=8, point_rend=rend)
        return SemanticSegmenter(with_backbone(config, BackboneConfig(name, norm="batch")))

    return build


def attached(make: Callable[[int], nn.Module]) -> Callable[[Sequence[str], bool], SemanticModel]:
    """A network of another library."""

    def build(classes: Sequence[str], points: bool) -> SemanticModel:
        network = make(len(classes))
        model = attach(network, classes=classes)
        return model if points else AttachedSegmenter(replace(model.config, point_rend=None), network)

    return build


def lraspp(classes: int) -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)


def segformer(classes: int) -> nn.Module:
    """As large as SegFormer-B0, the default of its configuration."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))


def unet(classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, classes=classes)


FAMILIES = {
    "timm-cnn": on_timm("timm/convnext_atto"),
    "timm-transformer": on_timm("timm/pvt_v2_b0"),
    "segformer": attached(segformer),
    "unet": attached(unet),
    "torchvision": attached(lraspp),
}


def main(given: list[str] | None = None) -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds camvid/")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--without-points", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--images", type=int, help="of the validation set; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)

    camvid = arguments.data / "camvid"
    training = SemanticFolder.from_list(camvid / "train.txt", transforms=training_transforms((256, 320)))
    held_out = Subset.first(SemanticFolder.from_list(camvid / "val.txt"), arguments.images)
    torch.manual_seed(arguments.seed)
    model = FAMILIES[arguments.family](training.class_names, not arguments.without_points)
    recipe = Recipe(
        steps=arguments.steps,
        optimizer="adamw",
        learning_rate=arguments.lr,
        warmup_steps=20,
        clip_gradient=10.0,
        seed=arguments.seed,
    )
    loader = build_loader(training, recipe.batch_size, seed=arguments.seed)
    started = time.time()
    train(model, loader, recipe, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    save(model, arguments.out / "model.safetensors")
    variants = {"bilinear": {"refine": False}, **({} if arguments.without_points else {"PointRend": {}})}
    rows = evaluate_semantic(model.eval(), held_out, variants)
    scores = {row.name: {name: 100 * value for name, value in row.numbers.items()} for row in rows}
    write_result(scores, seconds, arguments)


if __name__ == "__main__":
    main()
