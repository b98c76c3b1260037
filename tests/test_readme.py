"""The README's Python runs as written, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import pointrend
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
