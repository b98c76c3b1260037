"""The recipes of examples/cluster: files that are what they claim to be, with options that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointrend.cli.predict import Predict
from pointrend.cli.serve import Serve
from pointrend.cli.train import Train
from pointrend.training.options import TrainingOptions

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
RECIPES = sorted(path for path in FOLDER.iterdir() if path.is_file())


def options(*kinds: Any) -> set[str]:
    return {"--" + field.name.replace("_", "-") for kind in kinds for field in fields(kind)}


KNOWN = {"predict": options(Predict), "serve": options(Serve), "train": options(Train, TrainingOptions)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_option_of_a_recipe_exists(path: Path) -> None:
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    for command, rest in re.findall(r"pointrend (predict|serve|train)((?:[^\n]|\n {14})*)", text):
        assert {*re.findall(r"(?<!\S)--[a-z-]+", rest)} <= KNOWN[command]
    if path.name == "serve.yaml":
        assert {*re.findall(r"--[a-z-]+", text.partition("args:")[2].partition("]")[0])} <= KNOWN["serve"]


@pytest.mark.parametrize("path", [*FOLDER.glob("*.yaml")], ids=lambda path: path.name)
def test_manifests_are_yaml_with_containers(path: Path) -> None:
    kinds = {document["kind"] for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))}
    assert kinds & {"Job", "Deployment"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("path", [*FOLDER.glob("*.sbatch")], ids=lambda path: path.name)
def test_scripts_are_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", [*FOLDER.glob("*.py")], ids=lambda path: path.name)
def test_scripts_are_python(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), path, "exec")


def test_the_list_of_recipes_has_all_of_them() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in RECIPES if path.name != "README.md" and f"({path.name})" not in text] == []
