"""`pointrend eval`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from pointrend.cli.console import Precision, announce, counting, load_model, show, shown

Metric = Literal["miou", "categories", "trimap", "boundary", "box", "mask", "cityscapes"]


@dataclass(frozen=True)
class Evaluate:
    """Score models, or predictions made before, on a data set with known answers.

    Semantic models: mIoU, trimap mIoU at 1, 3, 5 px and boundary IoU, of the coarse prediction and of PointRend side by
    side. Instance models: box AP, mask AP and Boundary AP as COCO defines them; AP* with --lvis; Cityscapes' own AP on
    its data. Where --points or --mask-sizes compare several ways to render, models without PointRend have one row. What
    each number means: docs/evaluation.md. With --out everything is kept, and the same command goes on where it was
    interrupted. To share the work: torchrun --no-python --nproc-per-node 2 pointrend eval ...
    """

    models: Positional[Annotated[tuple[str, ...], arg(metavar="MODEL ...")]] = ()
    """Checkpoints written by `pointrend train`, or names listed by `pointrend zoo`."""
    class_names: Annotated[tuple[str, ...], arg(aliases=["--classes"])] = ()
    """Names of the models' classes in the order of their outputs, instead of those in the checkpoint: one by one, or a
    COCO JSON of the data they were trained on (by id), or a text file with a name a line."""
    data: str = "shapes"
    """Data set, as for `pointrend train`."""
    split: Literal["train", "val"] = "val"
    """Part of the data set."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to score, as they were chosen for training."""
    limit: int | None = None
    """Score only the first so many images."""
    metrics: tuple[Metric, ...] = ()
    """What to compute; when not given, everything that fits. "boundary" is Boundary AP or boundary IoU, "categories"
    the mIoU of Cityscapes' classes and categories, "cityscapes" its AP."""
    predictions: Path | None = None
    """Score these instead of a model: what `pointrend predict` wrote (its predictions.json, or its folder labels), a
    COCO results file, or a folder of Cityscapes results."""
    lvis: Path | None = None
    """LVIS v0.5 annotations of the images, as released or as `pointrend data lvis-to-coco` makes them: AP* instead of
    AP, on the images that they name."""
    points: tuple[int, ...] = ()
    """Compare so many points in each subdivision step, instead of the model's own number."""
    mask_sizes: tuple[int, ...] = ()
    """Compare the coarse masks with masks rendered at these resolutions, such as 28 56 112 224 (instance models)."""
    flip: bool = False
    """Average with the mirrored image."""
    scales: tuple[float, ...] = ()
    """Average over these sizes, such as 0.5 0.75 1 1.25 1.5 1.75 (semantic models)."""
    output_stride: Literal[8, 16, 32] | None = None
    """DeepLabV3 models: stride of the deepest maps, instead of that in training, such as 8 (better and slower; the
    paper's Table 6)."""
    out: Path | None = None
    """Folder for scores.json (everything), scores.md (rows for a page), and class by class scores and predictions of
    every row."""
    fresh: bool = False
    """Start over instead of going on with what OUT has."""
    json: Path | None = None
    """Also write the scores, class by class, to this file."""
    curves: Path | None = None
    """Also draw AP by the size of objects, or scores by the width of the boundary, into this PNG or PDF file."""
    optimize: Precision | None = None
    """Predict faster: "float32" the same up to rounding, "bfloat16" with products in half precision where the processor
    or GPU is made for it, "auto" the fastest that is exact to rounding."""
    device: str | None = None
    """cpu, cuda, ...; a GPU if there is one, when not given."""

    def run(self) -> int:
        """Score and print a table."""
        announce(f"loading {', '.join(self.models) or self.predictions or 'nothing'}, and {self.data}")
        from pointrend.distributed import join_processes
        from pointrend.evaluate import EvaluationJob, EvaluationOptions

        if bool(self.models) == (self.predictions is not None):
            raise ValueError("give one or more models to score, or --predictions to score without a model")
        if self.output_stride is not None and self.predictions is not None:
            raise ValueError("output_stride: changes a model; with --predictions there is none")
        if self.class_names and self.predictions is not None:
            raise ValueError(
                "class_names: predictions name their classes by the ids of the data; this names models'"
            )
        same = {field.name for field in fields(EvaluationOptions)} - {"curves", "precision"}
        options = EvaluationOptions(
            **{name: getattr(self, name) for name in same},
            curves=self.curves is not None,
            precision=self.optimize,
        )
        shard = join_processes()
        job = EvaluationJob(options, shard)
        if self.predictions is not None:
            rows = job.evaluate_predictions(self.predictions)
        else:
            changes: dict[str, Any] = {
                "optimize": self.optimize,
                "class_names": self.class_names,
                "output_stride": self.output_stride,
            }
            models = {name: load_model(name, **changes) for name in self.models}
            with counting("scoring", None) if shard.first else nullcontext() as progress:
                rows = job.evaluate_models(models, progress)
        if shard.first:
            self._report(rows, job)
        return 0

    def _report(self, rows: list[Any], job: Any) -> None:
        from pointrend.evaluation.report import to_csv, to_json, to_markdown
        from pointrend.io import write_text

        star = "AP is AP*, on LVIS annotations; " if self.lvis is not None else ""
        show(rows, job.task, f"{self.data}, {self.split}: {rows[0].images} images; {star}per cent")
        if self.json is not None:
            write_text(self.json, to_json(rows))
        if self.out is not None:
            write_text(self.out / "scores.json", to_json(rows))
            write_text(self.out / "scores.md", to_markdown(rows, shown(rows, job.task), digits=2))
            for row in rows:
                write_text(job.folder(row.name) / "per_class.csv", to_csv(row))
        if self.curves is not None:
            from pointrend.visualize import plot_scores

            self.curves.parent.mkdir(parents=True, exist_ok=True)
            plot_scores(rows).savefig(self.curves)
