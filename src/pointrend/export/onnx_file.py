"""A graph as an ONNX file: standard operators only, with what a reader needs to know in its metadata."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pointrend.models.boxes  # noqa: F401  # defines the operator that `translations` translates

OPSET = 18


def trace(graph: nn.Module, inputs: tuple[Tensor, ...], *, dynamic: bool) -> torch.export.ExportedProgram:
    """`torch.export` of a graph, of any height and width (from 65 pixels on, in a .pt2 file) where it is dynamic."""
    if not dynamic:
        return trace_any(graph, inputs, None)
    height, width = (torch.export.Dim(name, min=65, max=2**14) for name in ("height", "width"))
    return trace_any(graph, inputs, ({1: height, 2: width}, {})[: len(inputs)])


def trace_any(
    graph: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: object
) -> torch.export.ExportedProgram:
    """The same with `dynamic_shapes` as `torch.export` takes them.

    Raises:
        ValueError: a network that torch.export cannot follow.
    """
    with _quiet(), _explained("traced"), torch.no_grad():
        # Sizes rounded up to the divisor lead to inequalities that hold for every size, which the solver cannot prove.
        return torch.export.export(
            graph,
            inputs,
            dynamic_shapes=dynamic_shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def drop_assertions(program: torch.export.ExportedProgram) -> None:
    """Without the assertions that sizes are like those traced, such as none a multiple of the divisor: checked instead.

    They come from choices of memory layout, which the operators in the graph do not depend on.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    inputs: list[str],
    outputs: tuple[str, ...],
    metadata: Mapping[str, object],
    *,
    half: bool = False,
) -> None:
    """Translate and write; weights as float16 if `half`.

    Raises:
        ValueError: an operator has no translation, or one of another domain.
    """
    import onnx

    with _quiet(), _explained("translated to ONNX"):
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert written is not None
    proto = written.model_proto
    foreign = {f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain}
    if foreign:
        raise ValueError(f"export: {', '.join(sorted(foreign))} are no standard operators")
    del proto.metadata_props[:]
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    for node in proto.graph.node:  # traces of our source, longer than the graph itself
        del node.metadata_props[:]
        node.doc_string = ""
    if half:
        _halve_weights(proto)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _halve_weights(proto: Any) -> None:
    """Each as float16 and a cast back to float32, which runtimes do once, when they open the file."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < 256 or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever the exporters raise, as a ValueError of one line."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"export: the model cannot be {what} by torch {torch.__version__} ({reason})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks to their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """What torch's exporter cannot translate, or not exactly: operator -> function that builds it of standard ones."""
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
