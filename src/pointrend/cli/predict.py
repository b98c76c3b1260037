"""`pointrend predict` and `refine`."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pointrend.cli.console import announce
from pointrend.evaluation.options import Precision

if TYPE_CHECKING:
    from pointrend.predict import Predictor

Format = Literal[
    "labels",
    "coco",
    "coco-results",
    "cvat",
    "label-studio",
    "yolo",
    "voc",
    "labelme",
    "geojson",
    "jsonl",
    "parquet",
]
PARTS = ("jsonl", "parquet", "coco")
STOPPED = 128 + signal.SIGTERM
"""Exit code of a job that was asked to end: what is done is written, the same command goes on."""


@dataclass(frozen=True)
class Predict:
    """Segment images: files, folders, patterns like "photos/*.jpg", URLs, object stores (s3://, gs://, az://, hf://).

    Writes OUT/overlays/NAME.png, and OUT/labels/NAME.png (semantic models) or OUT/predictions.json (instance models,
    COCO format). Unreadable files are named at the end and do not stop the rest; the exit code is 1 then. A run that
    was stopped goes on where it was when it is started again; torchrun shares one among several processes or GPUs.

    For very many images: --format jsonl, parquet or coco with --shard or --list writes a row for each image in parts
    that appear as they are done. The same command again predicts only what is new, has changed or failed. Exit codes: 0
    all done, 1 some images failed, 2 nothing done, 143 stopped by a signal with all parts whole.
    """

    sources: Positional[Annotated[tuple[str, ...], arg(metavar="IMAGE ...")]] = ()
    """Images, folders (searched with their subfolders), quoted patterns, or URLs; s3://bucket/folder/ with a slash at
    its end is what is below it."""
    model: str | None = None
    """A checkpoint written by `pointrend train`, or a name listed by `pointrend zoo`; the model for photographs that
    comes with the package, when not given."""
    out: str = "predictions"
    """Folder to write to; for jobs also an address in an object store."""
    format: tuple[Format, ...] = ()
    """What to write instead of label maps or COCO: "labels" (PNG), "coco" (with images and scores), "coco-results" (the
    list that evaluations take), "cvat", "label-studio", "yolo" (YOLO-seg text), "voc" (Pascal VOC PNGs), "labelme",
    "geojson"; "jsonl" and "parquet" (a row for each image, in parts)."""
    list: str | None = None
    """More images: a file with a path or URL a line, or {"image": ..., "id": ...}; - is the standard input."""
    shard: str | None = None
    """I/N: predict share I (from 0) of N of the images, as one of N processes that know nothing of each other."""
    part_size: int = 1000
    """Images in a part."""
    readers: int = 4
    """Images of a job that are read at the same time; 16 and more for object stores."""
    attempts: int = 5
    """For an object whose store does not answer, with growing pauses."""
    engine: Literal["local", "ray"] = "local"
    """What runs a job: this process, or Ray Data (pip install 'pointrend[ray]')."""
    address: str | None = None
    """Of a Ray cluster, such as ray://host:10001 or auto; one on this computer when not given."""
    workers: int = 1
    """Ray processes, each with its own model."""
    overlays: bool = True
    """Draw the predictions on the images."""
    cutout: bool = False
    """Also write OUT/cutouts/NAME.png: what was found (all but the background, or --classes), the rest transparent."""
    cutout_objects: bool = False
    """Cut out each object, or each class of a label map, into a file of its own."""
    classes: tuple[str, ...] = ()
    """Find these of the model's classes only. Of a file that does not name its classes, their names, if there are as
    many."""
    class_names: tuple[str, ...] = ()
    """Names of all the model's classes in the order of its outputs, instead of those in the checkpoint: one by one, or
    a COCO JSON of the data that it was trained on (by id), or a text file with a name a line."""
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
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision where the processor
    or GPU is made for it, "auto" the fastest that is exact to rounding."""
    output_stride: Literal[8, 16, 32] | None = None
    """DeepLabV3 models: stride of the deepest maps, instead of that in training, such as 8 (better and slower; the
    paper's Table 6)."""
    full_resolution: bool = False
    """The network sees every pixel, also of a large image that it would see shrunk: slower, and much more memory. The
    bundled model has outlines in the image's own pixels without it."""
    window: tuple[int, int] | None = None
    """Semantic models: see the image through overlapping windows of so many rows and columns, for images too large
    for the network."""
    max_pixels: int = 2**25
    """Larger images are skipped and named, since they may not fit into memory."""

    def run(self) -> int:
        """Predict; 1 if some of the files failed, 2 if all did."""
        if not self.sources and self.list is None:
            raise ValueError("name at least one image, folder or pattern: pointrend predict photos/")
        job = self._is_job()
        announce(f"loading {self.model or 'the bundled model'}")
        from rich.console import Console

        from pointrend.checkpoints.class_names import read_names
        from pointrend.cli.console import load_model, with_sliding_windows
        from pointrend.distributed import main_process
        from pointrend.predict import Output, Predictor
        from pointrend.zoo.bundled import BUNDLED

        name = self.model or next(one.name for one in BUNDLED.values() if one.task == "semantic")
        model = load_model(
            name,
            optimize=self.optimize,
            class_names=self.class_names,
            names_if_none=self.classes,
            output_stride=self.output_stride,
            full_resolution=self.full_resolution,
        )
        own, chosen = model.config.class_names, read_names(self.classes) if self.classes else ()
        if {*chosen} - {*own} and not self.class_names and len(chosen) == len(own):
            raise ValueError(
                f"classes: finds some of the model's classes, which are {', '.join(own[:20])}; to give them other "
                "names, use --class-names"
            )
        if self.model is None:
            announce(f"using the bundled {name}, which finds {', '.join(own[:21])}; --model takes another")
        predictor = Predictor(
            with_sliding_windows(model, self.window),
            device=self.device,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            min_score=self.min_score,
            classes=chosen if {*chosen} != {*own} else (),
        )
        if job:
            return self._run_job(predictor)
        cutouts: Literal["none", "image", "objects"] = "image" if self.cutout else "none"
        formats = tuple(one for one in self.format if one != "jsonl" and one != "parquet")
        output = Output(formats, self.overlays, cutouts="objects" if self.cutout_objects else cutouts)
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

    def _is_job(self) -> bool:
        """Whether rows are written in parts; what does not fit to it is refused."""
        rows = [one for one in self.format if one in ("jsonl", "parquet")]
        reasons = [
            *rows,
            *([] if self.list is None else ["--list"]),
            *([] if self.shard is None else ["--shard"]),
        ]
        if self.engine != "local":
            reasons.append("--engine")
        if "://" in self.out:
            reasons.append(self.out)
        if self.engine == "local":
            self._refuse_changed("--engine ray", "address", "workers")
        if not reasons:
            self._refuse_changed("jobs, such as with --format jsonl", "part_size", "readers", "attempts")
            return False
        if len(self.format) > 1 or not {*self.format} <= {*PARTS}:
            raise ValueError(
                f"format: {reasons[0]} writes rows in parts: expected one of {', '.join(PARTS)}, got "
                f"{', '.join(self.format)}"
            )
        if self.cutout or self.cutout_objects or self.like is not None:
            raise ValueError(
                f"{reasons[0]} writes rows in parts, and neither cut-outs nor the ids of --like; give ids in the list"
            )
        return True

    def _refuse_changed(self, where: str, *options: str) -> None:
        """Raise a ValueError for the first of these options that is not as by default."""
        for name in options:
            if getattr(self, name) != getattr(Predict, name):
                raise ValueError(f"{name}: is for {where} only; leave it out")

    def _run_job(self, predictor: Predictor) -> int:
        """Predict in parts; prints a summary as JSON."""
        import logging

        from pointrend.predict.job import JobOptions, run_job
        from pointrend.predict.tasks import find_tasks, parse_shard, shard_from_environment
        from pointrend.signals import stopping

        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("pointrend").setLevel(logging.INFO)
        shard = shard_from_environment() if self.shard is None else parse_shard(self.shard)
        options = JobOptions(
            format=self.format[0] if self.format else "jsonl",  # type: ignore[arg-type]  # checked above
            part_size=self.part_size,
            shard=shard,
            fresh=self.fresh,
            readers=self.readers,
            attempts=self.attempts,
        )
        predict = None
        if self.engine == "ray":
            from pointrend.predict.ray_engine import RayEngine

            predict = RayEngine(self.workers, self.address)
        with stopping(signal.SIGTERM, after="this part") as stop:
            tasks = find_tasks(self.sources, self.list)
            summary = run_job(predictor, tasks, self.out, options, stop=stop, predict=predict)
        print(json.dumps(summary.to_dict()))
        if summary.stopped:
            return STOPPED
        if not summary.failures:
            return 0
        return 1 if summary.images + summary.skipped else 2


@dataclass(frozen=True)
class Refine:
    """Sharpen a mask from anywhere: move its outlines to those of the image.

    For masks of any kind of object from a labeller or another network that are shifted by some pixels, too small, too
    large, or have holes; docs/results.md says where it helps and where not. A label map is refined label by label. The
    mask covers the whole image.
    """

    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """The image."""
    mask: Positional[Annotated[Path, arg(metavar="MASK")]]
    """An image of a mask or of labels (PNG; 0 or black is outside), an array (.npy: booleans, labels, probabilities or
    logits), or COCO's run lengths (.json)."""
    soft: bool = False
    """The mask is a grey image, also a JPEG, of one object with soft edges: 0 outside, 255 inside."""
    out: Path | None = None
    """File to write: .png, .npy, or .json (run lengths); MASK-refined.png beside the mask when not given."""

    def run(self) -> int:
        """Refine and write."""
        out = self.out or self.mask.with_name(f"{self.mask.stem}-refined.png")
        if out.suffix not in (".png", ".npy", ".json"):
            raise ValueError(f"out: expected a name ending in .png, .npy or .json, got {out}")
        announce("loading the mask refiner")
        import torch

        from pointrend.predict.refine import read_mask, refine_mask, write_mask

        refined = refine_mask(self.image, read_mask(self.mask, soft=self.soft))
        write_mask(refined, out)
        what = "the mask" if refined.dtype == torch.bool else f"{len(refined.unique())} labels"
        print(f"refined {what}, see {out}")
        return 0
