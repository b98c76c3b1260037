"""The demo with a tiny budget: it trains, scores both predictions, draws, and says what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import pointrend
from pointrend.demo import DemoSettings, MirroredScenes, build_model, run


@pytest.fixture
def tiny(tmp_path: Path) -> DemoSettings:
    return DemoSettings(
        minutes=5,
        out=tmp_path / "demo",
        steps=2,
        batch_size=2,
        scenes=2,
        held_out=2,
        size=(48, 64),
        images=1,
    )


def test_the_demo_writes_model_scores_and_images(
    tiny: DemoSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(tiny)
    assert [row.name for row in rows] == ["coarse, interpolated", "with PointRend"]
    written = {path.name for path in tiny.out.iterdir()}
    assert written == {"model.safetensors", "scores.json", "scene1-compared.png", "scene1-steps.png"}
    assert len(json.loads((tiny.out / "scores.json").read_text())) == 2
    with Image.open(tiny.out / "scene1-compared.png") as image:
        assert image.width == 1440
    shown = capsys.readouterr().out
    assert "boundary IoU" in shown
    assert "gained" in shown
    assert "pointrend predict YOUR_IMAGES" in shown
    model = pointrend.load(tiny.out / "model.safetensors")
    assert model.predict([torch.zeros(3, 20, 30, dtype=torch.uint8)])[0].labels.shape == (20, 30)


def test_the_same_seed_gives_the_same_scenes_and_weights(tiny: DemoSettings) -> None:
    first, second = (MirroredScenes(tiny, lambda done, total: None) for _ in range(2))
    assert torch.equal(first.samples[0].image, second.samples[0].image)
    weights = [build_model(first.source, seed=3).state_dict() for _ in range(2)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_images_and_labels_are_mirrored_together(tiny: DemoSettings) -> None:
    scenes = MirroredScenes(tiny, lambda done, total: None)
    original, torch_seed = scenes.samples[0], torch.manual_seed(1)
    assert torch_seed is not None
    for _ in range(8):
        mirrored = scenes[0]
        for axes in ([], [-1], [-2], [-1, -2]):
            if torch.equal(mirrored.image, original.image.flip(axes)):
                assert torch.equal(mirrored.target.labels, original.target.labels.flip(axes))
                break
        else:
            pytest.fail("not a mirrored scene")
