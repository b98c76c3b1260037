"""Models out of torch: ONNX, OpenVINO and `torch.export` files that give what `Predictor` gives (docs/deploy.md).

    export(pointrend.load("photo-semantic"), "photo.onnx")
    pointrend.runtime.load("photo.onnx").predict("photo.jpg")

A file is only kept after it has given the model's own answers, at sizes that it was not traced with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pointrend._version import __version__
from pointrend.export.graphs import SemanticGraph, build_graph
from pointrend.export.onnx_file import drop_assertions, trace, write_onnx
from pointrend.export.verify import CHECKED_SIZES, EXACT, HALF, Check, photograph
from pointrend.io import atomic_write
from pointrend.models.base import Pretrained
from pointrend.runtime.sessions import FORMAT

TRACED_SIZE = (131, 165)
"""Rows and columns that a graph of any size is traced with: no two sides of any map are equal."""
SUFFIXES = (".onnx", ".xml", ".pt2")


def export(
    model: Pretrained,
    to: str | Path,
    *,
    size: tuple[int, int] | None = None,
    num_points: int | None = None,
    logits: bool = False,
    half: bool = False,
    int8: Sequence[str | Path] = (),
) -> Path:
    """Write a model as `.onnx` (opset 18, standard operators), `.xml` with `.bin` (OpenVINO) or `.pt2` (torch.export).

    Args:
        model: a `SemanticSegmenter` or `InstanceSegmenter`; it stays as it is.
        to: the file; its suffix says which kind.
        size: rows and columns of the images as the network sees them; any if not given.
        num_points: of semantic models, points in each subdivision step, instead of the model's own number.
        logits: give logits of the network's size (semantic), or mask logits, instead of labels or probabilities.
        half: keep weights as float16, half the file; they are used as float32 all the same. Not `.pt2`.
        int8: images to calibrate by: convolutions in 8-bit integers, the point head and subdivision in float32.
            OpenVINO only. Not compared with the model: score it by `pointrend eval`.

    Raises:
        ValueError: an unknown suffix, options that do not go together, or answers that differ from the model's; then
            no file is left.
        ImportError: a package that this kind of file needs is missing; says how to install it.
    """
    to = Path(to)
    if to.suffix not in SUFFIXES:
        raise ValueError(f"{to}: expected a name that ends in {', '.join(SUFFIXES)}")
    if int8 and to.suffix != ".xml":
        raise ValueError(f"int8: expected a name that ends in .xml (OpenVINO), got {to}")
    if half and to.suffix == ".pt2":
        raise ValueError(f"half: expected a name that ends in .onnx or .xml, got {to}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size: expected rows and columns, at least 1 each, got {size}")
    _require_packages(to, bool(int8))
    graph = build_graph(model, logits=logits, num_points=num_points)
    preprocessing = model.config.preprocessing
    resizes = preprocessing.short_edge is not None or preprocessing.long_edge is not None
    inputs = ["image"]
    example: tuple[torch.Tensor, ...] = (photograph(size or TRACED_SIZE),)
    if isinstance(graph, SemanticGraph) and resizes and size is None and not logits:
        inputs, example = ["image", "size"], (*example, torch.tensor(TRACED_SIZE))
    program = trace(graph, example, dynamic=size is None)
    sizes = [size] if size is not None else list(CHECKED_SIZES)
    if to.suffix == ".pt2":
        drop_assertions(program)
        Check(graph, sizes).program(program, inputs)
        # By name, torch would warn of the ending.
        with atomic_write(to) as unfinished, unfinished.open("wb") as file:
            torch.export.save(program, file)
        return to
    metadata = describe(model, size, logits)
    check = Check(graph, sizes, HALF if half else EXACT)
    if to.suffix == ".onnx":
        with atomic_write(to) as unfinished:
            write_onnx(program, unfinished, inputs, graph.outputs, metadata, half=half)
            check.file(unfinished, ".onnx")
    else:
        from pointrend.export.openvino_file import write_openvino

        with TemporaryDirectory() as folder:
            onnx = Path(folder) / "model.onnx"
            write_onnx(program, onnx, inputs, graph.outputs, metadata)
            write_openvino(onnx, to, metadata, calibrate_by=int8, half=half, check=check)
    return to


def _require_packages(to: Path, int8: bool) -> None:
    """Said before a minute of tracing rather than behind it."""
    extra = "openvino" if to.suffix == ".xml" else "export"
    needed = {
        ".onnx": ["onnx", "onnxscript", "onnxruntime"],
        ".xml": ["onnx", "onnxscript", "openvino", *(["nncf"] if int8 else [])],
    }
    missing = [name for name in needed.get(to.suffix, []) if find_spec(name) is None]
    if missing:
        raise ImportError(f"{to}: needs {', '.join(missing)}: pip install 'pointrend[{extra}]'")


def describe(model: Pretrained, size: tuple[int, int] | None, logits: bool) -> dict[str, object]:
    """What a reader of the file needs to know, as the file holds it."""
    config = model.config
    return {
        "format": FORMAT,
        "version": __version__,
        "task": model.task,
        "classes": list(config.class_names),
        "palette": [list(color) for color in getattr(config, "palette", ())],
        "preprocessing": dataclasses.asdict(config.preprocessing),
        "size": "dynamic" if size is None else f"{size[0]}x{size[1]}",
        "gives": "logits" if logits else {"semantic": "labels", "instance": "probabilities"}[model.task],
        "licence": str(model.origin.get("licence", "")),
        "origin": {name: str(value) for name, value in model.origin.items() if isinstance(value, str | int)},
    }
