"""The code on the pages: every block of Python runs, every command is understood by its own parser.

What cannot run here is listed in NOT_RUN or SLOW, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pointrend
from pointrend import cli
from pointrend.zoo.bundled import BUNDLED

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
NOT_RUN = {
    "import ray": "starts Ray's own processes; examples/cluster/ray_data.py is the same as a script",
}
"""Words of a block -> why it is only compiled."""
SLOW = {"deploy.md": "writes two ONNX files first, half a minute each"}
"""Page -> why `make test-slow` runs it, and `make test` does not."""
LIBRARIES = ("transformers", "segmentation_models_pytorch", "onnxruntime", "pyarrow")
"""A block that names one of them is left out where it is not installed."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the images that the pages speak of; an address answers with one of them."""
    (tmp_path / "photos").mkdir()
    for file in ("photo.jpg", "other.jpg", "street.jpg", "photos/one.jpg"):
        Image.new("RGB", (64, 48), (90, 120, 150)).save(tmp_path / file)
    content = (tmp_path / "photo.jpg").read_bytes()
    monkeypatch.setattr("pointrend.data.remote._read_http", lambda *_: content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


def before_deploy() -> dict[str, object]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'pointrend[export]'")
    from pointrend.export import export

    export(pointrend.load("shapes-semantic"), Path("photo.onnx"))
    export(pointrend.load("shapes-instance"), Path("objects.onnx"))
    return {}


def before_prediction() -> dict[str, object]:
    shutil.copy(BUNDLED["shapes-instance"].path, "model.safetensors")
    return {"frame": np.zeros((48, 64, 3), dtype=np.uint8)}


def before_scale() -> dict[str, object]:
    if importlib.util.find_spec("pyarrow") is not None:
        words = [
            "predict",
            "photos",
            "--model",
            "shapes-semantic",
            "--format",
            "parquet",
            "--out",
            "predictions",
        ]
        assert cli.main(words) == 0
    return {}


PREPARATIONS: dict[str, Callable[[], dict[str, object]]] = {
    "deploy.md": before_deploy,
    "prediction.md": before_prediction,
    "scale.md": before_scale,
}
"""Page -> what makes the files that it takes as given, and returns the names."""


def check_start(names: dict[str, Any]) -> None:
    assert Path("riders.png").exists()


def check_readme(names: dict[str, Any]) -> None:
    assert Path("predictions/labels/one.png").exists()


def check_networks(names: dict[str, Any]) -> None:
    assert names["again"].config.class_names == ("road", "other")
    assert names["refined"].shape == (5, 1, 224, 224)
    assert Path("own.safetensors").exists()


def check_prediction(names: dict[str, Any]) -> None:
    assert len(names["results"]) == 3


AFTERWARDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "start.md": check_start,
    "README.md": check_readme,
    "networks.md": check_networks,
    "prediction.md": check_prediction,
}
"""Page -> what has to be there when its code has run."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW else [], id=name(page))
        for page in PAGES
        if python_blocks(page)
    ],
)
def test_the_python_of_a_page_runs_as_written(page: Path, folder: Path) -> None:
    """The blocks run in their order, as one program."""
    torch.manual_seed(0)
    names = PREPARATIONS.get(page.name, dict)()
    for block in python_blocks(page):
        code = compile(block, name(page), "exec")
        missing = [
            library for library in LIBRARIES if library in block and not importlib.util.find_spec(library)
        ]
        if not missing and not any(words in block for words in NOT_RUN):
            exec(code, names)
    AFTERWARDS.get(page.name, lambda _: None)(names)


def test_what_is_left_out_is_there() -> None:
    text = "".join(block for page in PAGES for block in python_blocks(page))
    assert [words for words in NOT_RUN if words not in text] == []
    assert {*SLOW, *PREPARATIONS, *AFTERWARDS} <= {page.name for page in PAGES if python_blocks(page)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_stands_in_fences_where_it_is_run(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert re.findall(r"^ {4}(?:import|from) \w.*", text, re.M) == []


def command_lines(page: Path, start: str) -> list[str]:
    """What a page says to type that begins with `start` (a pattern), in blocks and between backticks: without
    comments, redirections and what stands before it, such as torchrun; of a shell loop the first turn. Not what is
    abbreviated (`..`, `|`, `<`).
    """
    text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
    for variable, first in re.findall(r"for (\w+) in (\S+)", text):
        text = text.replace(f"${variable}", first)
    blocks = re.findall(rf"^ {{4,}}(?:.*? -m )?(?:[A-Z_]+=\S+ )*({start}.*)$", text, re.M)
    inline = re.findall(rf"`(?:torchrun [^`]* -m |time )?({start}[^`\n]*)`", text)
    found = [re.split(r"\s+(?:#|\(|>|&&)", line)[0] for line in [*blocks, *inline]]
    return [line for line in found if not re.search(r"(?<!\.)\.\.(?!\.)|[|<]", line)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_commands_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their names, options and values, that is; nothing is run. Prose may leave out what is required."""
    for command in vars(cli).values():
        if isinstance(command, type) and hasattr(command, "run"):
            monkeypatch.setattr(command, "run", lambda self: 0)
    wrong = {}
    for line in command_lines(page, "pointrend "):
        words = shlex.split(line)[1:]
        if "COMMAND" in words or words[-1].startswith("--"):  # an option that is only spoken of
            continue
        if cli.main(words) and "Required options" not in (message := capsys.readouterr().err):
            wrong[line] = message
    assert wrong == {}


class Understood(Exception):
    """The parser took the arguments."""


SCRIPTS = sorted(
    {
        line
        for page in PAGES
        for line in command_lines(page, r"python (?:-m )?(?:benchmarks|tools|pointrend\.)")
    }
)


@pytest.mark.parametrize("line", SCRIPTS)
def test_scripts_take_the_options_that_pages_name(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stop where they have read them."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: Any) -> None:
        parse(self, *given)
        raise Understood

    words = shlex.split(line)[1:]
    if words[0] == "-m":
        folder = ROOT / "src" if words[1].startswith("pointrend") else ROOT
        path, options = folder.joinpath(*words[1].split(".")), words[2:]
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    else:
        path, options = ROOT / words[0], words[1:]
    assert path.is_file()
    if "parse_args" not in path.read_text(encoding="utf-8"):
        assert options == []  # it takes none
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr("sys.argv", [path.name, *options])
    try:
        with pytest.raises(Understood):
            runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not here")


def test_there_are_scripts_on_the_pages() -> None:
    assert len(SCRIPTS) > 40


def test_what_is_installed_and_made_is_there() -> None:
    """Extras of `pip install 'pointrend[..]'`, targets of `make`, scripts of examples/."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    project = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    )
    named = {extra for found in re.findall(r"pointrend\[([\w,]+)\]", text) for extra in found.split(",")}
    assert named - {*re.findall(r"^([\w-]+) = \[", project, re.M)} == set()
    targets = {*re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)}
    made = {*re.findall(r"(?:^ {4}|`)make ([\w-]+)", text, re.M)}
    assert made
    assert made - targets == set()
    scripts = {*re.findall(r"(?:python|--to ipynb) (examples/\S+\.py)", text)}
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
