"""The demo predicts, draws and scores the photographs in the package, and says what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointrend import demo
from pointrend.cli import main
from pointrend.metadata.colors import default_palette
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.samples import SAMPLES


@pytest.fixture
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> SemanticSegmenter:
    """In the bundled model's place: 21 classes, random weights, small images."""
    torch.manual_seed(0)
    config = SemanticConfig(
        tuple(f"class {number}" for number in range(21)),
        default_palette(21),
        backbone=BackboneConfig("resnet18", norm="batch"),
        preprocessing=Preprocessing(long_edge=96),
        fpn_channels=8,
        decoder_channels=8,
        point_rend=SemanticPointRendConfig(features=("p2",), width=8, depth=1, num_points=64),
    )
    model = SemanticSegmenter(config).eval()
    monkeypatch.setattr(demo, "load", lambda name: model)
    monkeypatch.setattr(demo, "SAMPLES", {"riders": SAMPLES["riders"]})
    return model


def test_the_demo_writes_figures_and_scores(
    tiny_model: SemanticSegmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert torch.get_num_threads() == threads
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"riders.png", "scores.json"}
    rows = json.loads((tmp_path / "demo" / "scores.json").read_text())
    assert len(rows) == 2
    with Image.open(tmp_path / "demo" / "riders.png") as image:
        assert image.width == 4 * 4 * 120
    shown = capsys.readouterr().out
    for words in (
        "riders, 640x424",
        "s with points at",
        "boundary IoU",
        "gained",
        "pointrend predict",
        "[app]",
    ):
        assert words in shown


def test_a_device_that_is_not_there_is_one_line(
    tiny_model: SemanticSegmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--device", "nonsense", "--out", str(tmp_path / "demo")]) == 2
    assert "device: nonsense cannot be used here" in capsys.readouterr().err


def test_points_and_seconds_are_those_of_the_photograph(tiny_model: SemanticSegmenter) -> None:
    timing, figure = demo.predict_and_draw(tiny_model, "riders", SAMPLES["riders"].image)
    assert timing.size == (424, 640)
    assert 0 < timing.share < 1
    assert min(timing.seconds, timing.coarse_seconds) > 0
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles[0] == "photograph"
    assert f"{timing.share:.0%}" in titles[2]
