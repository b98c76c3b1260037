"""`pointrend predict`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pointrend.cli.console import Precision, announce

Format = Literal[
    "labels", "coco", "coco-results", "cvat", "label-studio", "yolo", "voc", "labelme", "geojson"
]


@dataclass(frozen=True)
class Predict:
    """Segment images: files, folders, patterns like "photos/*.jpg", URLs.

    Writes OUT/overlays/NAME.png, and OUT/labels/NAME.png (semantic models) or OUT/predictions.json (instance models,
    COCO format). Unreadable files are named at the end and do not stop the rest; the exit code is 1 then. A run that
    was stopped goes on where it was when it is started again; torchrun shares one among several processes or GPUs.
    """

    sources: Positional[Annotated[tuple[str, ...], arg(metavar="IMAGE ...")]] = ()
    """Images, folders (searched with their subfolders), quoted patterns, or URLs."""
    model: str | None = None
    """A checkpoint written by `pointrend train`, or a name listed by `pointrend zoo`; the model for photographs that
    comes with the package, when not given."""
    out: Path = Path("predictions")
    """Folder to write to."""
    format: tuple[Format, ...] = ()
    """What to write instead of label maps or COCO: "labels" (PNG), "coco" (with images and scores), "coco-results" (the
    list that evaluations take), "cvat", "label-studio", "yolo" (YOLO-seg text), "voc" (Pascal VOC PNGs), "labelme",
    "geojson"."""
    overlays: bool = True
    """Draw the predictions on the images."""
    cutout: bool = False
    """Also write OUT/cutouts/NAME.png: what was found (all but the background, or --classes), the rest transparent."""
    cutout_objects: bool = False
    """Cut out each object, or each class of a label map, into a file of its own."""
    classes: tuple[str, ...] = ()
    """Some of the model's classes: find these only. Or other names for all its classes, in the order of its outputs:
    one by one, or a COCO JSON of the data that it was trained on (by id), or a text file with a name a line."""
    min_score: float | None = None
    """Leave out objects with a lower score, in files too. When not given, files have all and drawings those of 0.5."""
    like: Path | None = None
    """COCO annotations: images and classes get the ids that they have there, so that they can be scored by it."""
    fresh: bool = False
    """Start over instead of going on with a run that was stopped."""
    batch_size: int = 1
    """Neighbouring images of equal size predicted together."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; a GPU if there is one, when not given."""
    optimize: Precision | None = None
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision."""
    output_stride: Literal[8, 16, 32] | None = None
    """DeepLabV3 models: stride of the deepest maps, instead of that in training, such as 8 (better and slower; the
    paper's Table 6)."""
    window: tuple[int, int] | None = None
    """Semantic models: see the image through overlapping windows of so many rows and columns, for images too large
    for the network."""
    max_pixels: int = 2**25
    """Larger images are skipped and named, since they may not fit into memory."""

    def run(self) -> int:
        """Predict; 1 if some of the files failed, 2 if all did."""
        if not self.sources:
            raise ValueError("name at least one image, folder or pattern: pointrend predict photos/")
        announce(f"loading {self.model or 'the bundled model'}")
        from rich.console import Console

        from pointrend.checkpoints.class_names import read_names
        from pointrend.cli.console import load_model, through_windows
        from pointrend.distributed import main_process
        from pointrend.predict import Output, Predictor
        from pointrend.zoo.bundled import BUNDLED

        name = self.model or next(one.name for one in BUNDLED.values() if one.task == "semantic")
        model = load_model(
            name,
            optimize=self.optimize,
            classes=self.classes,
            choose=True,
            output_stride=self.output_stride,
        )
        own, chosen = model.config.class_names, read_names(self.classes) if self.classes else ()
        if {*chosen} == {*own} and tuple(chosen) != tuple(own):
            raise ValueError(
                f"classes: these are all of the model's own, in another order than {', '.join(own)}: leave --classes "
                "away to find all of them, or rename them by `pointrend convert --classes` first"
            )
        if self.model is None:
            announce(f"using the bundled {name}, which finds {', '.join(own[:21])}; --model takes another")
        predictor = Predictor(
            through_windows(model, self.window),
            device=self.device,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            min_score=self.min_score,
            classes=chosen if {*chosen} < {*own} else (),
        )
        cutouts: Literal["none", "image", "objects"] = "image" if self.cutout else "none"
        output = Output(self.format, self.overlays, cutouts="objects" if self.cutout_objects else cutouts)
        report = predictor.save(
            self.sources, self.out, output, like=self.like, fresh=self.fresh, progress=main_process()
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
