"""A data set and a model of a few numbers, with all kinds of randomness that a real training has."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pointrend.structures import Sample, SemanticTarget


class Greys:
    """Images whose mean grey is the number of the image, changed at random; some cannot be read."""

    def __init__(self, count: int = 10, broken: tuple[int, ...] = ()) -> None:
        self.count = count
        self.broken = broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise ValueError(f"image{index}.png: not a readable image")
        image = (torch.full((3, 4, 4), float(index)) + torch.randint(0, 50, (3, 4, 4))).to(torch.uint8)
        return Sample(image, SemanticTarget(torch.zeros(4, 4, dtype=torch.uint8)), index, f"image{index}.png")


class Fit(nn.Module):
    """Predicts an image's mean grey; drops inputs at random, and has a batch norm with statistics to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 1)
        self.dropped = 0.2

    def loss(self, images: list[Tensor], targets: list[SemanticTarget]) -> dict[str, Tensor]:
        batch = torch.stack(images).float() / 50
        features = nn.functional.dropout(self.backbone(batch), self.dropped).mean((2, 3))
        loss = (self.head(features)[:, 0] - batch.mean((1, 2, 3))).square().mean()
        return {"square": loss, "size": 0.01 * self.head.weight.square().sum()}


@pytest.fixture
def greys() -> type[Greys]:
    return Greys


@pytest.fixture
def fit():
    """Builds the model, always with the same weights."""

    def build() -> Fit:
        torch.manual_seed(3)
        return Fit()

    return build


@pytest.fixture
def same():
    """Whether two models have exactly equal weights and statistics."""

    def compare(one: nn.Module, other: nn.Module) -> bool:
        ours, theirs = one.state_dict(), other.state_dict()
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    return compare


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs `PROGRAM FOLDER NAME...` in two processes (gloo), with the environment that torchrun sets; the folder."""

    def run(program: Path, *names: str) -> Path:
        folder = tmp_path_factory.mktemp("processes")
        common = {
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
        }
        running = [
            subprocess.Popen(
                [sys.executable, str(program), str(folder), *names],
                env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            for process in running:
                said, _ = process.communicate(timeout=600)
                assert process.returncode == 0, said
        finally:
            for process in running:
                process.kill()
        return folder

    return run
