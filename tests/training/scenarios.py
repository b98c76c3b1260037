"""Small trainings that come out the same in one process and in two: what test_processes.py compares.

As a program, `scenarios.py FOLDER NAME...`, it runs them in the process that the environment describes (RANK,
WORLD_SIZE, .. as torchrun sets them) and writes weights and log of each into FOLDER/NAME-RANK.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pointrend.core.selection import PointSampling
from pointrend.data.shapes import ShapeScenes
from pointrend.distributed import shutdown
from pointrend.models.attached import attach
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import InstanceMasks, InstanceTarget, Sample, SemanticTarget
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


class Patchy:
    """Scenes of which only the first few have objects, or else are labelled everywhere."""

    def __init__(self, scenes: ShapeScenes, filled: int) -> None:
        self.scenes, self.filled = scenes, filled

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        sample = self.scenes[index]
        if index < self.filled:
            return sample
        if isinstance(sample.target, SemanticTarget):
            labels = sample.target.labels.clone()
            labels[: 20 + index] = 255
            return replace(sample, target=SemanticTarget(labels))
        none = torch.zeros(0, dtype=torch.int64)
        masks = InstanceMasks([], none.reshape(0, 2), sample.target.masks.image_size)
        return replace(sample, target=InstanceTarget(torch.zeros(0, 4), none, masks, none.bool()))


class TwoHeads(nn.Module):
    """A network of which one head's output is thrown away."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 7, 4, 3)
        self.head = nn.Conv2d(8, classes, 3, 2, 1)
        self.auxiliary = nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        body = self.body(images).relu()
        self.auxiliary(body)
        return {"body": body}, self.head(body)


@dataclass(frozen=True)
class Scenario:
    task: str
    sampling: PointSampling
    steps: int = 20
    batch_size: int = 4
    accumulate: int = 1
    """Where it runs in two processes."""
    mean_over: Literal["update", "part"] = "update"

    def run(self, folder: Path, *, accumulate: int) -> nn.Module:
        recipe = Recipe(
            steps=self.steps,
            batch_size=self.batch_size,
            accumulate=accumulate,
            mean_over=self.mean_over,
            learning_rate=0.002,  # a larger one makes of a last bit another training within 20 updates
            log_every=1,
            seed=3,
        )
        torch.manual_seed(5)
        kind = "instance" if self.task == "instance" else "semantic"
        scenes = ShapeScenes(6, kind, size=(32, 48), objects=(1, 3))
        names, palette = scenes.class_names, scenes.palette
        backbone = BackboneConfig("resnet18")
        rend = SemanticPointRendConfig(features=("p2",), width=16, sampling=self.sampling)
        if self.task == "attached":
            model: nn.Module = attach(TwoHeads(len(names)), classes=names, features="body", point_rend=rend)
        elif self.task == "semantic":
            model = SemanticSegmenter(
                SemanticConfig(
                    names, palette, backbone, fpn_channels=16, decoder_channels=16, point_rend=rend
                )
            )
        else:
            model = InstanceSegmenter(
                InstanceConfig(
                    names,
                    backbone,
                    fpn_channels=16,
                    boxes=BoxHeadConfig(width=32, samples=16),
                    masks=MaskConfig(width=16, coarse_width=32, sampling=self.sampling),
                )
            )
        train(
            model,
            TrainingLoader(Patchy(scenes, FILLED), recipe),
            recipe,
            out=folder,
            device="cpu",
            trackers=(),
        )
        return model


FILLED = 3
SCENARIOS = {
    "semantic": Scenario("semantic", PointSampling.uniform(32)),
    "instance": Scenario("instance", PointSampling.uniform(16)),
    "accumulated": Scenario("instance", PointSampling.uniform(16), steps=5, accumulate=2),
    "attached": Scenario("attached", PointSampling.uniform(32), steps=3),
    "parts": Scenario("instance", PointSampling(16), steps=4, mean_over="part"),
}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        place = folder / f"{name}-{os.environ['RANK']}"
        place.mkdir(parents=True)
        model = SCENARIOS[name].run(place, accumulate=SCENARIOS[name].accumulate)
        torch.save(model.state_dict(), place / "weights.pt")
    shutdown()


if __name__ == "__main__":
    main()
