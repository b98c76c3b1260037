"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", ["deeplabv3", "fcn", "lraspp"])
def test_torchvision_segmenters_give_logits_of_the_images_own_size(network: str) -> None:
    model = example("refine_your_segmenter").build(network, num_classes=3).eval()
    images = torch.randn(1, 3, 41, 50)
    with torch.no_grad():
        assert model(images).shape == (1, 3, 41, 50)
        assert max(model.coarse(images).shape[-2:]) < 10


def test_the_whole_network_learns_from_both_losses(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("refine_your_segmenter")
    model = module.build("lraspp", num_classes=6)
    model.loss(*module.scenes(0, 2)).backward()
    assert model.point_rend.head.predictor.weight.grad.abs().sum() > 0
    assert model.segmenter.backbone["0"][0].weight.grad.abs().sum() > 0
    module.main(["--steps", "1"])
    assert "became 128x128" in capsys.readouterr().out


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(path.name in listed for path in EXAMPLES.glob("*.py"))
