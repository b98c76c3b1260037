"""Score semantic models over data sets; with mIoU and boundary scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from pointrend.distributed import Shard
from pointrend.evaluation.cityscapes import CityscapesIoU
from pointrend.evaluation.coco_ap import CocoEvaluator
from pointrend.evaluation.loop import Options, Progress, Store, each_image, merged
from pointrend.evaluation.report import Scores, collect_scores
from pointrend.evaluation.semantic_metrics import BoundaryIoU, LabelMapEvaluator, MeanIoU, TrimapIoU
from pointrend.results import Model
from pointrend.structures import Sample, Samples, SemanticTarget

SemanticMetric = Literal["miou", "categories", "trimap", "boundary"]
SEMANTIC_METRICS: tuple[SemanticMetric, ...] = ("miou", "trimap", "boundary")


def semantic_evaluators(
    class_names: Sequence[str],
    metrics: Iterable[SemanticMetric] = SEMANTIC_METRICS,
    widths: Sequence[int] | None = None,
) -> list[LabelMapEvaluator]:
    """The evaluators of these metrics with their usual settings.

    Args:
        metrics: "miou"; "categories" (mIoU of Cityscapes' classes and categories); "trimap" at 1, 3, 5 px;
            "boundary" at 2 % of the diagonal.
        widths: in pixels, for "trimap" instead of its own, and for "boundary" besides its own.
    """
    names, count = tuple(class_names), len(class_names)
    made: list[LabelMapEvaluator] = []
    for metric in metrics:
        if metric == "miou":
            made.append(MeanIoU(count, class_names=names))
        elif metric == "categories":
            made.append(CityscapesIoU(class_names=names))
        elif metric == "trimap":
            made.append(TrimapIoU(count, widths or (1, 3, 5), class_names=names))
        elif metric == "boundary":
            made.append(BoundaryIoU(count, class_names=names))
            made.extend(BoundaryIoU(count, width=width, class_names=names) for width in widths or ())
        else:
            raise ValueError(
                f"metrics: expected some of {', '.join(SEMANTIC_METRICS)}, categories, got {metric!r}"
            )
    return made


def evaluate_semantic(
    model: Model | None,
    dataset: Samples,
    variants: Mapping[str, Options] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    metrics: Iterable[SemanticMetric] = SEMANTIC_METRICS,
    widths: Sequence[int] | None = None,
    stores: Mapping[str, Store[Tensor]] | None = None,
    progress: Progress | None = None,
) -> list[Scores]:
    """Score a semantic model on a data set, once for each set of options.

    Args:
        model: `predict(images, **options) -> [SemanticResult]`; put into evaluation mode meanwhile. None if the stores
            have every prediction.
        dataset: samples with a `SemanticTarget`.
        variants: name of the row -> options of `predict`, such as `{"coarse": {"refine": False}, "points": {}}`; one
            row "model" without options if not given.
        class_names: of the labels 0..C-1; the model's own (`model.config.class_names`) if not given.
        metrics, widths: which to compute, see `semantic_evaluators`.
        stores: name of the row -> its predictions on disk, to resume from and to add to (`SavedLabels`).
        progress: called with the images done and those in all.

    Returns:
        A row for each variant, in their order.

    Raises:
        ValueError: naming the image, if a target or result does not fit.
    """
    variants = {"model": {}} if variants is None else variants
    if class_names is None:
        if model is None:
            raise ValueError(
                "class_names: expected the names of the classes where there is no model to say them"
            )
        class_names = model.config.class_names
    names = tuple(class_names)
    wanted = tuple(metrics)
    evaluators = {variant: semantic_evaluators(names, wanted, widths) for variant in variants}
    shard = Shard.current()

    def count(variant: str, index: int, sample: Sample, labels: Tensor) -> None:
        if not isinstance(sample.target, SemanticTarget):
            raise ValueError(f"expected a label map for each image, got {type(sample.target).__name__}")
        for evaluator in evaluators[variant]:
            evaluator.update(labels, sample.target.labels)

    seconds = each_image(
        model,
        dataset,
        variants,
        convert=lambda sample, result: result.labels,
        use=count,
        stores=stores or {},
        progress=progress,
        shard=shard,
    )
    rows = []
    for variant in variants:
        counted = [merged(shard.gather(evaluator)) for evaluator in evaluators[variant]]
        total = sum(shard.gather(seconds[variant]))
        rows.append(collect_scores(variant, names, counted, len(dataset), total))
    return rows


def score_names(task: str) -> tuple[str, ...]:
    """What the scores of "semantic" or "instance" models are called that are computed unless others are asked for."""
    if task == "semantic":
        return tuple(name for one in semantic_evaluators(("any",)) for name in one.compute())
    nothing = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "any"}]}
    return tuple(CocoEvaluator(nothing).compute())
