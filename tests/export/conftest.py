"""Exported once for the whole run: tracing and translating take half a minute each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pointrend


@pytest.fixture(scope="session")
def exporting() -> Callable[..., Path]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'pointrend[export]'")
    from pointrend.export import export

    return export


@pytest.fixture(scope="session")
def semantic() -> Any:
    return pointrend.load("shapes-semantic")


@pytest.fixture(scope="session")
def instance() -> Any:
    """On photographs it finds nothing, one thing or several."""
    model = pointrend.load("shapes-instance")
    model.box_head.config = replace(model.box_head.config, score_threshold=0.35)
    return model


@pytest.fixture(scope="session")
def semantic_file(exporting, semantic, tmp_path_factory) -> Path:
    return exporting(semantic, tmp_path_factory.mktemp("semantic") / "model.onnx")


@pytest.fixture(scope="session")
def instance_file(exporting, instance, tmp_path_factory) -> Path:
    return exporting(instance, tmp_path_factory.mktemp("instance") / "model.onnx")


@pytest.fixture(scope="session", autouse=True)
def _exporter() -> None:
    """Files are written by a newer torch than the package itself needs (docs/deploy.md)."""
    if "prefer_deferred_runtime_asserts_over_guards" not in inspect.signature(torch.export.export).parameters:
        pytest.skip(f"torch {torch.__version__} cannot export with sizes that are rounded up")
