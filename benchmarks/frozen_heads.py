"""Point heads on one frozen network: selection strategies (the paper's Table 4 in small) and head variants.

    python benchmarks/frozen_heads.py --data ../shared/data --weights runs/camvid-none-0 --out runs/strategies-0

    python benchmarks/frozen_heads.py --data DATA --set ccp --weights photo-semantic --heads residual positions --out ..

Takes a SemanticFPN trained by ``benchmarks/camvid.py --variant none``, freezes it, and trains several point heads on it
at once: all of them see the same images, the same features and the same number of updates. ``--set ccp``: persons
against the rest, on any network with a class "person". Scores on the validation set go to scores.json in the output
folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from camvid import VARIANTS
from runs import SemanticScores, print_progress, write_result
from torch import Tensor, nn

from pointrend import load
from pointrend.core.point_rend import PointRend
from pointrend.data.image_io import build_loader
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.transforms import Compose, training_transforms
from pointrend.models.inputs import batch_images
from pointrend.models.semantic import SemanticSegmenter
from pointrend.structures import Sample, SemanticTarget
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

HEADS = ("grid", "uniform", "mild", "heavy", "paper", "fine")


class Heads(nn.Module):
    """Point heads that are trained on the features of a network that is not."""

    def __init__(self, network: SemanticSegmenter, names: Sequence[str], only: str | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.only = None if only is None else network.config.class_names.index(only)
        channels = {
            "image": 3,
            "coarse": network.config.decoder_channels,
            "p2": network.config.fpn_channels,
            **network.backbone.channels,
        }
        self.heads = nn.ModuleDict()
        self.features: dict[str, tuple[str, ...]] = {}
        for name in names:
            variant = VARIANTS[name]
            assert variant is not None
            self.features[name] = variant.features
            self.heads[name] = PointRend(
                [channels[feature] for feature in variant.features],
                network.config.num_classes if only is None else 1,
                residual=variant.residual,
                positions=variant.positions,
                sampling=variant.sampling,
            )

    def train(self, mode: bool = True) -> Heads:
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def maps(self, images: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        batch = batch_images(images, self.network.config.preprocessing)
        maps = self.network.features(batch.tensor)
        coarse = self.network.coarse(maps)
        if self.only is not None:  # against all others
            own = torch.arange(coarse.shape[1]) == self.only
            coarse = coarse[:, own] - coarse[:, ~own].logsumexp(1, keepdim=True)
        return coarse, maps

    def loss(self, images: Sequence[Tensor], targets: Sequence[SemanticTarget]) -> dict[str, Tensor]:
        coarse, maps = self.maps(images)
        labels = torch.stack([target.labels for target in targets]).long()
        return {
            name: head.loss(coarse, [maps[feature] for feature in self.features[name]], labels)
            for name, head in self.heads.items()
        }


@torch.no_grad()
def score(
    model: Heads, data: Sequence[Sample], classes: int, counts: Sequence[int], every: int
) -> dict[str, dict[str, float]]:
    model.eval()
    scores = SemanticScores(classes)
    for number in range(0, len(data), every):
        sample = data[number]
        coarse, maps = model.maps([sample.image])
        size = maps["image"].shape[-2:]
        predictions = {"bilinear": nn.functional.interpolate(coarse, size=size, mode="bilinear")}
        for name, head in model.heads.items():
            fine = [maps[feature] for feature in model.features[name]]
            for count in counts:
                predictions[f"{name}, N={count}"] = head.refine(coarse, fine, tuple(size), num_points=count)
        if model.only is not None:
            predictions = {
                way: nn.functional.pad(one, (0, 0, 0, 0, 1, 0)) for way, one in predictions.items()
            }
        scores.update(predictions, sample.target.labels)
    return scores.percent()


def person_or_not(sample: Sample) -> Sample:
    """Of `ccp`: whatever is no background is the person."""
    return replace(sample, target=SemanticTarget((sample.target.labels != 0).to(torch.uint8)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=("camvid", "ccp"), default="camvid")
    parser.add_argument("--weights", required=True, help="output folder of benchmarks/camvid.py, or a model")
    parser.add_argument("--heads", nargs="+", choices=sorted(VARIANTS), default=HEADS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 320))
    parser.add_argument(
        "--every", type=int, default=1, help="score the first image, and each so many after it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder, person = arguments.data / arguments.set, arguments.set == "ccp"
    binary = [person_or_not] if person else []
    augment = Compose([*binary, training_transforms(tuple(arguments.crop))])
    training = SemanticFolder.from_list(folder / "train.txt", transforms=augment)
    held_out = SemanticFolder.from_list(folder / "val.txt", transforms=Compose(binary))
    file = Path(arguments.weights) / "model.safetensors"
    network = load(file if file.is_file() else arguments.weights)
    torch.manual_seed(arguments.seed)
    model = Heads(network, arguments.heads, "person" if person else None)
    recipe = Recipe(
        steps=arguments.steps,
        batch_size=arguments.batch,
        optimizer="adamw",
        learning_rate=1e-3,
        precision="bfloat16",
        seed=arguments.seed,
        warmup_steps=20,
    )
    started = time.time()
    loader = build_loader(training, recipe.batch_size, seed=arguments.seed)
    train(model, loader, recipe, out=arguments.out, device="cpu", report=print_progress)
    seconds = time.time() - started
    classes = 2 if person else len(held_out.class_names)
    write_result(score(model, held_out, classes, (512, 2048, 8192), arguments.every), seconds, arguments)


if __name__ == "__main__":
    main()
