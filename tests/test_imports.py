"""Imports point one way: the layer table of docs/architecture.md, read from the source of every module."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import pointrend

ROOT = Path(pointrend.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# Part -> (parts of ours it may import, packages of others it may import besides the standard library).
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "__init__": (set(), set()),
    "_version": (set(), set()),
    "core": (set(), {"torch"}),
    "points": ({"core"}, {"torch"}),
    "metadata": (set(), set()),
    "samples": (set(), set()),
    "io": (set(), {"PIL", "numpy"}),
    "distributed": (set(), {"torch"}),
    "signals": ({"distributed"}, set()),
    "run_folder": ({"io", "distributed"}, {"filelock"}),
    "structures": (set(), {"torch"}),
    "results": ({"structures"}, {"torch"}),
    "masks": ({"structures", "results"}, {"torch", "numpy", "supervision", "pandas"}),
    "formats": ({"masks", "structures", "results", "metadata", "io"}, {"numpy", "PIL", "torch", "yaml"}),
    "preprocessing": (set(), {"numpy", "PIL"}),
    "runtime": ({"data", "preprocessing"}, {"numpy", "PIL", "onnxruntime", "openvino"}),
    "models": (
        {"core", "structures", "results", "preprocessing"},
        {"torch", "torchvision", "numpy", "safetensors", "psutil"},
    ),
    "checkpoints": (
        {"core", "metadata", "structures", "models", "io"},
        {"torch", "numpy", "safetensors", "huggingface_hub", "filelock"},
    ),
    "data": (
        {"core", "metadata", "structures", "masks", "formats", "preprocessing", "io"},
        {"torch", "torchvision", "numpy", "PIL", "faster_coco_eval", "pillow_heif", "fsspec"},
    ),
    "evaluation": (
        {"core", "metadata", "structures", "results", "masks", "formats", "io", "run_folder", "distributed"},
        {"torch", "numpy", "PIL", "faster_coco_eval", "cityscapesscripts", "rich"},
    ),
    "training": (
        {
            "core",
            "structures",
            "models",
            "checkpoints",
            "zoo",
            "data",
            "evaluation",
            "io",
            "distributed",
            "signals",
        },
        {"torch", "numpy", "PIL", "accelerate", "wandb"},
    ),
    "zoo": (
        {"metadata", "structures", "results", "preprocessing", "runtime", "models", "checkpoints"},
        {"torch", "numpy", "safetensors"},
    ),
}
# May import everything; nothing but another edge imports them.
EDGES = {
    "batch",
    "evaluate",
    "predict",
    "serve",
    "train",
    "visualize",
    "export",
    "app",
    "cli",
    "demo",
    "__main__",
}

# Lazy imports (inside a function, or for type checkers) that reach further, each with its reason.
CONVENIENCES = {
    ("results", "matplotlib"): "the type that result.plot() returns",
    ("results", "numpy"): "the type that result.numpy() returns",
    ("results", "pandas"): "the type that result.to_pandas() returns",
    ("results", "supervision"): "the type that result.to_supervision() returns",
    ("results", "masks"): "result.to_coco(), .polygons() and the other formats",
    ("results", "visualize"): "result.plot() and notebooks draw",
    ("models", "zoo"): "Model.from_pretrained(name)",
    ("models", "checkpoints"): "Model.from_pretrained(path)",
}

# Of these, the ones without which modules would import each other in a circle: from a module into a part.
CIRCULAR = {
    ("pointrend.results", "masks"),
    ("pointrend.results", "visualize"),
    ("pointrend.models.base", "zoo"),
    ("pointrend.models.base", "checkpoints"),
}


class Import(NamedTuple):
    """One imported module and its line."""

    name: str
    line: int
    lazy: bool
    """It waits inside a function, or for a type checker."""


def module_name(path: Path) -> str:
    parts = ("pointrend", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name: str) -> str:
    """`pointrend.core.losses` -> `core`; `pointrend` itself -> `__init__`."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def imports_of(path: Path) -> Iterator[Import]:
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([node.module] if node.module else [])])
            for alias in node.names:  # `from package import submodule` imports the submodule
                full = f"{base}.{alias.name}"
                yield Import(full if full in NAMES else base, node.lineno, lazy)
        else:
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            inner = lazy or typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


HEAVY = {"torchvision", "matplotlib", "accelerate", "PIL", "rich", "tyro", "huggingface_hub"}
NAMES = {module_name(path) for path in MODULES}


def complaint(path: Path, found: Import) -> str | None:
    """Why this import breaks the table, or None."""
    part = part_of(module_name(path))
    if part == "__init__":  # the front door names its modules as strings or for type checkers only
        return None
    top = found.name.split(".")[0]
    target = part_of(found.name) if top == "pointrend" else top
    if part in EDGES or target in {part, "_version"} or (found.lazy and (part, target) in CONVENIENCES):
        return None
    ours, theirs = LAYERS.get(part, (set(), set()))
    if target in (ours if top == "pointrend" else theirs | sys.stdlib_module_names):
        return None
    where = f"{path.relative_to(ROOT)}:{found.line}"
    return f"{where} imports {found.name}; {part} may import {sorted(ours | theirs)}"


def fresh_modules(code: str) -> set[str]:
    """Names of the modules loaded once a fresh interpreter has run `code`, warnings being errors."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_every_module_has_a_place_in_the_table() -> None:
    unknown = {part_of(name) for name in NAMES} - LAYERS.keys() - EDGES
    assert not unknown, f"add {unknown} to the table here and in docs/architecture.md"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    complaints = [text for found in imports_of(path) if (text := complaint(path, found))]
    assert not complaints, "\n".join(complaints)


def test_nothing_but_an_edge_imports_an_edge() -> None:
    for part, (ours, _) in LAYERS.items():
        assert not ours & EDGES, part


def graph_of_imports(*, without: Collection[tuple[str, str]] = ()) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, those inside functions and for type checkers too.

    without: lazy imports from a module into a part that do not count.
    """
    return {
        module_name(path): {
            found.name
            for found in imports_of(path)
            if found.name in NAMES - {"pointrend"}
            and not (found.lazy and (module_name(path), part_of(found.name)) in without)
        }
        for path in MODULES
        if path != ROOT / "__init__.py"
    }


def test_modules_import_each_other_in_no_circle_not_even_lazily() -> None:
    graph = graph_of_imports(without=CIRCULAR)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize("exception", sorted(CIRCULAR), ids="-".join)
def test_every_exception_is_needed(exception: tuple[str, str]) -> None:
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph_of_imports(without=CIRCULAR - {exception})).prepare()


def test_nothing_imports_the_front_door() -> None:
    found = [
        (module_name(path), one.line)
        for path in MODULES
        for one in imports_of(path)
        if one.name == "pointrend" and part_of(module_name(path)) not in EDGES
    ]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_source_is_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_a_layer_break_is_seen(tmp_path: Path) -> None:
    found = Import("pointrend.models.inputs", 1, lazy=False)
    assert complaint(ROOT / "core" / "made_up.py", found) is not None
    assert complaint(ROOT / "core" / "made_up.py", Import("torchvision.ops", 1, lazy=True)) is not None
    assert complaint(ROOT / "models" / "made_up.py", Import("pointrend.cli", 1, lazy=True)) is not None
    assert complaint(ROOT / "models" / "made_up.py", Import("pointrend.core.sampling", 1, lazy=False)) is None


def test_import_pointrend_loads_nothing_else() -> None:
    loaded = {name.split(".")[0] for name in fresh_modules("import pointrend")}
    assert not loaded & HEAVY
    assert "torch" not in loaded


def test_core_and_the_generic_module_load_torch_and_nothing_heavier() -> None:
    loaded = fresh_modules("import pointrend as p; p.PointRend, p.subdivide, p.InstanceResult")
    assert "torch" in loaded
    assert {part_of(name) for name in loaded if name.startswith("pointrend.")} == {
        "_version",
        "core",
        "results",
        "structures",
    }
    assert not loaded & HEAVY


def test_predict_loads_neither_training_nor_torch_compile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    photo = ROOT / "samples" / "cyclist.jpg"
    loaded = fresh_modules(
        "import contextlib, io, pointrend.cli as cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    cli.main(['predict', {str(photo)!r}, '--out', {str(out)!r}])"
    )
    assert any(out.rglob("*.png")), "nothing was predicted"
    unwanted = {"pointrend.training.loop", "accelerate", "matplotlib", "torch._dynamo"}
    if torch.__version__ >= (2, 6):  # before, torchvision needs it without the compiler too
        unwanted.add("sympy")
    assert loaded.isdisjoint(unwanted)


def test_torchvision_comes_with_the_real_compiler_where_something_asks_for_it() -> None:
    loaded = fresh_modules(
        "import pointrend.models, sys, torch\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())) == 2\n"
        "from torchvision.ops import roi_align\n"
        "assert roi_align.__globals__['is_compile_supported']('cpu') in (True, False)\n"
        "assert torch._dynamo.utils.__file__"
    )
    assert "torch._dynamo.convert_frame" in loaded
