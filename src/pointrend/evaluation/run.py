"""Run a model over a data set and score what it says, one picture at a time.

    scores = evaluate_semantic(model, dataset)
    scores.numbers["mIoU"]
    compare_semantic(model, dataset, {"coarse": {"refine": False}, "refined": {}})   # one row of numbers each

A model is anything with `predict(images, **options) -> results`, and a data set anything with a length and
`Sample`s. Each picture is read once, whatever is compared; memory does not grow with pictures x pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from pointrend.evaluation.coco_ap import CocoEvaluator, Kind
from pointrend.evaluation.report import Scores
from pointrend.evaluation.semantic_iou import BoundaryIoU, LabelMapEvaluator, MeanIoU, TrimapIoU
from pointrend.rle import encode_windows
from pointrend.structures import InstanceTarget, Sample, SemanticTarget

__all__ = [
    "compare_instances",
    "compare_semantic",
    "evaluate_instances",
    "evaluate_semantic",
    "ground_truth_of",
    "semantic_evaluators",
]

SemanticMetric = Literal["miou", "trimap", "boundary"]
SEMANTIC_METRICS: tuple[SemanticMetric, ...] = ("miou", "trimap", "boundary")

Options = Mapping[str, Any]
"""Keyword arguments of a model's `predict`."""
Progress = Callable[[int, int], None]
"""Called after each picture with the number done and the number of all."""


class Samples(Protocol):
    """A data set: pictures in the size to score in, with their targets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def semantic_evaluators(
    class_names: Sequence[str], metrics: Iterable[SemanticMetric] = SEMANTIC_METRICS
) -> list[LabelMapEvaluator]:
    """The evaluators of these metrics with their usual settings: mIoU, trimap at 1, 3, 5 px, boundary at 2
    %.
    """
    makers = {"miou": MeanIoU, "trimap": TrimapIoU, "boundary": BoundaryIoU}
    unknown = [metric for metric in metrics if metric not in makers]
    if unknown:
        raise ValueError(f"metrics: expected some of {', '.join(makers)}, got {unknown}")
    return [makers[metric](len(class_names), class_names=class_names) for metric in metrics]


def evaluate_semantic(
    model: Any,
    dataset: Samples,
    *,
    class_names: Sequence[str] | None = None,
    metrics: Iterable[SemanticMetric] = SEMANTIC_METRICS,
    options: Options | None = None,
    name: str = "model",
    progress: Progress | None = None,
) -> Scores:
    """Score a semantic model on a data set.

    Args:
        model: `predict(images) -> [SemanticResult]`; put into evaluation mode meanwhile.
        dataset: samples with a `SemanticTarget`.
        class_names: of the labels 0..C-1; the model's own (`model.config.class_names`) if not given.
        metrics: which to compute.
        options: for `predict`, such as `refine=False` or `count=2048`.
        name: of the row in tables.
        progress: for progress bars.

    Raises:
        ValueError: naming the picture, if a target or result does not fit.
    """
    variants = {name: dict(options or {})}
    return compare_semantic(
        model, dataset, variants, class_names=class_names, metrics=metrics, progress=progress
    )[0]


def compare_semantic(
    model: Any,
    dataset: Samples,
    variants: Mapping[str, Options],
    *,
    class_names: Sequence[str] | None = None,
    metrics: Iterable[SemanticMetric] = SEMANTIC_METRICS,
    progress: Progress | None = None,
) -> list[Scores]:
    """Score one model with several sets of options; arguments as for `evaluate_semantic`.

    Args:
        variants: name of the row -> options of `predict`.
    """
    names = tuple(class_names if class_names is not None else model.config.class_names)
    evaluators = {variant: semantic_evaluators(names, tuple(metrics)) for variant in variants}

    def count(variant: str, sample: Sample, result: Any) -> None:
        if not isinstance(sample.target, SemanticTarget):
            raise ValueError(f"expected a label map for each picture, got {type(sample.target).__name__}")
        for evaluator in evaluators[variant]:
            evaluator.update(result.labels, sample.target.labels)

    seconds = _run(model, dataset, variants, count, progress)
    return [
        _collect(variant, names, evaluators[variant], len(dataset), seconds[variant]) for variant in variants
    ]


def evaluate_instances(
    model: Any,
    dataset: Samples,
    *,
    ground_truth: str | Path | Mapping[str, Any] | None = None,
    category_ids: Sequence[int] | None = None,
    kinds: Sequence[Kind] = ("box", "mask", "boundary"),
    protocol: Literal["coco", "lvis"] = "coco",
    other_category_ids: Sequence[int] = (),
    options: Options | None = None,
    name: str = "model",
    progress: Progress | None = None,
) -> Scores:
    """Score an instance model on a data set.

    Args:
        model: `predict(images) -> [InstanceResult]`; put into evaluation mode meanwhile.
        dataset: samples with an `InstanceTarget` and the ids of the ground truth's pictures.
        ground_truth: COCO- or LVIS-format file or content. If not given, what the data set says itself
            (`dataset.as_coco()`, for the official numbers), or else its samples' targets. Pictures that the data set
            does not have are not scored.
        category_ids: the ground truth's id of each label 0..K-1; the data set's own (`dataset.category_ids`)
        or 0..K-1.
        kinds, protocol, other_category_ids: of `CocoEvaluator`.
        options: for `predict`.
        name: of the row in tables.
        progress: for progress bars.

    Raises:
        ValueError: naming file, picture and field, if something does not fit.
    """
    return compare_instances(
        model,
        dataset,
        {name: dict(options or {})},
        ground_truth=ground_truth,
        category_ids=category_ids,
        kinds=kinds,
        protocol=protocol,
        other_category_ids=other_category_ids,
        progress=progress,
    )[0]


def compare_instances(
    model: Any,
    dataset: Samples,
    variants: Mapping[str, Options],
    *,
    ground_truth: str | Path | Mapping[str, Any] | None = None,
    category_ids: Sequence[int] | None = None,
    kinds: Sequence[Kind] = ("box", "mask", "boundary"),
    protocol: Literal["coco", "lvis"] = "coco",
    other_category_ids: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[Scores]:
    """Score one model with several sets of options; arguments as for `evaluate_instances`."""
    if ground_truth is None and hasattr(dataset, "as_coco"):
        ground_truth = dataset.as_coco()
    if category_ids is None and ground_truth is not None:
        category_ids = getattr(dataset, "category_ids", None)
    class_names = tuple(model.config.class_names)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    records: dict[str, list[list[dict[str, Any]]]] = {variant: [] for variant in variants}
    first = next(iter(variants), None)

    def collect(variant: str, sample: Sample, result: Any) -> None:
        records[variant].append(result.to_coco(sample.image_id, category_ids))
        if variant == first:
            images.append(_image(sample))
            if ground_truth is None:
                annotations.extend(_annotations(sample))

    seconds = _run(model, dataset, variants, collect, progress)
    truth = ground_truth if ground_truth is not None else _assemble(images, annotations, class_names)
    scores = []
    for variant, pictures in records.items():
        evaluator = CocoEvaluator(
            truth,
            kinds=kinds,
            protocol=protocol,
            image_ids=[image["id"] for image in images],
            other_category_ids=other_category_ids,
        )
        for picture in pictures:
            evaluator.update(picture, source=variant)
        scores.append(_collect(variant, evaluator.class_names, [evaluator], len(images), seconds[variant]))
    return scores


def ground_truth_of(dataset: Samples, class_names: Sequence[str]) -> dict[str, Any]:
    """A data set's targets as COCO-format ground truth; categories are the labels 0..K-1.

    Areas are counted in pixels of the masks, so sizes can differ a little from those of a file that lists
    polygon areas.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        images.append(_image(sample))
        annotations.extend(_annotations(sample))
    return _assemble(images, annotations, class_names)


def _run(
    model: Any,
    dataset: Samples,
    variants: Mapping[str, Options],
    use: Callable[[str, Sample, Any], None],
    progress: Progress | None,
) -> dict[str, float]:
    """Predict each picture with each variant; returns the seconds that each spent in `predict`."""
    seconds = dict.fromkeys(variants, 0.0)
    with _evaluating(model):
        for index in range(len(dataset)):
            sample = dataset[index]
            for variant, options in variants.items():
                started = time.perf_counter()
                result = model.predict([sample.image], **options)[0]
                seconds[variant] += time.perf_counter() - started
                try:
                    use(variant, sample, result)
                except ValueError as error:
                    raise ValueError(f"picture {sample.path or sample.image_id}: {error}") from error
            if progress is not None:
                progress(index + 1, len(dataset))
    return seconds


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode, and afterwards as it was."""
    training = getattr(model, "training", False)
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def _image(sample: Sample) -> dict[str, Any]:
    height, width = sample.image.shape[-2:]
    return {"id": sample.image_id, "height": int(height), "width": int(width)}


def _annotations(sample: Sample) -> list[dict[str, Any]]:
    target = sample.target
    if not isinstance(target, InstanceTarget):
        raise ValueError(f"expected objects for each picture, got {type(target).__name__}")
    boxes: Tensor = target.boxes.double()
    sizes = boxes[:, 2:] - boxes[:, :2]
    records = []
    for number, (mask, area) in enumerate(
        zip(encode_windows(target.masks), target.masks.areas().tolist(), strict=True)
    ):
        records.append(
            {
                "image_id": sample.image_id,
                "category_id": int(target.labels[number]),
                "bbox": [*boxes[number, :2].tolist(), *sizes[number].tolist()],
                "area": area,
                "iscrowd": int(target.crowd[number]),
                "segmentation": mask,
            }
        )
    return records


def _assemble(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]], class_names: Sequence[str]
) -> dict[str, Any]:
    return {
        "images": images,
        "annotations": [{**record, "id": number} for number, record in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names)],
    }


def _collect(
    name: str,
    class_names: Sequence[str],
    evaluators: Iterable[LabelMapEvaluator | CocoEvaluator],
    pictures: int,
    seconds: float,
) -> Scores:
    numbers: dict[str, float] = {}
    per_class: dict[str, list[float]] = {}
    for evaluator in evaluators:
        numbers.update(evaluator.compute())
        per_class.update(evaluator.per_class())
    return Scores(name, numbers, per_class, tuple(class_names), pictures, seconds)
