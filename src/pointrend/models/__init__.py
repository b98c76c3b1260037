"""Whole networks: images in, typed results out. `instance` and `semantic` are the two stories to read."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def _import_torchvision() -> None:
    """``import torchvision`` without torch.compile, which `torchvision.ops.roi_align` loads for one function.

    That takes as long as torch itself (1.6 of 3.2 CPU seconds), and prediction does not compile. While torchvision is
    imported, stand-ins take the place of the two modules; they load the real ones when the function is called.
    """
    if any(name in sys.modules for name in (*COMPILER, "torchvision")):
        return
    import torch  # noqa: F401  before the stand-ins: torch is to see its own modules only

    def load(name: str) -> Any:
        if name.startswith("__"):  # of the module itself: `inspect` asks every module
            raise AttributeError(name)
        for own in stand_ins:
            if sys.modules.get(own) is stand_ins[own]:
                del sys.modules[own]
        return getattr(importlib.import_module("torch._dynamo.utils"), name)

    stand_ins = {name: types.ModuleType(name) for name in COMPILER}
    package, utils = stand_ins.values()
    package.__path__ = []
    utils.is_compile_supported = lambda device: load("is_compile_supported")(device)  # type: ignore[attr-defined]
    utils.__getattr__ = load  # type: ignore[method-assign]
    sys.modules.update(stand_ins)
    try:
        import torchvision  # noqa: F401
    finally:
        for name in COMPILER:
            if sys.modules.get(name) is stand_ins[name]:
                del sys.modules[name]


def require(module: str, extra: str) -> types.ModuleType:
    """The module of an optional library.

    Raises:
        ImportError: in one line, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'pointrend[{extra}]'") from error


_import_torchvision()
