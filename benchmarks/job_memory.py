"""Memory of a job of very many images: what reading, sorting, writing and remembering take, without a network.

    python -m benchmarks.job_memory --images 100000 --format parquet

A stand-in for a model finds one object in each image of 16x16 pixels; names are links to a few files. Prints the
process's memory as the job goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from pointrend.predict import Predictor
from pointrend.predict.job import JobOptions, run_job
from pointrend.predict.tasks import Task, find_tasks
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks


@dataclass
class OneObject:
    """Finds a square of four pixels in every image."""

    config: Any = field(default_factory=lambda: SimpleNamespace(class_names=("square",)))

    def predict(self, images: Sequence[torch.Tensor]) -> list[InstanceResult]:
        """One result each."""
        return [self._found(image.shape[1], image.shape[2]) for image in images]

    def _found(self, height: int, width: int) -> InstanceResult:
        mask = torch.zeros((1, height, width), dtype=torch.bool)
        mask[0, 2:4, 2:4] = True
        box, label = torch.tensor([[2.0, 2.0, 4.0, 4.0]]), torch.zeros(1, dtype=torch.int64)
        return InstanceResult(
            box, label, torch.ones(1), InstanceMasks.from_dense(mask), self.config.class_names
        )


def memory_mb() -> float:
    """Megabytes that this process has in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def make_list(folder: Path, count: int) -> Path:
    """A list of so many names, links to 100 files."""
    folder.mkdir(parents=True)
    for number in range(min(count, 100)):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    listed = folder / "list.txt"
    with listed.open("w") as file:
        for number in range(count):
            path = folder / f"{number}.png"
            if number >= 100:
                os.link(folder / f"{number % 100}.png", path)
            file.write(f"{path}\n")
    return listed


def watched(tasks: Iterator[Task], every: int) -> Iterator[Task]:
    """The tasks; the memory is printed now and then."""
    begun = time.monotonic()
    for number, task in enumerate(tasks):
        if number % every == 0:
            print(f"{number:9,} images  {time.monotonic() - begun:7.1f} s  {memory_mb():7.1f} MB", flush=True)
        yield task


def main() -> None:
    """Run a job, and the same again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--format", default="parquet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        listed = str(make_list(Path(folder) / "in", arguments.images))
        for _ in range(2):
            tasks = watched(find_tasks([], listed), max(1, arguments.images // 10))
            predictor = Predictor(OneObject(), device="cpu")
            summary = run_job(predictor, tasks, Path(folder) / "out", JobOptions(arguments.format))
            print(f"{memory_mb():.1f} MB at the end", json.dumps(summary.to_dict()))


if __name__ == "__main__":
    main()
