"""Train the two small bundled models that know generated scenes.

    python -m tools.train_demo_models semantic --out semantic.safetensors
    python -m tools.train_demo_models instance --out instance.safetensors

are the commands that made the files in `pointrend/zoo/weights`. Their images are `data.shapes`, drawn on the fly:
nothing was downloaded, and no pretrained weights went in. They are small enough for tests and examples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pointrend.checkpoints.native import save
from pointrend.core.selection import PointSampling
from pointrend.data.image_io import build_loader
from pointrend.data.shapes import ShapeScenes
from pointrend.data.transforms import RandomFlip
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.rpn import ProposalConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import Task
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

SIZE = (144, 192)
"""Height and width of the scenes that were trained on; images are shrunk to this long side."""
TRAINING_SEED = 7
"""Scenes of this seed were trained on; tests and examples use others."""
LICENCE = "Apache-2.0"


def semantic_config() -> SemanticConfig:
    """SemanticFPN whose own prediction has stride 8, 0.5 million parameters."""
    scenes = ShapeScenes(1)
    return SemanticConfig(
        scenes.class_names,
        scenes.palette,
        backbone=BackboneConfig("resnet10_w16", norm="batch"),
        preprocessing=Preprocessing(short_edge=SIZE[0], long_edge=SIZE[1]),
        levels=("p3", "p4", "p5"),
        fpn_channels=48,
        decoder_channels=48,
        point_rend=SemanticPointRendConfig(
            features=("p2", "coarse", "stem"),
            width=96,
            residual=True,
            sampling=PointSampling(1024),
            num_points=512,
        ),
    )


def instance_config() -> InstanceConfig:
    """Mask R-CNN with PointRend, 0.7 million parameters."""
    return InstanceConfig(
        ShapeScenes(1, "instance").class_names,
        backbone=BackboneConfig("resnet10_w16", norm="batch"),
        preprocessing=Preprocessing(short_edge=SIZE[0], long_edge=SIZE[1]),
        fpn_channels=32,
        proposals=ProposalConfig(
            anchor_sizes=(16.0, 32.0, 64.0, 96.0, 128.0),
            before_nms_train=300,
            before_nms_test=200,
            after_nms=150,
            samples=128,
        ),
        boxes=BoxHeadConfig(width=96, samples=64, max_detections=30),
        masks=MaskConfig(
            width=64,
            coarse_width=96,
            class_agnostic=True,
            residual=True,
            features=("p2", "stem"),
        ),
    )


@dataclass(frozen=True)
class Training:
    """How a model is trained."""

    task: Task
    steps: int
    scenes: int
    batch_size: int
    learning_rate: float
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """AdamW with the learning rate falling to 0, gradients clipped; the average of the last weights is kept."""
        return Recipe(
            steps=self.steps,
            batch_size=self.batch_size,
            optimizer="adamw",
            learning_rate=self.learning_rate,
            warmup_steps=min(50, self.steps // 10),
            clip_gradient=5.0,
            average=0.99,
            seed=self.seed,
        )


TRAININGS: dict[str, Training] = {
    "semantic": Training("semantic", steps=1500, scenes=6000, batch_size=8, learning_rate=2e-3),
    "instance": Training("instance", steps=2200, scenes=4400, batch_size=4, learning_rate=1e-3),
}
"""What made the bundled files."""


def train_model(
    settings: Training, out: Path, *, report: Callable[[int, Mapping[str, float]], None] | None = None
) -> None:
    """Train a model and write it in float16, with its command and licence in its header."""
    torch.manual_seed(settings.seed)
    model: SemanticSegmenter | InstanceSegmenter = (
        SemanticSegmenter(semantic_config())
        if settings.task == "semantic"
        else InstanceSegmenter(instance_config())
    )
    scenes = ShapeScenes(
        settings.scenes, settings.task, seed=TRAINING_SEED, size=SIZE, transforms=RandomFlip()
    )
    loader = build_loader(scenes, settings.batch_size, seed=settings.seed)
    train(model, loader, settings.recipe, report=report, device="cpu")
    save(copy.deepcopy(model).half(), out, extra=provenance(settings))


def provenance(settings: Training) -> dict[str, Any]:
    """What the file says about itself."""
    scenes = f"{settings.scenes} generated scenes of {SIZE[1]}x{SIZE[0]} pixels, seed {TRAINING_SEED}"
    changed = "" if settings == TRAININGS.get(settings.task) else f" --steps {settings.steps}"
    return {
        "name": f"shapes-{settings.task}",
        "licence": LICENCE,
        "data": f"{scenes} (pointrend.data.shapes); no pretrained weights",
        "command": f"python -m tools.train_demo_models {settings.task}{changed} --out FILE",
        "torch": torch.__version__,
    }


def main() -> None:
    """The command line of this module."""
    import argparse

    from pointrend.cli.console import training

    parser = argparse.ArgumentParser(
        prog="python -m tools.train_demo_models", description=train_model.__doc__
    )
    parser.add_argument("task", choices=("semantic", "instance"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="updates; as many as the shipped file had, if not given")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = TRAININGS[options.task]
    if options.steps is not None:
        settings = replace(settings, steps=options.steps)
    with training(settings.steps) as report:
        train_model(settings, options.out, report=report)


if __name__ == "__main__":
    main()
