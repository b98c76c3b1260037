"""No option of any command is silently ignored: each changes what is done, or is refused."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import pointrend.evaluate
from pointrend import train as job
from pointrend.cli.app import App, Label
from pointrend.cli.data import Check, DrawCityscapes, LvisToCoco, SamplePoints
from pointrend.cli.evaluate import Evaluate
from pointrend.cli.explain import Demo, Explain
from pointrend.cli.predict import Predict
from pointrend.cli.train import Finetune, Train
from pointrend.cli.zoo import Cite, Convert, Zoo
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig
from pointrend.training.config import TrainingConfig
from pointrend.training.options import TrainingOptions
from pointrend.training.paper import TRAININGS
from pointrend.training.presets import preset

OTHERS = (
    App,
    Check,
    Cite,
    Convert,
    Demo,
    DrawCityscapes,
    Evaluate,
    Explain,
    Label,
    LvisToCoco,
    Predict,
    SamplePoints,
    Zoo,
)

# Of every option of `train` and `finetune` a value that is not the default.
VALUES: dict[str, Any] = {
    "data": "no-such-folder",
    "categories": ("cat",),
    "steps": 7,
    "batch_size": 3,
    "lr": 0.123,
    "crop": (33, 44),
    "size": 55,
    "sample_points": 3,
    "evaluate": False,
    "evaluate_every": 3,
    "metric": "box AP",
    "patience": 4,
    "limit": 2,
    "seed": 9,
    "out": Path("elsewhere"),
    "resume": True,
    "checkpoint_every": 11,
    "grad_accum": 2,
    "precision": "bfloat16",
    "ema": 0.5,
    "channels_last": True,
    "compile": "inductor",
    "workers": 1,
    "device": "cpu",
    "vis_every": 3,
    "wandb": "project",
    "pointrend": False,
    "sampling": "heavily-biased",
    "train_points": 25,
    "oversample": 2.0,
    "importance": 0.5,
    "points": 16,
    "subdivision_steps": 1,
    "point_head": "residual",
    "head_depth": 1,
    "head_width": 16,
    "backbone": "torchvision/mobilenet_v3_small",
    "weights": "no-such-file",
    "preset": "semantic-fpn-mobilenet",
}


def tiny(config: TrainingConfig) -> TrainingConfig:
    """The same training with a network of a fraction of a second."""
    network: Any = dataclasses.replace(
        config.network, backbone=BackboneConfig("resnet10_w16"), fpn_channels=8
    )
    if isinstance(network, InstanceConfig):
        masks = dataclasses.replace(network.masks, width=8, coarse_width=8, residual=False)
        network = dataclasses.replace(network, boxes=BoxHeadConfig(width=8), masks=masks, freeze_stages=0)
    else:
        rend = dataclasses.replace(network.point_rend, width=8, residual=False)
        network = dataclasses.replace(network, decoder_channels=8, point_rend=rend)
    return dataclasses.replace(config, network=network, pretrained="")


BASES = {
    "preset, semantic": tiny(preset("semantic-fpn-resnet18")),
    "preset, instance": tiny(preset("instance-resnet18")),
    "published, semantic": tiny(TRAININGS["pointrend_semantic_R_101_FPN_1x_cityscapes"]),
    "published, instance": tiny(TRAININGS["pointrend_rcnn_R_50_FPN_1x_coco"]),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the training loop is called with, instead of running."""
    found: list[dict[str, Any]] = []

    def note(model: Any, loader: Any, recipe: Any, **options: Any) -> None:
        functions = {name: value is not None for name, value in options.items() if callable(value)}
        plain = {name: value for name, value in options.items() if not callable(value)}
        found.append(plain | functions | {"workers": loader.workers, "draw": options["draw"] is not None})

    monkeypatch.setattr(job, "train", note)
    return found


def effect(run: job.TrainingRun, calls: list[dict[str, Any]]) -> str:
    """All that a training depends on, as text."""
    run.run()
    weights = sum(float(parameter.detach().double().sum()) for parameter in run.model.parameters())
    return repr(
        (
            run.recipe,
            run.model.config,
            weights,
            run.data.transforms,
            run.validation.limit,
            run.known,
            calls[-1],
        )
    )


def trained(base: TrainingConfig, calls: list[dict[str, Any]], **options: Any) -> str:
    chosen = Train(**options)
    if chosen.preset is not None:
        base = tiny(preset(chosen.preset))
    return effect(job.prepare_training(chosen.apply_to_network(base), chosen, weights=chosen.weights), calls)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_option_of_a_training_changes_it_or_is_refused(
    base: TrainingConfig, calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert VALUES.keys() | {"recipe"} == {field.name for field in dataclasses.fields(Train)}
    torch.manual_seed(0)
    plain = trained(base, calls)
    assert plain == trained(base, calls)
    ignored = []
    for name, value in VALUES.items():
        try:
            changed = trained(base, calls, **{name: value})
        except ValueError:
            continue  # refused
        if changed == plain:
            ignored.append(name)
    assert not ignored


def test_every_option_of_a_finetuning_changes_it_or_is_refused(
    calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {field.name for field in dataclasses.fields(TrainingOptions)}
    assert names | {"model"} == {field.name for field in dataclasses.fields(Finetune)}
    start = job.build(BASES["preset, semantic"].config(ShapeScenes(1).class_names[:3]))

    def tuned(**options: Any) -> str:
        run, _ = job.prepare_finetuning(start, "start", Finetune(model="start", **options))
        return effect(run, calls)

    plain, ignored = tuned(), []
    for name in names:
        try:
            if tuned(**{name: VALUES[name]}) == plain:
                ignored.append(name)
        except ValueError:
            continue
    assert not ignored


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: command.__name__)
def test_every_option_of_the_other_commands_is_read(command: type) -> None:
    """By its own code, or by the evaluation job that `eval` hands all of them to."""
    own = inspect.getsource(command)
    handed = inspect.getsource(pointrend.evaluate) if command is Evaluate else ""
    ignored = [
        field.name
        for field in dataclasses.fields(command)
        if not re.search(rf"\bself\.{field.name}\b", own)
        and not re.search(rf"\boptions\.{field.name}\b", handed)
    ]
    assert not ignored
