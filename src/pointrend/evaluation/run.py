"""Run a model over a data set and score what it says, one picture at a time.

    scores = evaluate_semantic(model, dataset)
    scores.numbers["mIoU"]
    compare_semantic(model, dataset, {"coarse": {"refine": False}, "refined": {}})   # one row of numbers each

A model is anything with `predict(images, **options) -> results`, and a data set anything with a length and
`Sample`s. Each picture is read once, whatever is compared; memory does not grow with pictures x pixels. Where
`torch.distributed` is initialised, the pictures are shared between the processes (`sharding`). With stores
(`saved`), predictions are kept and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from pointrend.evaluation.coco_ap import CocoEvaluator
from pointrend.evaluation.run_instances import compare_instances, evaluate_instances, score_detections
from pointrend.evaluation.run_semantic import compare_semantic, evaluate_semantic, semantic_evaluators
from pointrend.evaluation.targets import ground_truth_of

__all__ = [
    "compare_instances",
    "compare_semantic",
    "evaluate_instances",
    "evaluate_semantic",
    "ground_truth_of",
    "score_detections",
    "score_names",
    "semantic_evaluators",
]


def score_names(task: str) -> tuple[str, ...]:
    """What the scores of "semantic" or "instance" models are called that are computed unless others are asked for."""
    if task == "semantic":
        return tuple(name for one in semantic_evaluators(("any",)) for name in one.compute())
    nothing = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "any"}]}
    return tuple(CocoEvaluator(nothing).compute())
