"""`pointrend predict`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pointrend.cli.console import Precision


@dataclass(frozen=True)
class Predict:
    """Segment images: files, folders, patterns like "photos/*.jpg".

    Writes OUT/overlays/NAME.png, and OUT/labels/NAME.png (semantic models) or OUT/predictions.json (instance models,
    COCO format). Unreadable files are named at the end and do not stop the rest; the exit code is 1 then. A run that
    was stopped goes on where it was when it is started again; torchrun shares one among several processes or GPUs.
    """

    sources: Positional[Annotated[tuple[str, ...], arg(metavar="IMAGE ...")]]
    """Images, folders (searched with their subfolders), or quoted patterns."""
    model: str
    """A checkpoint written by `pointrend train`, or a name listed by `pointrend zoo`."""
    classes: tuple[str, ...] = ()
    """Names of the model's classes in the order of its outputs, instead of those in the checkpoint: one by one, or a
    COCO JSON of the data it was trained on (by id), or a text file with a name a line."""
    out: Path = Path("predictions")
    """Folder to write to."""
    overlays: bool = True
    """Draw the predictions on the images."""
    min_score: float = 0.5
    """Objects with a lower score are not drawn; predictions.json has them all."""
    batch_size: int = 1
    """Neighbouring images of equal size predicted together."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    optimize: Precision | None = None
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision."""
    fresh: bool = False
    """Start over instead of going on with a run that was stopped."""
    window: tuple[int, int] | None = None
    """Semantic models: see the image through overlapping windows of so many rows and columns, for images too large
    for the network."""
    max_pixels: int = 2**25
    """Larger images are skipped and named, since they may not fit into memory."""

    def run(self) -> int:
        """Predict; 1 if some of the files failed, 2 if all did."""
        if not self.sources:
            raise ValueError(
                "name at least one image, folder or pattern: pointrend predict photos/ --model ..."
            )
        from rich.console import Console

        from pointrend.cli.console import load_model, through_windows
        from pointrend.distributed import main_process
        from pointrend.predict import Predictor

        predictor = Predictor(
            through_windows(
                load_model(self.model, optimize=self.optimize, classes=self.classes), self.window
            ),
            device=self.device,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
        )
        report = predictor.save(
            self.sources,
            self.out,
            overlays=self.overlays,
            min_score=self.min_score,
            fresh=self.fresh,
            progress=main_process(),
        )
        if not main_process():
            return 0
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        for failure in report.failures:
            console.print(f"not predicted: {failure.path}: {failure.reason}", style="red", markup=False)
        count = len(report.predicted)
        print(f"{count} {'image' if count == 1 else 'images'} predicted, see {report.out}")
        sys.stdout.flush()
        if not report.failures:
            return 0
        return 1 if count else 2
