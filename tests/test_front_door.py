"""What `pointrend.__all__` promises can be imported, is documented, and is the same in all three lists."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from pathlib import Path

import pytest

import pointrend

PUBLIC = [name for name in pointrend.__all__ if name != "__version__"]


def type_checking_imports() -> dict[str, str]:
    """Name -> module, as the `if TYPE_CHECKING` block of the front door states them."""
    tree = ast.parse(Path(pointrend.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in found for alias in node.names}


@pytest.mark.parametrize("name", PUBLIC)
def test_each_promised_name_is_importable_and_documented(name: str) -> None:
    value = getattr(pointrend, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert value.__module__.startswith(pointrend._HOME[name]), f"{name} is defined elsewhere: mend the table"


def test_type_checkers_see_what_runs() -> None:
    assert type_checking_imports() == pointrend._HOME


def test_the_promise_lists_every_lazy_name_once() -> None:
    assert sorted(PUBLIC) == sorted(pointrend._HOME)
    assert len(set(pointrend.__all__)) == len(pointrend.__all__)


def test_dir_offers_what_is_promised() -> None:
    assert set(pointrend.__all__) <= set(dir(pointrend))


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="PointRend"):
        _ = pointrend.PointRender


def test_the_version_is_one_fact() -> None:
    assert importlib.metadata.version("pointrend") == pointrend.__version__


@pytest.mark.parametrize("name", [n for n in PUBLIC if n[0].islower()])
def test_public_functions_annotate_everything(name: str) -> None:
    signature = inspect.signature(getattr(pointrend, name))
    bare = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
    assert not bare
    assert signature.return_annotation is not inspect.Signature.empty


def test_the_console_command_exists() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="pointrend")
    assert [script.value for script in scripts] == ["pointrend.cli:main"]
    assert callable(importlib.import_module("pointrend.cli").main)
