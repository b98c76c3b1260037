"""Trainings that are evaluated as they go, by two processes together: what test_evaluation.py looks at.

As a program, `evaluations.py FOLDER NAME...`, it runs them in the process that the environment describes and writes
into FOLDER/NAME-RANK how each ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pointrend.distributed import shutdown
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.results import SemanticResult
from pointrend.structures import Sample, SemanticTarget
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

NAMES = ("dark", "middle", "bright")


class Stripes:
    """Noisy images of which each pixel's class is its grey; of a training, or what it is scored on."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(self.first + index)
        labels = torch.randint(0, 3, (8, 10), generator=generator)
        noise = torch.randint(-60, 60, (3, 8, 10), generator=generator)
        image = (60 + 60 * labels + noise).clamp(0, 255).to(torch.uint8)
        return Sample(image, SemanticTarget(labels.to(torch.uint8)), index, f"stripes{index}.png")


class Pixels(nn.Module):
    """Tells a pixel's class by its colour, through a batch norm, whose statistics matter once it is evaluated."""

    config = SimpleNamespace(class_names=NAMES)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1))

    def forward(self, images: list[Tensor]) -> Tensor:
        return self.layers(torch.stack(images).float() / 255)

    def loss(self, images: list[Tensor], targets: list[SemanticTarget]) -> dict[str, Tensor]:
        labels = torch.stack([target.labels.long() for target in targets])
        return {"pixels": nn.functional.cross_entropy(self(images), labels)}

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[SemanticResult]:
        return [SemanticResult(logits.argmax(0).to(torch.uint8), NAMES) for logits in self(images)]


class Score:
    """Scores in per cent on so many images; from the second evaluation on, something happens in the last process."""

    def __init__(self, images: int, event: str = "") -> None:
        self.images, self.event, self.calls = Stripes(images, 100), event, 0

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        self.calls += 1
        if self.calls == 2 and int(os.environ.get("RANK", "0")) == 1:
            if self.event == "sigterm":
                signal.raise_signal(signal.SIGTERM)
                time.sleep(60)
            if self.event == "broken":
                raise ValueError("stripes1.png: not a readable image")
        found = evaluate_semantic(model, self.images)[0].numbers
        return {name: 100 * value for name, value in found.items()}


RECIPE = Recipe(
    steps=12,
    batch_size=4,
    learning_rate=0.3,
    schedule="constant",
    evaluate_every=1,
    metric="mIoU",
    patience=3,
    seed=2,
)
SCENARIOS = {
    "seven": (Score(7), 0.0),
    "averaged": (Score(7), 0.5),
    "one": (Score(1), 0.0),
    "sigterm": (Score(7, "sigterm"), 0.0),
    "broken": (Score(7, "broken"), 0.0),
}
APART = "apart"
"""Goes on after "sigterm", of which only the first process's folder has a checkpoint."""


def save(model: nn.Module, path: Path) -> None:
    save_file(model.state_dict(), path)


def run(name: str, folder: Path, *, resumed: Path | None = None) -> None:
    """Train, and write into the folder how it ended: scores, or the error's type and words."""
    score, average = SCENARIOS[name]
    recipe = Recipe(**{**vars(RECIPE), "average": average})
    loader = TrainingLoader(Stripes(10), recipe)
    options: dict[str, Any] = {"device": "cpu", "evaluate": score, "save": save, "trackers": ()}
    try:
        out, resume = resumed or folder, resumed is not None
        said = str(train(Pixels(), loader, recipe, out=out, resume=resume, **options))
    except (SystemExit, OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    (folder / "ended.txt").write_text(f"{score.calls} evaluations\n{said}")


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        place = folder / f"{name}-{os.environ['RANK']}"
        place.mkdir(parents=True)
        if name == APART:
            run("seven", place, resumed=folder / f"sigterm-{os.environ['RANK']}")
        else:
            run(name, place)
    shutdown()


if __name__ == "__main__":
    main()
