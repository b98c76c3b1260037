"""`pointrend eval`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from pointrend.cli.console import announce, counting, load_model, show, shown
from pointrend.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluationOptions):
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
    predictions: Path | None = None
    """Score these instead of a model: what `pointrend predict` wrote (its predictions.json, or its folder labels), a
    COCO results file, or a folder of Cityscapes results."""
    json: Path | None = None
    """Also write the scores, class by class, to this file."""

    def run(self) -> int:
        """Score and print a table."""
        announce(f"loading {', '.join(self.models) or self.predictions or 'nothing'}, and {self.data}")
        from pointrend.distributed import join_processes
        from pointrend.evaluate import EvaluationJob

        if bool(self.models) == (self.predictions is not None):
            raise ValueError("give one or more models to score, or --predictions to score without a model")
        if self.output_stride is not None and self.predictions is not None:
            raise ValueError("output_stride: changes a model; with --predictions there is none")
        if self.class_names and self.predictions is not None:
            raise ValueError(
                "class_names: predictions name their classes by the ids of the data; this names models'"
            )
        shard = join_processes()
        job = EvaluationJob(self, shard)
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
