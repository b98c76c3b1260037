"""The evaluation job: open the data, choose variants and metrics, keep predictions, score.

    job = EvaluationJob(EvaluationOptions(data="data/mine", out=Path("scores")), join_processes())
    rows = job.evaluate_models({"model.safetensors": pointrend.load("model.safetensors")})

What is counted, and how, is in `pointrend.evaluation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointrend.checkpoints.download import file_hash
from pointrend.data.build import open_dataset
from pointrend.data.cityscapes import Cityscapes
from pointrend.data.class_mapping import match_classes
from pointrend.distributed import Shard
from pointrend.evaluation.cityscapes_results import CityscapesResults
from pointrend.evaluation.evaluate_instances import evaluate_detections, evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.external_results import ExternalDetections
from pointrend.evaluation.ground_truth import Subset
from pointrend.evaluation.loop import Options, Progress
from pointrend.evaluation.options import EvaluationOptions
from pointrend.evaluation.prediction_store import SavedDetections, SavedLabels, file_name_of
from pointrend.evaluation.report import Scores
from pointrend.formats.lvis import cocofy_lvis
from pointrend.models.rendering_variants import MaskVariants, mask_variants, semantic_variants
from pointrend.predict import Predictor, output_names
from pointrend.results import Model
from pointrend.run_folder import RunFolder
from pointrend.structures import Dataset, Task

if TYPE_CHECKING:
    from pointrend.models.base import Pretrained


SIZE_EDGES = (0, 16, 32, 48, 64, 96, 128, 192, 256, 384, 1024)  # pixels, for curves
WIDTHS = (1, 2, 3, 5, 8, 12, 20)
METRICS: dict[Task, tuple[str, ...]] = {
    "semantic": ("miou", "categories", "trimap", "boundary"),
    "instance": ("box", "mask", "boundary", "cityscapes"),
}


class EvaluationJob:
    """One evaluation, shared by the processes that torchrun started.

    Args:
        options: what to score on, and how.
        shard: this process among those that share the work.
    """

    def __init__(self, options: EvaluationOptions, shard: Shard) -> None:
        self.options, self.shard = options, shard
        self.task: Task = "semantic"
        self.truth: dict[str, Any] | None = None
        self.without_lvis: set[int | str] = set()

    def evaluate_models(
        self, models: Mapping[str, Pretrained], progress: Progress | None = None
    ) -> list[Scores]:
        """A row for each model and variant, models one after the other.

        Args:
            models: by the name or file that each was loaded from.
            progress: called with the images done and those in all, for each model.

        Raises:
            ValueError: models of different tasks, classes other than the data's, metrics or options that do not fit.
        """
        rows: list[Scores] = []
        tasks = {model.task for model in models.values()}
        if len(tasks) > 1:
            raise ValueError("models: expected all of one task, got instance and semantic models")
        [task] = tasks
        data = self._open(task)
        if self.task != task:
            raise ValueError(
                f"data: {self.options.data} is data for {self.task} segmentation, the models are for {task} "
                "segmentation"
            )
        for model in models.values():
            Predictor(model, device=self.options.device)  # moves it there
        data_of = {  # labels in the order of each model's classes
            name: Subset(match_classes(data.data, model.config.class_names, of="the model"), data.indices)
            for name, model in models.items()
        }
        rendering = any(_renders(model) for model in models.values())
        score: Callable[..., list[Scores]] = (
            evaluate_semantic if self.task == "semantic" else evaluate_instances
        )
        for (name, model), label in zip(models.items(), _short(list(models)), strict=True):
            data = data_of[name]
            # Beside a model that is rendered in several ways, one without points has its single row.
            seen, variants = self._variants(model, compared=_renders(model) or not rendering)
            if len(models) > 1:
                alone = len(variants) == 1
                variants = {label if alone else f"{label}, {row}": own for row, own in variants.items()}
            with ExitStack() as folders:
                stores = self._stores(name, data, variants, folders)
                settings = self._settings(data)
                rows += score(seen, data, variants, stores=stores, progress=progress, **settings)
        return rows

    def evaluate_predictions(self, source: Path) -> list[Scores]:
        """The row of the predictions in a file or folder.

        Raises:
            ValueError: there are none, or they do not fit the data.
        """
        if not source.exists():
            raise ValueError(f"{source}: no such file or folder of predictions")
        data = self._open(None)
        settings = self._settings(data)
        variants: dict[str, Options] = {source.stem: {}}
        if self.task == "semantic":
            maps = {source.stem: self._labels(source, data)}
            return evaluate_semantic(
                None, data, variants, class_names=data.class_names, stores=maps, **settings
            )
        city = isinstance(data.data, Cityscapes)
        if source.is_dir() and not city:
            raise ValueError(f"{source}: expected a COCO results file for this data set, got a folder")
        if city:
            own = CityscapesResults(source) if source.is_dir() else ExternalDetections(source, data)
            return evaluate_instances(None, data, variants, stores={source.stem: own}, **settings)
        others = self.without_lvis
        return [
            evaluate_detections(
                source, data, class_names=data.class_names, other_image_ids=others, **settings
            )
        ]

    def folder(self, row: str) -> Path:
        """Where a row's predictions and class by class scores are kept."""
        assert self.options.out is not None
        return self.options.out / file_name_of(row)

    def _open(self, task: Task | None) -> Subset:
        options = self.options
        named = options.data.endswith((":semantic", ":instance"))
        name = options.data if named or task is None else f"{options.data}:{task}"
        data = open_dataset(name, options.split, categories=options.categories or None)
        self.task = data.task
        if options.lvis is not None:
            data = self._on_lvis(data)
        return Subset.first(data, options.limit)

    def _on_lvis(self, data: Dataset) -> Subset:
        """The images that LVIS annotated; its annotations become the truth."""
        if self.task != "instance" or data.as_coco() is None:
            raise ValueError("lvis: expected COCO's images and an instance model; AP* is defined for these")
        assert self.options.lvis is not None
        self.truth = cocofy_lvis(self.options.lvis)
        annotated = {image["id"] for image in self.truth["images"]}
        self.without_lvis = set(data.image_ids) - annotated
        return Subset.with_ids(data, annotated)

    def _variants(self, model: Pretrained, *, compared: bool) -> tuple[Model, dict[str, Options]]:
        from pointrend.models.instance import InstanceSegmenter
        from pointrend.models.semantic_model import SemanticModel

        options = self.options
        augmented = options.flip or bool(options.scales)
        if augmented and not isinstance(model, InstanceSegmenter | SemanticModel):
            raise ValueError("flip, scales: expected a checkpoint, not an exported file")
        if isinstance(model, InstanceSegmenter) and augmented:
            if options.scales or options.mask_sizes or options.points:
                raise ValueError(
                    "flip: instances are averaged over mirroring alone, without --scales, --mask-sizes, --points"
                )
            from pointrend.models.tta import FlippedInstances

            return FlippedInstances(model), {f"{model.config.mask_head}, flip": {}}
        if self.task == "semantic" and options.mask_sizes:
            raise ValueError("mask_sizes: label maps have the image's own size; leave --mask-sizes out")
        sizes, points = (options.mask_sizes, options.points) if compared else ((), ())
        seen, variants = variants_of(model, sizes, points)
        if isinstance(model, SemanticModel) and augmented:
            from pointrend.models.tta import AugmentedSemantic

            seen = AugmentedSemantic(model, scales=options.scales or (1.0,), flip=options.flip)
        return seen, variants

    def _settings(self, data: Subset) -> dict[str, Any]:
        """Keyword arguments of the scoring functions."""
        options, city = self.options, isinstance(data.data, Cityscapes)
        chosen = [metric for metric in METRICS[self.task] if metric in options.metrics]
        unknown = sorted(set(options.metrics) - set(chosen))
        if unknown:
            raise ValueError(
                f"metrics: expected some of {', '.join(METRICS[self.task])} for {self.task} segmentation,"
                f" got {', '.join(unknown)}"
            )
        if self.task == "semantic":
            usual = ["categories" if city else "miou", "trimap", "boundary"]
            return {"metrics": chosen or usual, "widths": WIDTHS if options.curves else None}
        if not city and "cityscapes" in chosen:
            raise ValueError("metrics: cityscapes is for data in Cityscapes' own folders")
        usual = ["box", "mask", "boundary", *(["cityscapes"] if city else [])]
        settings: dict[str, object] = {
            "metrics": chosen or usual,
            "size_edges": SIZE_EDGES if options.curves else (),
        }
        if self.truth is not None:
            known = {category["id"] for category in self.truth["categories"]}
            others = [one for one in data.category_ids if one not in known]
            settings |= {"ground_truth": self.truth, "protocol": "lvis", "other_category_ids": others}
        return settings

    def _stores(
        self, name: str, data: Subset, variants: Mapping[str, Options], folders: ExitStack
    ) -> dict[str, SavedLabels | SavedDetections | CityscapesResults]:
        if self.options.out is None:
            return {}
        options = self.options
        run: dict[str, object] = {
            "model": name,
            # A name of the zoo stands for itself.
            "sha256": file_hash(name) if Path(name).is_file() else None,
            "data": options.data,
            "split": options.split,
            "images": len(data),
            # The ids matter: a finished run has no line for an image in which nothing was found.
            "ids": hashlib.sha256(json.dumps(data.image_ids).encode()).hexdigest(),
            "categories": options.categories,
            "flip": options.flip,
            "scales": options.scales,
        }
        changed = {"precision": options.optimize, "output_stride": options.output_stride}
        run |= {name: value for name, value in changed.items() if value is not None}
        stores: dict[str, SavedLabels | SavedDetections | CityscapesResults] = {}
        for row, own in variants.items():
            settings = run | {"options": dict(own)}
            folder = folders.enter_context(
                RunFolder(self.folder(row), settings, shard=self.shard, fresh=options.fresh)
            )
            if self.task == "semantic":
                stores[row] = self._labels(self.folder(row) / "labels", data)
            elif isinstance(data.data, Cityscapes):
                stores[row] = CityscapesResults(self.folder(row) / "results")
            else:
                stores[row] = SavedDetections(folder)
        return stores

    def _labels(self, folder: Path, data: Subset) -> SavedLabels:
        """Cityscapes' label maps carry its own ids, as its server wants them; others are coloured for viewers."""
        city, known = isinstance(data.data, Cityscapes), data.data.image_ids
        ids, palette = (data.category_ids, ()) if city else (None, data.palette)
        return SavedLabels(folder, file_ids=ids, palette=palette, known=known)


def variants_of(
    model: Pretrained, mask_sizes: Sequence[int] = (), points: Sequence[int] = ()
) -> tuple[Model, dict[str, Options]]:
    """The model, as it is to be run, and its rows: name -> options of `predict`."""
    if model.task == "instance":
        if not mask_sizes and not points:
            return model, {str(getattr(model.config, "mask_head", "exported")): {}}
        return MaskVariants(model), mask_variants(mask_sizes, points)
    if not _renders(model):
        if points:
            raise ValueError("points: the model has no point head")
        return model, {"interpolated" if hasattr(model.config, "point_rend") else "exported": {}}
    if points:
        return model, semantic_variants(points)
    return model, {"coarse, interpolated": {"refine": False}, "PointRend": {}}


def _short(models: Sequence[str]) -> list[str]:
    """Names for rows: of files, what tells them apart."""
    if not all(Path(model).is_file() for model in models):
        return list(models)
    names = output_names([Path(model) for model in models])
    folders, files = zip(*((name.rpartition("/")[0], name.rpartition("/")[2]) for name in names), strict=True)
    return list(folders) if all(folders) and len(set(files)) == 1 else names


def _renders(model: Pretrained) -> bool:
    """Whether the model has points, so that there are several ways to render what it predicts."""
    if model.task == "instance":
        return hasattr(getattr(model, "mask_head", None), "point_head")
    return getattr(model.config, "point_rend", None) is not None


def evaluate_model(model: Pretrained, data: Dataset, *, progress: Progress | None = None) -> list[Scores]:
    """Rows of scores with the usual metrics: for a semantic model with PointRend the coarse prediction first."""
    evaluate = evaluate_instances if model.task == "instance" else evaluate_semantic
    return evaluate(model, data, variants_of(model)[1], progress=progress)
