"""The README's Python runs as written, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import pointrend
from pointrend import cli
from pointrend.models.backbones import BackboneConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's code speaks of: a small model, an image, a folder of images."""
    torch.manual_seed(0)
    config = pointrend.SemanticConfig(
        class_names=("sky", "road"), backbone=BackboneConfig("resnet18"), fpn_channels=16, decoder_channels=16
    )
    model = pointrend.SemanticSegmenter(config)
    pointrend.save(model, tmp_path / "model.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("street.jpg", "photos/one.jpg"):
        Image.new("RGB", (64, 48), (90, 120, 150)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_runs_as_written(working_folder: Path) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (working_folder / "predictions" / "labels" / "one.png").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:examples|benchmarks|docs|tests)/[\w/]+\.\w+)`", page.read_text(encoding="utf-8")
    )
    missing = [target for target in named if not (ROOT / target).exists()]
    assert not missing


def test_the_architecture_names_what_is_there() -> None:
    """Modules, and functions in them; and the core of PointRend is as short as the page says."""
    page, source = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), ROOT / "src" / "pointrend"
    named = re.findall(r"`([\w/]+\.py)(?:: (?:\w+\.)?(\w+))?`", page)
    modules = [(source / path, name) for path, name in named if not path.startswith("tests/")]
    assert [str(path) for path, _ in modules if not path.is_file()] == []
    assert [(path.name, name) for path, name in modules if name and name not in path.read_text()] == []
    core = [source / path for path in re.findall(r"^\| `(core/\w+\.py)` \|", page, re.M)]
    assert len(core) == 5
    assert sum(len(path.read_text().splitlines()) for path in core) < 1000


def commands(page: Path) -> list[str]:
    """What the page says to type after `pointrend`, in blocks and between backticks; not what is abbreviated, nor an
    option that is only spoken of.
    """
    text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"^    (?:.* -m )?pointrend (.+)$", text, re.M)
    inline = re.findall(r"`(?:torchrun [^`]* -m )?pointrend ([^`]+)`", text)
    found = [re.sub(r"\s+(#|\().*", "", command) for command in [*blocks, *inline]]
    return [command for command in found if not re.search(r"\.\.|[|<]|COMMAND|--[\w-]+$", command)]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their names and options, that is; nothing is run. Prose may leave out what is required."""
    for name in (
        "App",
        "Convert",
        "Data",
        "Demo",
        "Evaluate",
        "Explain",
        "Export",
        "Finetune",
        "Label",
        "Predict",
        "Refine",
        "Serve",
        "Train",
        "Zoo",
    ):
        monkeypatch.setattr(getattr(cli, name), "run", lambda self: 0)
    wrong = {command: capsys.readouterr().err for command in commands(page) if cli.main(shlex.split(command))}
    assert [command for command, message in wrong.items() if "Required options" not in message] == []
