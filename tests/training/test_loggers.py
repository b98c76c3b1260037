"""Numbers and images reach every tracker, and the folder, in the same form."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker
from PIL import Image
from torch import nn

from pointrend.training import loggers
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loggers import Log, Pace, open_trackers
from pointrend.training.loop import train
from pointrend.training.processes import create_accelerator
from pointrend.training.recipe import Recipe

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


class Noted(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "noted"
    requires_logging_directory = False
    tracker = None

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, ...]] = []

    def log(self, values: Any, step: int | None = None, **_: Any) -> None:
        self.told.append((step, set(values)))

    def log_images(self, values: Any, step: int | None = None, **_: Any) -> None:
        self.told.append((step, set(values)))

    def finish(self) -> None:
        self.told.append(("closed",))


def test_images_are_drawn_of_the_averaged_model_and_lie_in_the_folder(greys, fit, tmp_path: Path) -> None:
    recipe = Recipe(steps=4, batch_size=2, draw_every=2, log_every=4, average=0.5)
    tracker, seen = Noted(), []

    def draw(model: nn.Module) -> dict[str, Any]:
        seen.append((model.training, model.head.weight.detach().clone()))
        return {"predictions": IMAGE}

    model = fit()
    train(
        model,
        TrainingLoader(greys(), recipe),
        recipe,
        out=tmp_path,
        device="cpu",
        draw=draw,
        trackers=[tracker],
    )
    assert [training for training, _ in seen] == [False, False]
    assert torch.equal(seen[1][1], model.head.weight)
    assert [told for told in tracker.told if told[1:] == ({"predictions"},)] == [
        (2, {"predictions"}),
        (4, {"predictions"}),
    ]
    assert tracker.told[-1] == ("closed",)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == ["predictions-0000002.png", "predictions-0000004.png"]
    with Image.open(tmp_path / "images" / names[0]) as drawn:
        assert np.array_equal(np.asarray(drawn), IMAGE)


def test_a_tracker_gets_what_the_log_gets(greys, fit, tmp_path: Path) -> None:
    recipe = Recipe(steps=2, batch_size=2, log_every=1, evaluate_every=2)
    tracker = Noted()
    train(
        fit(),
        TrainingLoader(greys(), recipe),
        recipe,
        out=tmp_path,
        device="cpu",
        evaluate=lambda model: {"score": 0.5},
        trackers=[tracker],
    )
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][1:]
    assert tracker.told[:-1] == [(entry["step"], set(entry) - {"step"}) for entry in entries]


def test_tensorboard_gets_numbers_and_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            told.append((folder,))

        def add_scalar(self, name: str, value: float, global_step: int) -> None:
            told.append((name, value, global_step))

        def add_images(self, name: str, images: Any, global_step: int, dataformats: str) -> None:
            told.append((name, images.shape, global_step, dataformats))

        def flush(self) -> None:
            pass

        def close(self) -> None:
            told.append(("closed",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)
    monkeypatch.setattr(loggers, "is_tensorboard_available", lambda: True)
    create_accelerator(Recipe(), "cpu")
    log = Log(None, Recipe(), trackers=open_trackers(tmp_path, Recipe()))
    log.write({"step": 3, "loss": 0.5})
    log.draw(4, {"predictions": IMAGE})
    log.close()
    assert told == [
        (str(tmp_path / "tensorboard"),),
        ("loss", 0.5, 3),
        ("predictions", (1, 2, 4, 3), 4, "NHWC"),
        ("closed",),
    ]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A module in wandb's place; what it is told."""
    told: list[tuple[Any, ...]] = []

    class Run:
        id = "run7"

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            told.append(("metric", name, step_metric))

        def log(self, entry: dict[str, Any], step: int | None) -> None:
            told.append(("log", entry, step))

        def finish(self) -> None:
            told.append(("finished",))

    def init(**settings: Any) -> Run:
        told.append(("init", settings))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    module.Image = lambda image: ("image", image.shape)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(loggers, "is_tensorboard_available", lambda: False)
    create_accelerator(Recipe(), "cpu")
    return told


def test_weights_and_biases_gets_numbers_and_images_and_goes_on_in_its_run(
    wandb: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    recipe = Recipe(steps=7)
    log = Log(None, recipe, trackers=open_trackers(tmp_path / "run", recipe, wandb="mine"))
    log.write({"step": 3, "loss": 0.5})
    log.draw(4, {"predictions": IMAGE})
    log.close()
    settings = wandb[0][1]
    assert (settings["project"], settings["id"], settings["config"]["steps"]) == ("mine", None, 7)
    # W&B's own counter refuses steps before the last one; "update" may go back to a checkpoint.
    assert [entry[1:] for entry in wandb if entry[0] == "log"] == [
        ({"update": 3, "loss": 0.5}, None),
        ({"update": 4, "predictions": [("image", (2, 4, 3))]}, None),
    ]
    assert ("metric", "*", "update") in wandb
    assert wandb[-1] == ("finished",)
    open_trackers(tmp_path / "run", recipe, wandb="mine")
    again = [entry[1] for entry in wandb if entry[0] == "init"][1]
    assert (again["id"], again["resume"]) == ("run7", "allow")


def test_trackers_that_are_not_installed_are_left_out_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loggers, "is_tensorboard_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_trackers(tmp_path, Recipe()) == ()
    with pytest.raises(ValueError, match=r"pip install 'pointrend\[wandb\]'"):
        open_trackers(tmp_path, Recipe(), wandb="mine")


def test_the_time_that_is_left_follows_from_the_updates_since_it_was_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(done=10, steps=30)
    now[0] = 110.0
    assert pace.remaining(15) == pytest.approx(30)
    assert pace.remaining(30) == 0
