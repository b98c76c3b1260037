"""COCO AP, LVIS AP, AP* and Boundary AP of instances, over faster-coco-eval.

    evaluator = CocoEvaluator("instances_val2017.json")
    for image_id, result in predictions:
        evaluator.update(result.to_coco(image_id))
    evaluator.compute()   # {"box AP": 0.38, ..., "mask AP": 0.35, "mask AP75-95": ..., "boundary AP": ...}

AP* (PointRend, sec. 4.1; Gupta et al. 2019) is AP on COCO's categories with LVIS's better masks and LVIS's federated
protocol: `cocofy_lvis` makes the ground truth, `protocol="lvis"` scores it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle

from pointrend.evaluation.coco_summary import coco_numbers, lvis_numbers, mean_of
from pointrend.formats.coco_json import read_coco
from pointrend.formats.coco_results import KnownIds, Records, check_records, consumed
from pointrend.formats.lvis import check_lvis
from pointrend.formats.records import CocoFile, brief
from pointrend.io import read_json
from pointrend.masks.rle import CocoDetection

__all__ = ["CocoEvaluator"]

Metric = Literal["box", "mask", "boundary"]
SCORER_NAMES: dict[str, str] = {
    "box": "bbox",
    "mask": "segm",
    "boundary": "boundary",
}  # ours -> faster-coco-eval's
AREAS: dict[str, Sequence[float]] = {"small": [0, 32**2], "medium": [32**2, 96**2], "large": [96**2, 1e10]}
"""In square pixels."""


class CocoEvaluator:
    """Collects detections (run-length coded, so small) and scores them as the official tools do.

    Equal to pycocotools 2.0, lvis 0.5 and the Boundary IoU authors' evaluation (Cheng et al. 2021: the
    smaller of mask and boundary IoU) to rounding. All values are fractions; NaN where the data set has no
    such object (the official tools print -1).

    Names: `{box, mask, boundary} AP`, `AP50`, `AP75`, `AP75-95` (mean over IoU 0.75 to 0.95: how good are the
    good ones), `APs`, `APm`, `APl` (areas below 32^2, below 96^2, above), and `AR1`, `AR10`, `AR100`, `ARs`,
    `ARm`, `ARl` for COCO (at most 100 detections per image and category) or `APr`, `APc`, `APf`, `AR@300`,
    `ARs@300` ... for LVIS (at most 300 per image).

    Args:
        ground_truth: COCO- or LVIS-format JSON file, or its content.
        metrics: what to score.
        protocol: "lvis" scores a category only on images that LVIS's annotators checked for it.
        image_ids: score these images only; detections on the data set's other images are left out.
        dilation_ratio: width of the boundary as a share of the image's diagonal.
        detection_area: what puts a detected mask into small, medium or large: its own area, as in Detectron2
            and the published PointRend numbers, or "box", the area of the record's `bbox` where it has one,
            as pycocotools and lvis do when they are given both. AP, AP50 and AP75 do not depend on it.
        other_category_ids: categories that a model may predict though the data set does not have them (AP*
            lacks two of COCO's 80); their detections are not scored, but count among LVIS's 300. Any other unknown
            category is an error.
        other_image_ids: images that predictions may speak of though the data set does not have them: LVIS
            annotated a part of COCO's.
        size_edges: rising lengths in pixels, such as (0, 16, 32, 64, 128, 256): `curves` then has AP of objects
            whose square root of area lies between each two.

    Raises:
        ValueError: naming file, record and field if the ground truth is not sound.
    """

    def __init__(
        self,
        ground_truth: str | Path | Mapping[str, object],
        *,
        metrics: Sequence[Metric] = ("box", "mask", "boundary"),
        protocol: Literal["coco", "lvis"] = "coco",
        image_ids: Iterable[int | str] | None = None,
        dilation_ratio: float = 0.02,
        detection_area: Literal["mask", "box"] = "mask",
        other_category_ids: Collection[int] = (),
        other_image_ids: Collection[int | str] = (),
        size_edges: Sequence[float] = (),
    ) -> None:
        if not metrics or not set(metrics) <= set(SCORER_NAMES):
            raise ValueError(f"metrics: expected some of {', '.join(SCORER_NAMES)}, got {tuple(metrics)}")
        if protocol not in ("coco", "lvis"):
            raise ValueError(f"protocol: expected 'coco' or 'lvis', got {protocol!r}")
        if not 0 < dilation_ratio <= 1:
            raise ValueError(
                f"dilation_ratio: expected a share of the diagonal in (0, 1], got {dilation_ratio}"
            )
        self.metrics = tuple(metrics)
        self.protocol = protocol
        self.dilation_ratio = dilation_ratio
        self.detection_area = detection_area
        if (
            list(size_edges) != sorted(set(size_edges))
            or len(size_edges) == 1
            or any(e < 0 for e in size_edges)
        ):
            raise ValueError(
                f"size_edges: expected two or more rising lengths in pixels, got {tuple(size_edges)}"
            )
        self.size_edges = tuple(size_edges)
        self.other_category_ids = frozenset(other_category_ids)
        self.other_image_ids = frozenset(other_image_ids)
        self.truth = read_coco(ground_truth, masks=self._needs_masks())
        if protocol == "lvis":
            check_lvis(self.truth)
        self.image_ids = _chosen(self.truth, image_ids)
        self._detections: dict[int | str, Records] = {}
        self._scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def update(self, records: Iterable[object], *, source: str = "predictions") -> None:
        """Add the detections of one or more images, each image's all at once.

        Args:
            records: as `InstanceResult.to_coco` gives them: `image_id`, `category_id`, `score`, `bbox` (x, y,
                width, height) and `segmentation` (RLE of the whole image).
            source: the file they come from, for messages.

        Raises:
            ValueError: for records that do not fit the data set, or an image that came before. Nothing is
                added then.
        """
        checked = check_records(
            records,
            KnownIds.of(self.truth),
            source=source,
            boxes="box" in self.metrics,
            masks=self._needs_masks(),
            other_categories=self.other_category_ids,
            other_images=self.other_image_ids,
        )
        fresh: dict[int | str, Records] = {}
        for record in checked:
            fresh.setdefault(record["image_id"], []).append(record)
        self._add(fresh, source)

    def update_from_file(self, path: str | Path) -> None:
        """Add all detections of a COCO results file (a JSON list)."""
        records = read_json(path)
        if not isinstance(records, list):
            raise ValueError(f"{path}: expected a list of detections, got {type(records).__name__}")
        self.update(consumed(records), source=str(path))

    def merge(self, other: CocoEvaluator) -> None:
        """Add the detections of another shard of the same data set; the order of merging does not matter."""
        if (other.truth.images, other.truth.categories) != (self.truth.images, self.truth.categories):
            raise ValueError(
                f"merge: expected the same ground truth, got {self.truth.source}, {other.truth.source}"
            )
        self._add(other._detections, "merge")

    def compute(self) -> dict[str, float]:
        """Scores by name; see the class for the names."""
        scores: dict[str, float] = {}
        for metric in self.metrics:
            precision, recall = self._arrays(metric)
            if self.protocol == "coco":
                named = coco_numbers(precision, recall)
            else:
                named = lvis_numbers(
                    precision,
                    recall,
                    [str(category.frequency) for category in self.truth.categories.values()],
                )
            scores.update({f"{metric} {name}": value for name, value in named.items()})
        return scores

    def per_class(self) -> dict[str, list[float]]:
        """`{metric} AP`, `{metric} AP50`, `{metric} AP75` -> one value per category, in the order of
        `class_names`."""
        columns: dict[str, list[float]] = {}
        for metric in self.metrics:
            precision, _ = self._arrays(metric)
            for name, part in (("AP", slice(None)), ("AP50", slice(0, 1)), ("AP75", slice(5, 6))):
                values = [mean_of(precision[part, :, k, 0, -1]) for k in range(precision.shape[2])]
                columns[f"{metric} {name}"] = values
        return columns

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """`{metric} AP by size` -> (middle of the sizes in pixels, AP) for each two neighbouring `size_edges`."""
        between = list(zip(self.size_edges[:-1], self.size_edges[1:], strict=True))
        if not between:
            return {}
        ranges = {f"{low}-{high}": [low**2, high**2] for low, high in between}
        found = {}
        for metric in self.metrics:
            precision, _ = self._score(metric, ranges)
            values = [mean_of(precision[..., 1 + number, -1]) for number in range(len(between))]
            found[f"{metric} AP by size"] = [
                ((low + high) / 2, value) for (low, high), value in zip(between, values, strict=True)
            ]
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the data set's categories, by id."""
        return tuple(category.name for category in self.truth.categories.values())

    def _needs_masks(self) -> bool:
        return bool({"mask", "boundary"} & set(self.metrics))

    def _add(self, fresh: Mapping[int | str, Records], source: str) -> None:
        again = sorted(fresh.keys() & self._detections.keys(), key=str)
        if again:
            raise ValueError(
                f"{source}: image_id: {brief(again[0])} was already given; an image's detections belong together"
            )
        self._detections.update(fresh)
        self._scores.clear()

    def _arrays(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Precision (10 IoUs, 101 recalls, categories, 4 areas, limits) and recall (without the second axis);
        -1: none."""
        if metric not in self._scores:
            self._scores[metric] = self._score(metric)
        return self._scores[metric]

    def _score(
        self, metric: str, ranges: Mapping[str, Sequence[float]] = AREAS
    ) -> tuple[np.ndarray, np.ndarray]:
        limits = [1, 10, 100] if self.protocol == "coco" else [300]
        areas = 1 + len(ranges)
        if not self.truth.categories:
            return np.zeros((10, 101, 0, areas, len(limits))), np.zeros((10, 0, areas, len(limits)))
        # The scorer wants numbers for ids; numbering them sorted keeps its order, on which ties depend.
        position = {image_id: number for number, image_id in enumerate(self.image_ids, 1)}
        truth, detections = COCO(), COCO()
        images = [{**asdict(self.truth.images[one]), "id": number} for one, number in position.items()]
        categories = [asdict(category) for category in self.truth.categories.values()]
        objects = [item for image_id in position for item in self.truth.objects[image_id]]
        annotations = [  # counted from 1: the scorer takes 0 for "no match"
            {**item.to_coco(), "image_id": position[item.image_id], "id": number}
            for number, item in enumerate(objects, 1)
        ]
        found: list[dict[str, object]] = []
        for image_id, number in position.items():
            for record in self._limited(self._detections.get(image_id, [])):
                if record["category_id"] in self.other_category_ids:
                    continue
                found.append({**self._scorable(record, metric), "image_id": number, "id": len(found) + 1})
        for data, records in ((truth, annotations), (detections, found)):
            data.dataset = {"images": images, "categories": categories, "annotations": records}
            data.createIndex()
        scorer = COCOeval_faster(
            truth,
            detections,
            iouType=SCORER_NAMES[metric],
            lvis_style=self.protocol == "lvis",
            boundary_dilation_ratio=self.dilation_ratio,
        )
        scorer.params.maxDets = limits
        scorer.params.areaRng = [[0, 1e10], *ranges.values()]
        scorer.params.areaRngLbl = ["all", *ranges]
        scorer.evaluate()
        scorer.accumulate()
        return np.asarray(scorer.eval["precision"]), np.asarray(scorer.eval["recall"])

    def _limited(self, records: Records) -> Records:
        """LVIS keeps the 300 best of an image whatever their category; COCO's limit is per category, the
        scorer's task."""
        if self.protocol == "coco" or len(records) <= 300:
            return records
        return sorted(records, key=lambda record: -record["score"])[:300]

    def _scorable(self, record: CocoDetection, metric: str) -> dict[str, object]:
        box = record.get("bbox")
        if box is None:
            box = [float(value) for value in rle.toBbox(record["segmentation"])]
        by_box = metric == "box" or (self.detection_area == "box" and "bbox" in record)
        area = box[2] * box[3] if by_box else float(record["area"])
        return {**record, "bbox": box, "area": area, "iscrowd": 0}


def _chosen(truth: CocoFile, image_ids: Iterable[int | str] | None) -> list[int | str]:
    """The images to score, in the order of their ids."""
    if image_ids is None:
        return list(truth.images)
    wanted = set(image_ids)
    unknown = sorted(wanted - truth.images.keys(), key=str)
    if unknown or (truth.images and not wanted):
        raise ValueError(
            f"image_ids: expected some of the images of {truth.source}, got {unknown[:5] or 'none'}"
        )
    return [image_id for image_id in truth.images if image_id in wanted]
