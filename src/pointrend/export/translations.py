"""ONNX operators for what torch's exporter has none for, or none that is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import pointrend.models.boxes  # noqa: F401  # defines the operator


def translations() -> dict[Any, Callable[..., Any]]:
    """torch operator -> function that builds it of standard operators."""
    from onnxscript import FLOAT, INT64, opset18

    op: Any = (
        opset18  # its annotations name the type of every element, which no result of another operator has
    )

    def grouped_nms(boxes: FLOAT, scores: FLOAT, group: INT64, threshold: float, limit: int) -> INT64:
        """`models.boxes.grouped_nms`: each group is a class of NonMaxSuppression, so no box is shifted."""
        lowest = -3.0e38
        zero = op.Constant(value_ints=[0])
        number = op.ReduceMax(op.Concat(group, zero, axis=0), zero, keepdims=0)  # of the last group
        groups = op.Unsqueeze(
            op.Range(op.Constant(value_int=0), number + op.Constant(value_int=1), op.Constant(value_int=1)),
            op.Constant(value_ints=[1]),
        )
        own = op.Equal(groups, op.Unsqueeze(group, zero))  # (G, R)
        ranked = op.Where(own, op.Unsqueeze(scores, zero), op.Constant(value_float=float("-inf")))
        found = op.NonMaxSuppression(
            op.Unsqueeze(boxes, zero),
            op.Unsqueeze(ranked, zero),
            op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[threshold]),
            op.Constant(value_floats=[lowest]),
        )  # (found, 3): image, class, box
        kept = op.Squeeze(
            op.Slice(
                found, op.Constant(value_ints=[2]), op.Constant(value_ints=[3]), op.Constant(value_ints=[1])
            ),
            op.Constant(value_ints=[1]),
        )
        count = op.Shape(kept)
        # Equal scores keep their order: TopK prefers the lower index.
        kept, _ = op.TopK(kept, count, largest=0)
        _, order = op.TopK(op.Gather(scores, kept), op.Min(count, op.Constant(value_ints=[limit])))
        return op.Gather(kept, order)

    return {torch.ops.pointrend.grouped_nms.default: grouped_nms}
