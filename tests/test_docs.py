"""The documentation: its links lead somewhere, its reference is complete, the site builds without a warning.

`test_docs_code.py` runs what stands in its blocks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

import pointrend
from tools import fill_docs
from tools.public_api import public_api

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_find_them(page: Path) -> None:
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")
    ):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:examples|benchmarks|docs|tests)/[\w/]+\.\w+)`", page.read_text(encoding="utf-8")
    )
    missing = [target for target in named if not (ROOT / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", fill_docs.PAGES, ids=lambda page: page.name)
def test_numbers_are_those_of_the_files_that_they_come_from(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == fill_docs.fill(text), (
        "run `python -m tools.fill_docs`, and read the sentences around the numbers"
    )
    assert text.count("<!-- generated: ") == text.count("<!-- end -->") == len(fill_docs.REGION.findall(text))


def test_every_source_of_numbers_is_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in fill_docs.PAGES)
    assert [
        name for name in (*fill_docs.BLOCKS, *fill_docs.PHRASES) if f"generated: {name} -->" not in text
    ] == []
    read, tables = set(), fill_docs.tables
    monkeypatch.setattr(fill_docs, "tables", lambda name: read.add(name.partition(" ")[0]) or tables(name))
    monkeypatch.setattr(fill_docs, "printed", fill_docs.printed.__wrapped__)
    fill_docs.fill(text)
    assert read == {path.stem for path in fill_docs.RESULTS.iterdir()}


@pytest.mark.parametrize("page", [*fill_docs.PAGES], ids=lambda page: page.name)
def test_tables_of_numbers_come_from_files_or_say_that_they_do_not(page: Path) -> None:
    """Those of the paper's page have published numbers."""
    blocks = fill_docs.REGION.sub("generated", page.read_text(encoding="utf-8")).split("\n\n")
    unsaid = [
        table
        for before, table in pairwise(blocks)
        if re.match(r"\|.*\n\| ---.*---:", table)
        and "generated" not in table
        and not before.startswith("<!-- by hand")
    ]
    assert unsaid == [] or page.stem == "paper"


def test_the_commands_of_results_are_on_the_pages() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in fill_docs.PAGES)
    lines = [
        line
        for path in fill_docs.RESULTS.iterdir()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("    ")
    ]
    assert len(lines) > 30
    assert [line for line in lines if line not in text] == []


def test_a_number_is_that_of_one_row() -> None:
    assert fill_docs.number("mask_branch", "100; 80; textbook", "classes", ".1f") == "80.0"
    assert fill_docs.number("mask_branch", "100; 80; textbook", "classes", None) == "80"
    with pytest.raises(ValueError, match="one row that begins with '100', got"):
        fill_docs.number("mask_branch", "100", "seconds", ".1f")
    with pytest.raises(ValueError, match="expected a number in the column 'seconds', got"):
        fill_docs.number("mask_branch", "100; 80; textbook", "seconds", "%")


def test_seeds_are_averaged_and_compared_with_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("a-0", "masks", "40"), ("a-0", "1 point", "20"), ("b-0", "masks", "1"), ("a-1", "masks", "60")]
    rows = [[run, f"conv28, {labels}", score] for run, labels, score in rows]
    monkeypatch.setattr(fill_docs, "printed", lambda name: [["run", "prediction", "AP"], ["---"] * 3, *rows])
    table = fill_docs.means("", partial(fill_docs.labels_of_run, "a"), ("head", "labels"), ("AP",))
    assert table.splitlines()[2:] == [
        "| 4x conv, 28x28 | masks | 2 | 50.0 |",
        "| 4x conv, 28x28 | 1 point | 1 | 20.0 (40 %) |",
    ]


def test_the_architecture_names_what_is_there() -> None:
    """Modules, and functions in them; and the core of PointRend is as short as the page says."""
    page, source = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), ROOT / "src" / "pointrend"
    named = re.findall(r"`([\w/]+\.py)(?:: (?:\w+\.)?(\w+))?`", page)
    modules = [(source / path, name) for path, name in named if not path.startswith("tests/")]
    assert [str(path) for path, _ in modules if not path.is_file()] == []
    assert [
        (path.name, name) for path, name in modules if name and name not in path.read_text(encoding="utf-8")
    ] == []
    core = [source / path for path in re.findall(r"^\| `(core/\w+\.py)` \|", page, re.M)]
    assert len(core) == 5
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in core) < 1000


def test_the_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [
        name for name in pointrend.__all__ if name[0] != "_" and f":: pointrend.{name}\n" not in reference
    ]
    assert not missing


def test_the_reference_has_the_methods_that_public_classes_inherit() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    heirs = [
        name
        for name in pointrend.__all__
        if isinstance(value := getattr(pointrend, name), type)
        and any(base.__module__.startswith("pointrend.") for base in value.__mro__[1:])
    ]
    assert {"SemanticSegmenter", "SemanticResult"} <= {*heirs}
    directive = ":: pointrend.{}\n   :members:\n   :inherited-members:"
    assert [name for name in heirs if directive.format(name) not in reference] == []


def test_no_public_name_or_parameter_goes_or_comes_unnoticed() -> None:
    promised = (ROOT / "docs" / "public_api.txt").read_text(encoding="utf-8").splitlines()
    assert public_api() == promised, (
        "where this is meant, say so in CHANGELOG.md and run `python -m tools.public_api > docs/public_api.txt`"
    )


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert {page.stem for page in ROOT.glob("docs/*.md")} - {"index"} <= {*contents}


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
