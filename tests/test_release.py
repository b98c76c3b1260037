"""What a release rests on: workflows that run what there is, one version and date, templates that GitHub reads."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import pointrend

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_make_what_there_is(path: Path) -> None:
    targets = {*re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)}
    jobs = read(path)["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {
        target
        for line in lines
        for target in re.findall(r"^make (.*)", line, re.M)
        for target in target.split()
    }
    assert made
    assert made <= targets
    assert all(needed in jobs for job in jobs.values() if (needed := job.get("needs")))


def test_the_tests_run_on_every_system_and_python_that_is_promised() -> None:
    matrix = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    versions = [*matrix["python"], *(more["python"] for more in matrix["include"])]
    assert sorted(versions, key=lambda version: int(version.partition(".")[2])) == [
        f"3.{n}" for n in range(10, 15)
    ]
    assert 'requires-python = ">=3.10"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_templates_have_what_github_asks_for(path: Path) -> None:
    template = read(path)
    assert {"name", "description", "body"} <= template.keys()
    assert all({"type", "attributes"} <= part.keys() for part in template["body"])


def test_the_changelog_and_the_citation_name_this_version_and_its_day() -> None:
    cited = read(ROOT / "CITATION.cff")
    assert str(cited["version"]) == pointrend.__version__
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    assert first[1] == f"{pointrend.__version__} ({cited['date-released']})"


def test_the_long_description_has_links_that_lead_somewhere_from_an_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = "hatchling.metadata.plugin.interface"  # installed where a package is built
    monkeypatch.setitem(sys.modules, plugin, SimpleNamespace(MetadataHookInterface=object))
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["CustomMetadataHook"]()
    hook.root = ROOT
    hook.update(plain := {})
    assert plain == {
        "readme": {
            "content-type": "text/markdown",
            "text": (ROOT / "README.md").read_text(encoding="utf-8"),
        }
    }
    monkeypatch.setenv("POINTREND_REPOSITORY", "https://example.org/someone/pointrend/")
    monkeypatch.setenv("POINTREND_REVISION", "v0.1.0")
    hook.update(released := {})
    assert released["urls"] == {"Source": "https://example.org/someone/pointrend"}
    targets = re.findall(r"\]\((.*?)\)|<img src=\"(.*?)\"", released["readme"]["text"])
    targets = [link or image for link, image in targets]
    assert "https://example.org/someone/pointrend/raw/v0.1.0/docs/images/demo.jpg" in targets
    assert "https://example.org/someone/pointrend/blob/v0.1.0/docs/start.md#your-own-network" in targets
    assert [target for target in targets if not target.startswith("https://")] == []
