"""Score instance models over data sets; with AP of boxes, masks and boundaries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pointrend.distributed import Shard
from pointrend.evaluation.cityscapes import CityscapesAP
from pointrend.evaluation.coco_ap import SCORER_NAMES, CocoEvaluator, Metric
from pointrend.evaluation.external_results import read_detections
from pointrend.evaluation.ground_truth import (
    annotation_records,
    as_dataset,
    assemble,
    ground_truth_of,
    image_record,
)
from pointrend.evaluation.loop import InstanceStore, Options, Progress, each_image, merged
from pointrend.evaluation.report import Scores, collect_scores
from pointrend.formats.coco_results import Records, consumed
from pointrend.results import InstanceResult, Model, Result
from pointrend.structures import Sample, Samples

__all__ = ["INSTANCE_METRICS", "evaluate_detections", "evaluate_instances"]

InstanceMetric = Literal["box", "mask", "boundary", "cityscapes"]
INSTANCE_METRICS: tuple[Metric, ...] = ("box", "mask", "boundary")

T = TypeVar("T")


def evaluate_instances(
    model: Model | None,
    dataset: Samples,
    variants: Mapping[str, Options] | None = None,
    *,
    ground_truth: str | Path | Mapping[str, object] | None = None,
    category_ids: Sequence[int] | None = None,
    metrics: Sequence[InstanceMetric] = INSTANCE_METRICS,
    protocol: Literal["coco", "lvis"] = "coco",
    other_category_ids: Sequence[int] = (),
    size_edges: Sequence[float] = (),
    stores: Mapping[str, InstanceStore] | None = None,
    progress: Progress | None = None,
) -> list[Scores]:
    """Score an instance model on a data set, once for each set of options.

    Args:
        model: `predict(images, **options) -> [InstanceResult]`; put into evaluation mode meanwhile. None if the stores
            have every prediction.
        dataset: samples with an `InstanceTarget` and the ids of the ground truth's images.
        variants: name of the row -> options of `predict`, see `MaskVariants`; one row "model" without options if not
            given.
        ground_truth: COCO- or LVIS-format file or content. If not given, what the data set says itself
            (`dataset.as_coco()`, for the official numbers), or else its samples' targets. Images that the
            data set does not have are not scored.
        category_ids: the ground truth's id of each label 0..K-1; the data set's own (`dataset.category_ids`)
            or 0..K-1.
        metrics: "box", "mask" and "boundary" AP as of `CocoEvaluator`; "cityscapes" for `CityscapesAP`, which
            needs a data set with `instance_ids(index)`.
        protocol, other_category_ids: of `CocoEvaluator`.
        size_edges: in pixels; also a curve of AP by object size, see `CocoEvaluator.curves`.
        stores: name of the row -> its predictions on disk, to resume from and to add to (`SavedDetections`).
        progress: called with the images done and those in all.

    Returns:
        A row for each variant, in their order.

    Raises:
        ValueError: naming file, image and field, if something does not fit.
    """
    variants = {"model": {}} if variants is None else variants
    data = as_dataset(dataset)
    ground_truth = data.as_coco() if ground_truth is None else ground_truth
    if category_ids is None:
        category_ids = data.category_ids or None
    coco_metrics = [metric for metric in metrics if metric in SCORER_NAMES]
    cityscapes = {variant: CityscapesAP() for variant in variants if "cityscapes" in metrics}
    # Index -> id of the image, and its records in the ground truth.
    imgs: dict[int, tuple[int | str, dict[str, object], list[dict[str, object]]]] = {}
    found: dict[str, dict[int, Records]] = {variant: {} for variant in variants}
    stores = stores or {}
    shard = Shard.current()

    def convert(sample: Sample, result: Result) -> Records:
        if not isinstance(result, InstanceResult):
            raise ValueError(f"expected an instance model, got one that gives {type(result).__name__}")
        return result.to_coco(sample.image_id, category_ids)

    def collect(variant: str, index: int, sample: Sample, records: Records) -> None:
        if variant in cityscapes:
            cityscapes[variant].update_records(records, data.instance_ids(index), category_ids)
        if coco_metrics or variant in stores:
            found[variant][index] = records
        if index not in imgs:
            made = annotation_records(sample, category_ids) if ground_truth is None and coco_metrics else []
            imgs[index] = sample.image_id, image_record(sample), made

    seconds = each_image(
        model,
        data,
        variants,
        convert=convert,
        use=collect,
        stores=stores,
        progress=progress,
        shard=shard,
    )
    every = _whole(shard.gather(imgs))
    truth = ground_truth
    if truth is None and coco_metrics:
        annotations = [record for _, _, own in every for record in own]
        names = data.class_names if model is None else model.config.class_names
        truth = assemble([image for _, image, _ in every], annotations, names, category_ids)
    rows = []
    for variant in variants:
        evaluators: list[CityscapesAP | CocoEvaluator] = []
        detections = _whole(shard.gather(found.pop(variant)))
        if variant in stores and shard.first:
            stores[variant].finish(detections)
        if variant in cityscapes:
            evaluators.append(merged(shard.gather(cityscapes[variant])))
        if coco_metrics:
            assert truth is not None
            coco = CocoEvaluator(
                truth,
                metrics=coco_metrics,  # type: ignore[arg-type]
                protocol=protocol,
                image_ids=[image_id for image_id, _, _ in every],
                other_category_ids=other_category_ids,
                size_edges=size_edges,
            )
            for records in detections:
                coco.update(records, source=variant)
            evaluators.append(coco)
        total = sum(shard.gather(seconds[variant]))
        rows.append(collect_scores(variant, evaluators[-1].class_names, evaluators, len(every), total))
    return rows


def evaluate_detections(
    file: str | Path,
    dataset: Samples,
    *,
    class_names: Sequence[str] = (),
    ground_truth: str | Path | Mapping[str, object] | None = None,
    metrics: Sequence[Metric] = INSTANCE_METRICS,
    protocol: Literal["coco", "lvis"] = "coco",
    other_category_ids: Sequence[int] = (),
    other_image_ids: Collection[int | str] = (),
    size_edges: Sequence[float] = (),
    name: str | None = None,
) -> Scores:
    """Score a COCO results file, without a model and without reading images where the data set knows its ids.

    Args:
        file: a JSON list of detections, or what `pointrend predict` writes (see `read_detections`); those of
            images that `dataset` leaves out are not scored.
        dataset: as for `evaluate_instances`.
        class_names: of the labels, where the ground truth is the samples' targets.
        ground_truth, metrics, protocol, other_category_ids, size_edges: as for `evaluate_instances`.
        other_image_ids: images that the file may speak of though the ground truth does not have them.
        name: of the row; the file's if not given.
    """
    data = as_dataset(dataset, class_names)
    if ground_truth is None:
        ground_truth = data.as_coco() or ground_truth_of(
            data, class_names or data.class_names, data.category_ids
        )
    evaluator = CocoEvaluator(
        ground_truth,
        metrics=metrics,
        protocol=protocol,
        image_ids=data.image_ids,
        other_category_ids=other_category_ids,
        other_image_ids=other_image_ids,
        size_edges=size_edges,
    )
    evaluator.update(consumed(read_detections(file, data)), source=str(file))
    label = name if name is not None else Path(file).stem
    return collect_scores(label, evaluator.class_names, [evaluator], len(evaluator.image_ids), 0.0)


def _whole(parts: Iterable[Mapping[int, T]]) -> list[T]:
    """What the processes found by index of the image, in the data set's order."""
    together = {index: value for part in parts for index, value in part.items()}
    return [together[index] for index in sorted(together)]
