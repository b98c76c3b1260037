"""Small trainings that come out the same in one process and in two: what test_processes.py compares.

As a program, `scenarios.py FOLDER NAME...`, it runs them in the process that the environment describes (RANK,
WORLD_SIZE, .. as torchrun sets them) and writes weights and log of each into FOLDER/NAME-RANK.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from pointrend.core.selection import PointSampling
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_head import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import InstanceMasks, InstanceTarget, Sample
from pointrend.training.loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


class Sparse:
    """Scenes of which only the first few have objects."""

    def __init__(self, scenes: ShapeScenes, filled: int) -> None:
        self.scenes, self.filled = scenes, filled

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        sample = self.scenes[index]
        if index < self.filled:
            return sample
        none = torch.zeros(0, dtype=torch.int64)
        masks = InstanceMasks([], none.reshape(0, 2), sample.target.masks.image_size)
        return replace(sample, target=InstanceTarget(torch.zeros(0, 4), none, masks, none.bool()))


@dataclass(frozen=True)
class Scenario:
    steps: int
    task: str
    sampling: PointSampling

    def run(self, folder: Path, *, accumulate: int) -> nn.Module:
        recipe = Recipe(
            steps=self.steps,
            batch_size=4 if self.task == "semantic" else 2,
            accumulate=accumulate,
            learning_rate=0.01,
            log_every=1,
            seed=3,
        )
        torch.manual_seed(5)
        scenes = ShapeScenes(6, self.task, size=(32, 48), objects=(1, 3))
        names, palette = scenes.class_names, scenes.palette
        backbone = BackboneConfig("resnet18")
        if self.task == "semantic":
            rend = SemanticPointRendConfig(width=16, sampling=self.sampling)
            model: nn.Module = SemanticSegmenter(
                SemanticConfig(names, palette, backbone, fpn_channels=16, head_channels=16, point_rend=rend)
            )
            pictures = scenes
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
            pictures = Sparse(scenes, filled=3)
        train(model, TrainingLoader(pictures, recipe), recipe, out=folder, cpu=True)
        return model


SCENARIOS = {
    "semantic": Scenario(20, "semantic", PointSampling(32)),
    "grid": Scenario(4, "semantic", PointSampling.regular(36)),
    "instance": Scenario(6, "instance", PointSampling(16)),
}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        place = folder / f"{name}-{os.environ['RANK']}"
        place.mkdir(parents=True)
        model = SCENARIOS[name].run(place, accumulate=1)
        torch.save(model.state_dict(), place / "weights.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
