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
    "semantic_evaluators",
]
