"""CamVid, train -> val: what PointRend gains over bilinear upsampling, with everything else equal.

    python benchmarks/camvid.py --data ../shared/data --variant residual --seed 0 --out runs/camvid-residual-0

Trains SemanticFPN on an ImageNet-pretrained MobileNetV2 and scores the coarse prediction and PointRend with several
numbers of points on the whole validation set. The scores go to scores.json in the output folder.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from runs import SemanticScores, print_progress, training_parser, write_result
from torch.utils.flop_counter import FlopCounterMode

from pointrend.checkpoints.imagenet import load_pretrained_backbone
from pointrend.checkpoints.native import save
from pointrend.core.point_rend import PointRend
from pointrend.core.selection import PointSampling
from pointrend.data.image_io import build_loader
from pointrend.data.label_folders import Pair, SemanticFolder
from pointrend.data.transforms import training_transforms
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing, batch_images
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

HEAD = SemanticPointRendConfig(residual=True, sampling=PointSampling(2048))
FINE = ("p2", "coarse", "stem", "image")
VARIANTS: dict[str, SemanticPointRendConfig | None] = {
    "none": None,
    "paper": replace(HEAD, residual=False),
    "residual": HEAD,
    "labelled": replace(HEAD, sampling=PointSampling(2048, strategy="labelled")),
    "fine": replace(HEAD, features=FINE),
    "fine4k": replace(HEAD, features=FINE, sampling=PointSampling(4096)),
    "positions": replace(HEAD, positions=128),
    "grid": replace(HEAD, sampling=PointSampling.regular(45 * 45)),
    "uniform": replace(HEAD, sampling=PointSampling.uniform(45 * 45)),
    "mild": replace(HEAD, sampling=PointSampling.mildly_biased(45 * 45)),
    "heavy": replace(HEAD, sampling=PointSampling.heavily_biased(45 * 45)),
}
COUNTS = {"N=512": 512, "N=2048": 2048, "N=8192": 8192, "every cell": 10**9}
LEVELS = {"p2-p5": ("p2", "p3", "p4", "p5"), "p3-p5": ("p3", "p4", "p5")}


class DetachedPointRend(PointRend):
    """The point loss trains the head and the fine features, and leaves the coarse prediction to its own loss."""

    def loss(self, coarse: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        return super().loss(coarse.detach(), *rest, **options)


class CoarseGridSegmenter(SemanticSegmenter):
    """The coarse logits learn the label at the centre of each of their cells, not the image's outlines."""

    def coarse_loss(self, coarse: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        cells = F.interpolate(labels[:, None].float(), size=coarse.shape[-2:], mode="nearest-exact")
        return super().coarse_loss(coarse, cells[:, 0].long())


def keep_few_labels(data: SemanticFolder, share: float, out: Path) -> list[Pair]:
    """The same images with label maps in OUT/labels in which this share of the pixels, drawn at random, is labelled."""
    out = out / "labels"
    out.mkdir(parents=True, exist_ok=True)
    kept = []
    for number, (image, file) in enumerate(data.pairs):
        labels = torch.from_numpy(np.array(Image.open(file)))
        drawn = torch.rand(labels.shape, generator=torch.Generator().manual_seed(12345 + number)) < share
        Image.fromarray(labels.where(drawn, data.classes.ignore_label).numpy()).save(out / file.name)
        kept.append((image, out / file.name))
    return kept


def build(arguments: argparse.Namespace, data: SemanticFolder) -> SemanticSegmenter:
    config = SemanticConfig(
        class_names=data.class_names,
        palette=data.palette,
        backbone=BackboneConfig(
            "mobilenet_v2", norm=arguments.norm, output_stride=16 if arguments.deeplab else 32
        ),
        preprocessing=Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3, divisor=32),
        decoder="deeplab" if arguments.deeplab else "fpn",
        levels=LEVELS[arguments.levels],
        coarse_stride=arguments.coarse_stride,
        fpn_channels=128,
        decoder_channels=256 if arguments.deeplab else 128,
        point_rend=VARIANTS[arguments.variant],
    )
    if arguments.deeplab and config.point_rend is not None:
        features = tuple(name.replace("p2", "res2") for name in config.point_rend.features)
        config = replace(config, point_rend=replace(config.point_rend, features=features))
    torch.manual_seed(arguments.seed)
    model = CoarseGridSegmenter(config) if arguments.coarse_grid else SemanticSegmenter(config)
    weights = arguments.data / "weights" / "mobilenetv2_features_bnfolded_fp16.safetensors"
    load_pretrained_backbone(model.backbone, weights)
    if arguments.detach and model.point_rend is not None:
        model.point_rend.__class__ = DetachedPointRend
    return model


@torch.no_grad()
def multiply_adds(model: SemanticSegmenter, size: tuple[int, int] = (384, 480)) -> dict[str, float]:
    """Of one padded image in 10^9: convolutions and matrix products, by part of the network."""
    model.eval()
    parts = {}
    with FlopCounterMode(display=False) as counter:
        maps = model.features(torch.zeros(1, 3, *size))
    parts["features"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        coarse = model.coarse(maps)
    parts["coarse head"] = counter.get_total_flops()
    if model.point_rend is not None and model.config.point_rend is not None:
        fine = [maps[name] for name in model.config.point_rend.features]
        with FlopCounterMode(display=False) as counter:
            model.point_rend.refine(coarse, fine, size)
        parts["points"] = counter.get_total_flops()
    return {name: round(flops / 2e9, 2) for name, flops in parts.items()}


@torch.no_grad()
def score(
    model: SemanticSegmenter, data: SemanticFolder, images: int | None = None
) -> dict[str, dict[str, float]]:
    """mIoU, boundary IoU and trimap mIoU of the coarse prediction and of PointRend by number of points, in percent.

    Features and coarse logits are computed once an image; `predict` would compute them for each way again.
    """
    model.eval()
    scores = SemanticScores(len(data.class_names))
    for number in range(len(data) if images is None else min(images, len(data))):
        sample = data[number]
        batch = batch_images([sample.image], model.config.preprocessing)
        maps = model.features(batch.tensor)
        coarse = model.coarse(maps)
        predictions = {"bilinear": F.interpolate(coarse, size=batch.padded_size, mode="bilinear")}
        if model.point_rend is not None and model.config.point_rend is not None:
            fine = [maps[name] for name in model.config.point_rend.features]
            for way, count in COUNTS.items():
                predictions[way] = model.point_rend.refine(coarse, fine, batch.padded_size, num_points=count)
        scores.update(predictions, sample.target.labels)
    return scores.percent()


def main() -> None:
    parser = training_parser(__doc__, data="camvid/ and weights/", steps=1000, batch=8, lr=1e-3, threads=2)
    parser.add_argument("--variant", choices=VARIANTS, default="residual")
    parser.add_argument("--levels", choices=LEVELS, default="p2-p5")
    parser.add_argument("--coarse-stride", type=int, help="of SemanticFPN's logits; the finest level's")
    parser.add_argument(
        "--deeplab", action="store_true", help="DeepLabV3 at output stride 16 instead of SemanticFPN"
    )
    parser.add_argument(
        "--detach", action="store_true", help="no gradient of the point loss into the coarse logits"
    )
    parser.add_argument(
        "--coarse-grid", action="store_true", help="the coarse loss on the coarse cells, not interpolated"
    )
    parser.add_argument("--labelled", type=float, help="share of the training pixels that keep their label")
    parser.add_argument("--scale", type=float, nargs=2, default=(0.5, 2.0), help="of the training images")
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 320), help="rows and columns")
    parser.add_argument("--every", type=int, default=1, help="score on every so many-th validation image")
    parser.add_argument("--norm", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--decay", type=float, default=1e-4)
    parser.add_argument("--backbone-factor", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    camvid = arguments.data / "camvid"
    transforms = training_transforms(tuple(arguments.crop), scale=tuple(arguments.scale))
    training = SemanticFolder.from_list(camvid / "train.txt", transforms=transforms)
    if arguments.labelled:
        training.pairs = keep_few_labels(training, arguments.labelled, arguments.out)
    held_out = SemanticFolder.from_list(camvid / "val.txt")
    held_out.pairs = held_out.pairs[:: arguments.every]
    model = build(arguments, training)
    print("G multiply-adds of an image:", multiply_adds(model), flush=True)
    recipe = Recipe(
        steps=arguments.steps,
        batch_size=arguments.batch,
        optimizer="adamw",
        learning_rate=arguments.lr,
        weight_decay=arguments.decay,
        backbone_factor=arguments.backbone_factor,
        warmup_steps=20,
        clip_gradient=10.0,
        precision=arguments.precision,
        seed=arguments.seed,
    )
    loader = build_loader(training, recipe.batch_size, workers=arguments.workers, seed=arguments.seed)
    started = time.time()
    train(model, loader, recipe, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    save(model, arguments.out / "model.safetensors")
    write_result(score(model, held_out), seconds, arguments)


if __name__ == "__main__":
    main()
