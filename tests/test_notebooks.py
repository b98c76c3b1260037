"""The notebooks run, and the executed ones in the repository are those of the scripts."""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]_*.py"))
LARGEST = 300_000  # bytes: GitHub shows larger notebooks slowly, or not at all


def test_there_are_five() -> None:
    assert [path.name[0] for path in SCRIPTS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_runs_offline(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("STEPS", "1")
    monkeypatch.setenv("SCENES", "2")
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert "rror" not in capsys.readouterr().err
    import matplotlib.pyplot

    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_in_the_repository_is_that_of_the_script(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    file = script.with_suffix(".ipynb")
    executed = json.loads(file.read_text(encoding="utf-8"))
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in executed["cells"]] == expected, (
        f"python examples/build.py {script.name}"
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_can_be_read_with_its_outputs(script: Path) -> None:
    file = script.with_suffix(".ipynb")
    outputs = [
        out
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
        for out in cell.get("outputs", ())
    ]
    assert file.stat().st_size < LARGEST
    assert {out["output_type"] for out in outputs} <= {"stream", "display_data", "execute_result"}
    assert sum(bool({"image/png", "image/jpeg"} & out.get("data", {}).keys()) for out in outputs) >= 2
    here = (f"{tempfile.gettempdir()}/", f"{EXAMPLES.parent}/", "site-packages")  # of whoever built it
    assert not any(folder in file.read_text(encoding="utf-8") for folder in here)
