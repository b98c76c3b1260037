"""Predict with an exported model, without torch: numpy, Pillow and onnxruntime (or openvino) are enough.

    model = pointrend.runtime.load("model.onnx")
    labels = model.predict("photo.jpg")                 # semantic: (H, W) class numbers
    found = model.predict("photo.jpg")                  # instance: boxes, labels, scores, masks

`python -m pointrend.runtime model.onnx photo.jpg` writes the result to a file.
"""

from __future__ import annotations

from pathlib import Path

from pointrend.runtime.model import InstanceModel, SemanticModel
from pointrend.runtime.sessions import open_session

__all__ = ["InstanceModel", "SemanticModel", "load"]


def load(path: str | Path, *, threads: int | None = None) -> SemanticModel | InstanceModel:
    """A model that `pointrend export` wrote: `.onnx`, or OpenVINO's `.xml` with its `.bin` beside it.

    Args:
        path: of the file.
        threads: CPU threads; the runtime's own choice if not given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not written by `pointrend export`, or damaged.
        ImportError: onnxruntime (or openvino) is not installed; says how to.
    """
    session = open_session(Path(path), threads)
    task = session.metadata["task"]
    if task not in ("semantic", "instance"):
        raise ValueError(f"{path}: task {task!r} is unknown to this version")
    return SemanticModel(session) if task == "semantic" else InstanceModel(session)
