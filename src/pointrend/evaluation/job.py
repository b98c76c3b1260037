"""What `pointrend eval` does: open the data, choose variants and metrics, keep predictions, score."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pointrend.cli.console import load_model, quiet_unless
from pointrend.cli.evaluate import Evaluate
from pointrend.data.build import open_dataset
from pointrend.data.cityscapes import Cityscapes
from pointrend.distributed import Shard, leave
from pointrend.evaluation.cityscapes_results import CityscapesResults
from pointrend.evaluation.evaluate_instances import compare_instances, evaluate_instances, score_detections
from pointrend.evaluation.evaluate_semantic import compare_semantic, evaluate_semantic
from pointrend.evaluation.external_results import GivenDetections
from pointrend.evaluation.ground_truth import Part
from pointrend.evaluation.lvis import cocofy_lvis
from pointrend.evaluation.prediction_store import SavedDetections, SavedLabels, claim_folder, file_name_of
from pointrend.evaluation.rendering_variants import MaskVariants, mask_variants, semantic_variants
from pointrend.evaluation.report import Scores
from pointrend.metadata.coco import SYNSET_TABLE
from pointrend.predict import Predictor, output_names

SIZE_EDGES = (0, 16, 32, 48, 64, 96, 128, 192, 256, 384, 1024)  # pixels, for curves
WIDTHS = (1, 2, 3, 5, 8, 12, 20)
METRICS = {
    "semantic": ("miou", "categories", "trimap", "boundary"),
    "instance": ("box", "mask", "boundary", "cityscapes"),
}


class Job:
    """One `pointrend eval`.

    Args:
        wishes: its options.
        shard: this process among those that share the work.
    """

    def __init__(self, wishes: Evaluate, shard: Shard) -> None:
        self.wishes, self.shard = wishes, shard
        self.task = ""
        self.truth: dict[str, Any] | None = None
        self.without_lvis: set[int | str] = set()

    def score_models(self) -> list[Scores]:
        """A row for each model and variant, models one after the other."""
        rows: list[Scores] = []
        names = self.wishes.models
        # All of them first: what does not fit together is said before hours of scoring.
        loaded = [load_model(name, optimize=self.wishes.optimize) for name in names]
        models = [Predictor(model, device=self._device()).model for model in loaded]
        tasks = {task_of(model) for model in models}
        if len(tasks) > 1:
            raise ValueError("models: expected all of one task, got instance and semantic models")
        data = self._open(tasks.pop())
        for model in models:
            _check_classes(model.config.class_names, data, self.wishes.data)
        rendering = any(_renders(model) for model in models)
        for name, label, model in zip(names, _short(names), models, strict=True):
            # Beside a model that is rendered in several ways, one without points has its single row.
            seen, variants = self._variants(model, compared=_renders(model) or not rendering)
            if len(names) > 1:
                alone = len(variants) == 1
                variants = {label if alone else f"{label}, {row}": own for row, own in variants.items()}
            stores = self._stores(name, data, variants)
            with quiet_unless(self.shard.first, "scoring", len(data)) as progress:
                rows += self._compare(seen, data, variants, stores, progress)
        return rows

    def score_saved(self) -> list[Scores]:
        """The row of the predictions in a file or folder."""
        source = self.wishes.predictions
        assert source is not None
        if not source.exists():
            raise ValueError(f"{source}: no such file or folder of predictions")
        data = self._open(None)
        options: dict[str, Any] = {**self._options(data), "name": source.stem}
        if self.task == "semantic":
            store = self._labels(source, data)
            return [evaluate_semantic(None, data, class_names=data.class_names, store=store, **options)]
        city = isinstance(data.data, Cityscapes)
        if source.is_dir() and not city:
            raise ValueError(f"{source}: expected a COCO results file for this data set, got a folder")
        if city:
            own = CityscapesResults(source) if source.is_dir() else GivenDetections(source, data)
            return [evaluate_instances(None, data, store=own, **options)]
        others = self.without_lvis
        return [
            score_detections(source, data, class_names=data.class_names, other_image_ids=others, **options)
        ]

    def folder(self, row: str) -> Path:
        """Where a row's predictions and class by class scores are kept."""
        assert self.wishes.out is not None
        return self.wishes.out / file_name_of(row)

    def _open(self, task: str | None) -> Part:
        wishes = self.wishes
        named = wishes.data.endswith((":semantic", ":instance"))
        name = wishes.data if named or task is None else f"{wishes.data}:{task}"
        data: Any = open_dataset(name, wishes.split, categories=wishes.categories or None)
        self.task = data.task
        if wishes.lvis is not None:
            data = self._on_lvis(data)
        return Part.first(data, wishes.limit)

    def _on_lvis(self, data: Any) -> Part:
        """The images that LVIS annotated; its annotations become the truth."""
        if self.task != "instance" or not hasattr(data, "as_coco"):
            raise ValueError("lvis: expected COCO's images and an instance model; AP* is defined for these")
        assert self.wishes.lvis is not None
        self.truth = cocofy_lvis(self.wishes.lvis, SYNSET_TABLE)
        annotated = {image["id"] for image in self.truth["images"]}
        self.without_lvis = set(data.image_ids) - annotated
        return Part.with_ids(data, annotated)

    def _variants(self, model: Any, *, compared: bool) -> tuple[Any, dict[str, Mapping[str, Any]]]:
        wishes = self.wishes
        augmented = wishes.flip or bool(wishes.scales)
        if self.task == "instance" and augmented:
            if wishes.scales or wishes.sides or wishes.points:
                raise ValueError(
                    "flip: instances are averaged over mirroring alone, without --scales, --sides, --points"
                )
            from pointrend.models.tta import FlippedInstances

            return FlippedInstances(model), {f"{model.config.head}, flip": {}}
        if self.task == "semantic" and wishes.sides:
            raise ValueError("sides: label maps are rendered at the image's own size; leave --sides out")
        sides, points = (wishes.sides, wishes.points) if compared else ((), ())
        seen, variants = variants_of(model, sides, points)
        if augmented:
            from pointrend.models.tta import AugmentedSemantic

            seen = AugmentedSemantic(model, scales=wishes.scales or (1.0,), flip=wishes.flip)
        return seen, variants

    def _options(self, data: Part) -> dict[str, Any]:
        """Keyword arguments of the scoring functions."""
        wishes, city = self.wishes, isinstance(data.data, Cityscapes)
        chosen = [metric for metric in METRICS[self.task] if metric in wishes.metrics]
        strange = sorted(set(wishes.metrics) - set(chosen))
        if strange:
            raise ValueError(
                f"metrics: expected some of {', '.join(METRICS[self.task])} for {self.task} segmentation,"
                f" got {', '.join(strange)}"
            )
        curves = wishes.curves is not None
        if self.task == "semantic":
            usual = ["categories" if city else "miou", "trimap", "boundary"]
            return {"metrics": chosen or usual, "widths": WIDTHS if curves else None}
        if not city and "cityscapes" in chosen:
            raise ValueError("metrics: cityscapes is for data in Cityscapes' own folders")
        usual = ["box", "mask", "boundary", *(["cityscapes"] if city else [])]
        options: dict[str, Any] = {"kinds": chosen or usual, "size_edges": SIZE_EDGES if curves else ()}
        if self.truth is not None:
            known = {category["id"] for category in self.truth["categories"]}
            others = [one for one in data.category_ids if one not in known]
            options |= {"ground_truth": self.truth, "protocol": "lvis", "other_category_ids": others}
        return options

    def _compare(
        self,
        model: Any,
        data: Part,
        variants: Mapping[str, Mapping[str, Any]],
        stores: Mapping[str, Any],
        progress: Any,
    ) -> list[Scores]:
        compare: Any = compare_semantic if self.task == "semantic" else compare_instances
        return compare(model, data, variants, stores=stores, progress=progress, **self._options(data))

    def _stores(self, name: str, data: Part, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        if self.wishes.out is None:
            return {}
        wishes = self.wishes
        stores: dict[str, Any] = {}
        for row, options in variants.items():
            run: dict[str, Any] = {
                "model": name,
                "sha256": _digest(name),
                "data": wishes.data,
                "split": wishes.split,
            }
            # The ids matter: a finished run has no line for an image in which nothing was found.
            run |= {"images": len(data), "ids": _hashed(json.dumps(data.image_ids).encode())}
            run |= {"categories": wishes.categories, "options": dict(options)}
            run |= {"flip": wishes.flip, "scales": wishes.scales}
            if wishes.optimize is not None:
                run["optimize"] = wishes.optimize
            claim_folder(self.folder(row), run, shard=self.shard)
            if self.task == "semantic":
                stores[row] = self._labels(self.folder(row) / "labels", data)
            elif isinstance(data.data, Cityscapes):
                stores[row] = CityscapesResults(self.folder(row) / "results")
            else:
                stores[row] = SavedDetections(self.folder(row), shard=self.shard)
        return stores

    def _labels(self, folder: Path, data: Part) -> SavedLabels:
        """Cityscapes' label maps carry its own ids, as its server wants them; others are coloured for viewers."""
        city, known = isinstance(data.data, Cityscapes), data.data.image_ids
        ids, palette = (data.category_ids, ()) if city else (None, data.palette)
        return SavedLabels(folder, file_ids=ids, palette=palette, known=known)

    def _device(self) -> str | None:
        if self.wishes.device is None and self.shard.count > 1 and torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
        return self.wishes.device


def variants_of(
    model: Any, sides: Sequence[int] = (), points: Sequence[int] = ()
) -> tuple[Any, dict[str, Mapping[str, Any]]]:
    """The model, as it is to be run, and its rows: name -> options of `predict`."""
    if task_of(model) == "instance":
        if not sides and not points:
            return model, {str(model.config.head): {}}
        return MaskVariants(model), mask_variants(sides, points)
    if model.config.point_rend is None:
        if points:
            raise ValueError("points: the model has no point head")
        return model, {"interpolated": {}}
    if points:
        return model, semantic_variants(points)
    return model, {"coarse, interpolated": {"refine": False}, "PointRend": {}}


@contextmanager
def joined_processes() -> Iterator[Shard]:
    """This process among those that torchrun started, alone otherwise."""
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    try:
        yield Shard.current()
    finally:
        if started:
            leave()


def _check_classes(own: Sequence[str], data: Any, name: str) -> None:
    if tuple(data.class_names) != tuple(own):
        raise ValueError(
            f"the model knows the classes {', '.join(own)}, but {name} has "
            f"{', '.join(data.class_names)}; evaluate on data with the same classes in the same order"
        )


def _short(models: Sequence[str]) -> list[str]:
    """Names for rows: of files, what tells them apart."""
    if not all(Path(model).is_file() for model in models):
        return list(models)
    names = output_names([Path(model) for model in models])
    folders, files = zip(*((name.rpartition("/")[0], name.rpartition("/")[2]) for name in names), strict=True)
    return list(folders) if all(folders) and len(set(files)) == 1 else names


def _renders(model: Any) -> bool:
    """Whether the model has points, so that there are several ways to render what it predicts."""
    if task_of(model) == "instance":
        return hasattr(model.mask_head, "point_head")
    return model.config.point_rend is not None


def _hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(model: str) -> str | None:
    """Of a checkpoint file; a name of the zoo stands for itself."""
    if not Path(model).is_file():
        return None
    with open(model, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def task_of(model: Any) -> str:
    """What the model segments: "instance" or "semantic"."""
    from pointrend.checkpoints.native import kind_of

    return kind_of(model)


def score(model: Any, data: Any, *, progress: Any = None) -> list[Any]:
    """Rows of scores with everything as usual: for a semantic model with PointRend the coarse prediction first."""
    from pointrend.evaluation.evaluate_instances import compare_instances
    from pointrend.evaluation.evaluate_semantic import compare_semantic

    compare = compare_instances if task_of(model) == "instance" else compare_semantic
    return compare(model, data, variants_of(model)[1], progress=progress)
