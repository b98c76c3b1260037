"""Thousands of images through `predict`: memory while they stream, and images a second.

    python benchmarks/many_images.py --images 5000

The images are tiny and the network is a stub, so all there is to see is what the package itself keeps for each
image and how long it takes. Resident memory is read when a tenth, a half and all of the images are done.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import resident
from torch import Tensor

from pointrend.predict import Output, Predictor
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks


@dataclass
class Config:
    class_names: tuple[str, ...] = ("bright",)


@dataclass
class Stub:
    """Finds one object, the whole image; notes the process's memory now and then."""

    marks: tuple[int, ...]
    config: Config = field(default_factory=Config)
    seen: int = 0
    resident: dict[int, int] = field(default_factory=dict)

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        results = []
        for image in images:
            self.seen += 1
            if self.seen in self.marks:
                self.resident[self.seen] = resident()
            masks = InstanceMasks.from_dense(torch.ones(1, *image.shape[1:], dtype=torch.bool))
            box = torch.tensor([[0.0, 0, image.shape[2], image.shape[1]]])
            one = torch.zeros(1, dtype=torch.int64)
            results.append(InstanceResult(box, one, torch.ones(1), masks, self.config.class_names))
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--overlays", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = arguments.images
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        pixels = np.full((arguments.side, arguments.side, 3), 128, dtype=np.uint8)
        for number in range(count):
            Image.fromarray(pixels).save(source / f"{number:06d}.png")
        model = Stub((count // 10, count // 2, count))
        started = time.perf_counter()
        report = Predictor(model, device="cpu").save(
            [source], Path(folder) / "out", Output(overlays=arguments.overlays)
        )
        seconds = time.perf_counter() - started
    marks = ", ".join(f"{size / 2**20:.1f} MiB after {seen}" for seen, size in model.resident.items())
    print(f"{len(report.predicted)} images, {len(report.predicted) / seconds:.0f} a second; {marks}")


if __name__ == "__main__":
    main()
