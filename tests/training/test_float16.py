"""float16: scaled losses, updates that are left out, and a scale that is part of the checkpoint.

It needs a GPU; here accelerate's own way is taken with torch's autocast and scaler for the CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pointrend.core.selection import PointSampling
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training import gradient as update
from pointrend.training import loop
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.nonfinite import NonFiniteLoss
from pointrend.training.processes import create_accelerator
from pointrend.training.recipe import Recipe

RECIPE = Recipe(steps=6, batch_size=2, precision="float16", learning_rate=0.01, log_every=1, seed=4)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[Accelerator]]:
    """Lets the next trainings run in float16 on the CPU, from this loss scale on; their accelerators."""

    def enable(scale: float) -> list[Accelerator]:
        made: list[Accelerator] = []

        def pretend(recipe: Recipe, device: str | None) -> Accelerator:
            accelerator = create_accelerator(replace(recipe, precision="bfloat16"), device)
            accelerator.state._mixed_precision = "fp16"
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
            made.append(accelerator)
            return accelerator

        monkeypatch.setattr(loop, "create_accelerator", pretend)
        return made

    return enable


def run(model: nn.Module, data: Any, recipe: Recipe = RECIPE, **options: Any) -> nn.Module:
    train(model, TrainingLoader(data, recipe), recipe, device="cpu", trackers=(), **options)
    return model


def entries(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines][1:]


def test_the_cpu_is_refused_with_what_to_do(fit, greys) -> None:
    with pytest.raises(ValueError, match=r"float16 is for GPUs.*bfloat16"):
        run(fit(), greys())


def test_the_network_computes_in_float16_and_learns_what_it_learns_in_float32(
    half, fit, greys, tmp_path: Path
) -> None:
    whole = run(fit(), greys(), replace(RECIPE, precision="float32"))
    made = half(1024.0)
    inside: set[torch.dtype] = set()
    model = fit()
    model.head.register_forward_hook(lambda *_: inside.add(_[2].dtype))
    run(model, greys(), out=tmp_path)
    assert inside == {torch.float16}
    assert made[0].scaler.get_scale() == 1024 * 4  # doubled after each three updates
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    for name, value in whole.state_dict().items():
        assert torch.allclose(model.state_dict()[name].float(), value.float(), rtol=0.02, atol=0.02), name
    assert all(math.isfinite(entry["gradient_norm"]) for entry in entries(tmp_path))


def test_clipping_sees_gradients_without_their_scale(half, fit, greys, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=1, clip_gradient=0.01)
    norms = []
    for number, scale in enumerate((1.0, 1024.0)):
        half(scale)
        run(fit(), greys(), recipe, out=tmp_path / str(number))
        norms.append(entries(tmp_path / str(number))[0]["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_an_update_whose_gradient_overflows_is_left_out_and_the_next_is_scaled_less(
    half, fit, greys, tmp_path: Path
) -> None:
    made = half(2.0**40)
    model = fit()
    before = model.head.weight.clone()
    run(model, greys(), replace(RECIPE, steps=1), out=tmp_path / "one")
    assert torch.equal(model.head.weight, before)
    assert made[-1].scaler.get_scale() == 2.0**39
    assert entries(tmp_path / "one")[0]["gradient_norm"] is None  # JSON has no infinity
    run(model, greys(), replace(RECIPE, steps=40), out=tmp_path / "more")
    assert not torch.equal(model.head.weight, before)
    norms = [entry["gradient_norm"] for entry in entries(tmp_path / "more")]
    assert norms[:10] == [None] * 10
    assert sum(norm is not None for norm in norms) > 10


def test_a_gradient_that_is_infinite_at_any_scale_stops_the_training(half, fit, greys) -> None:
    class Steep(type(fit())):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            root = (self.head.bias - self.head.bias.detach()).abs().sqrt().sum()  # 0, with an infinite slope
            return {**super().loss(images, targets), "root": root}

    made = half(4.0)
    with pytest.raises(NonFiniteLoss, match="gradient"):
        run(Steep(), greys(), replace(RECIPE, steps=100))
    assert made[0].scaler.get_scale() < update.SMALLEST_SCALE


def test_a_loss_that_is_no_number_stops_as_in_float32(half, fit, greys) -> None:
    half(1024.0)
    model = fit()
    with torch.no_grad():
        model.head.weight.fill_(1e5)  # beyond float16
    with pytest.raises(NonFiniteLoss, match="square"):
        run(model, greys())


def test_resuming_goes_on_with_the_scale_that_was_reached(half, fit, greys, same, tmp_path: Path) -> None:
    recipe = replace(RECIPE, state_every=3)
    half(2.0**30)
    whole = run(fit(), greys(), recipe)
    half(2.0**30)
    run(fit(), greys(), recipe, out=tmp_path, stop=lambda: (tmp_path / "state-0000003.pt").exists())
    made = half(1.0)  # what the checkpoint says counts
    resumed = run(fit(), greys(), recipe, out=tmp_path, resume=True)
    assert same(whole, resumed)
    assert made[0].scaler.get_scale() > 2.0**10


def test_a_training_in_float32_can_go_on_in_float16(half, fit, greys, tmp_path: Path) -> None:
    recipe = replace(RECIPE, precision="float32", state_every=3)
    run(fit(), greys(), recipe, out=tmp_path, stop=lambda: (tmp_path / "state-0000003.pt").exists())
    half(1024.0)
    run(fit(), greys(), replace(recipe, precision="float16"), out=tmp_path, resume=True)
    assert entries(tmp_path)[-1]["step"] == 6


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_losses_of_the_models_are_float32_and_finite(half, tmp_path: Path, task: str) -> None:
    half(256.0)
    torch.manual_seed(0)
    scenes = ShapeScenes(2, task, size=(32, 48), objects=(1, 2))
    backbone = BackboneConfig("resnet18")
    if task == "semantic":
        rend = SemanticPointRendConfig(width=8, sampling=PointSampling(16))
        small = {"fpn_channels": 8, "decoder_channels": 8, "point_rend": rend}
        model: nn.Module = SemanticSegmenter(
            SemanticConfig(scenes.class_names, scenes.palette, backbone, **small)
        )
    else:
        boxes, masks = BoxHeadConfig(width=16, samples=8), MaskConfig(width=8, coarse_width=16)
        model = InstanceSegmenter(
            InstanceConfig(scenes.class_names, backbone, fpn_channels=8, boxes=boxes, masks=masks)
        )
    seen: set[torch.dtype] = set()
    given = model.loss

    def noted(*inputs: Any, **options: Any) -> Any:
        losses = given(*inputs, **options)
        seen.update(loss.dtype for loss in losses.values())
        return losses

    model.loss = noted  # type: ignore[method-assign]
    run(model, scenes, replace(RECIPE, steps=1, batch_size=1), out=tmp_path)
    assert seen == {torch.float32}
    losses = [
        value for entry in entries(tmp_path) for name, value in entry.items() if name != "gradient_norm"
    ]
    assert all(value is not None and math.isfinite(value) for value in losses)
