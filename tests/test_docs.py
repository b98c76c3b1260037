"""The documentation: its code runs, its reference is complete, the site builds without a warning."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pointrend
from tools.public_api import public_api

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_the_ten_minutes_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "start.md"):
        exec(compile(block, "docs/start.md", "exec"), names)
    assert (tmp_path / "riders.png").exists()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_what_code_on_a_page_imports_is_there(page: Path) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pointrend"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_the_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [
        name for name in pointrend.__all__ if name[0] != "_" and f":: pointrend.{name}\n" not in reference
    ]
    assert not missing


def test_no_public_name_or_parameter_goes_or_comes_unnoticed() -> None:
    promised = (ROOT / "docs" / "public_api.txt").read_text(encoding="utf-8").splitlines()
    assert public_api() == promised, (
        "where this is meant, say so in CHANGELOG.md and run `python -m tools.public_api > docs/public_api.txt`"
    )


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert {page.stem for page in PAGES} - {"index"} <= {*contents}


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", str(ROOT / "docs"), str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    for page in tmp_path.glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe|source)[^>]+src="(https?:[^"]*)|<link[^>]+href="(https?:[^"]*)',
            page.read_text(encoding="utf-8"),
        )
        assert not loaded, page.name
