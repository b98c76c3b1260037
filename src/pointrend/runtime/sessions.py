"""One interface to onnxruntime and OpenVINO: arrays by name in, arrays in order out, and the file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
FORMAT = "pointrend"
SUFFIXES = (".onnx", ".xml")


@dataclass(frozen=True)
class Session:
    """An opened file."""

    path: Path
    metadata: Mapping[str, str]
    inputs: tuple[str, ...]
    run: Callable[[Arrays], list[np.ndarray]]


def open_session(path: Path, threads: int | None = None, *, suffix: str | None = None) -> Session:
    """Open a file by its suffix, or as one of another; errors as of `pointrend.runtime.load`."""
    suffix = suffix or path.suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `pointrend export MODEL --to {path.name}` makes one")
    session = _open_onnx(path, threads) if suffix == ".onnx" else _open_openvino(path, threads)
    if session.metadata.get("format") != FORMAT or "task" not in session.metadata:
        raise ValueError(f"{path}: not written by `pointrend export`: its metadata does not name {FORMAT}")
    return session


def _open_onnx(path: Path, threads: int | None) -> Session:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path}: needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # onnxruntime's own classes, one for each kind of damage
        raise ValueError(f"{path}: not a readable ONNX file ({str(error).splitlines()[0]})") from error

    def run(arrays: Arrays) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(arrays))
        return found

    metadata = session.get_modelmeta().custom_metadata_map
    return Session(path, metadata, tuple(one.name for one in session.get_inputs()), run)


def _open_openvino(path: Path, threads: int | None) -> Session:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"{path}: needs openvino: pip install openvino") from error
    core = openvino.Core()
    try:
        model = core.read_model(path)
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise ValueError(f"{path}: not a readable OpenVINO model ({str(error).splitlines()[0]})") from error
    metadata = {}
    if model.has_rt_info([FORMAT]):
        held = model.get_rt_info([FORMAT]).value
        metadata = {name: str(getattr(value, "value", value)) for name, value in held.items()}

    def run(arrays: Arrays) -> list[np.ndarray]:
        found = compiled(dict(arrays))
        return [found[output] for output in compiled.outputs]

    return Session(path, metadata, tuple(one.get_any_name() for one in model.inputs), run)
