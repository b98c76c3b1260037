"""Numbers and images reach every board, and the folder, in the same form."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loggers import Pace, TensorBoard, WeightsAndBiases, installed_boards
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


class Noted:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def numbers(self, step: int, numbers: Any) -> None:
        self.told.append((step, set(numbers)))

    def images(self, step: int, images: Any) -> None:
        self.told.append((step, set(images)))

    def close(self) -> None:
        self.told.append(("closed",))


def test_images_are_drawn_of_the_averaged_model_and_lie_in_the_folder(greys, fit, tmp_path: Path) -> None:
    recipe = Recipe(steps=4, batch_size=2, draw_every=2, log_every=4, average=0.5)
    board, seen = Noted(), []

    def draw(model: nn.Module) -> dict[str, Any]:
        seen.append((model.training, model.head.weight.detach().clone()))
        return {"predictions": IMAGE}

    model = fit()
    train(model, TrainingLoader(greys(), recipe), recipe, out=tmp_path, cpu=True, draw=draw, boards=[board])
    assert [training for training, _ in seen] == [False, False]
    assert torch.equal(seen[1][1], model.head.weight)
    assert [told for told in board.told if told[1:] == ({"predictions"},)] == [
        (2, {"predictions"}),
        (4, {"predictions"}),
    ]
    assert board.told[-1] == ("closed",)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == ["predictions-0000002.png", "predictions-0000004.png"]
    with Image.open(tmp_path / "images" / names[0]) as drawn:
        assert np.array_equal(np.asarray(drawn), IMAGE)


def test_a_board_gets_what_the_log_gets(greys, fit, tmp_path: Path) -> None:
    recipe = Recipe(steps=2, batch_size=2, log_every=1, evaluate_every=2)
    board = Noted()
    train(
        fit(),
        TrainingLoader(greys(), recipe),
        recipe,
        out=tmp_path,
        cpu=True,
        evaluate=lambda model: {"score": 0.5},
        boards=[board],
    )
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][1:]
    assert board.told[:-1] == [(entry["step"], set(entry) - {"step"}) for entry in entries]


def test_tensorboard_gets_numbers_and_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            told.append((folder,))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
            told.append((name, image.shape, step, dataformats))

        def close(self) -> None:
            told.append(("closed",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    board = TensorBoard(tmp_path)
    board.numbers(3, {"loss": 0.5})
    board.images(4, {"predictions": IMAGE})
    board.close()
    assert told == [
        (str(tmp_path),),
        ("loss", 0.5, 3),
        ("predictions", (2, 4, 3), 4, "HWC"),
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

        def log(self, entry: dict[str, Any]) -> None:
            told.append(("log", entry))

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
    return told


def test_weights_and_biases_gets_numbers_and_images_and_goes_on_in_its_run(
    wandb: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    recipe = Recipe(steps=7)
    board = WeightsAndBiases("mine", tmp_path / "run", recipe)
    board.numbers(3, {"loss": 0.5})
    board.images(4, {"predictions": IMAGE})
    board.close()
    settings = wandb[0][1]
    assert (settings["project"], settings["id"], settings["config"]["steps"]) == ("mine", None, 7)
    assert [entry[1] for entry in wandb if entry[0] == "log"] == [
        {"update": 3, "loss": 0.5},
        {"update": 4, "predictions": ("image", (2, 4, 3))},
    ]
    assert wandb[-1] == ("finished",)
    WeightsAndBiases("mine", tmp_path / "run", recipe)
    again = [entry[1] for entry in wandb if entry[0] == "init"][1]
    assert (again["id"], again["resume"]) == ("run7", "allow")


def test_boards_that_are_not_installed_are_left_out_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert installed_boards(tmp_path) == ()
    with pytest.raises(ValueError, match=r"pip install 'pointrend\[wandb\]'"):
        WeightsAndBiases("mine", tmp_path, Recipe())


def test_the_time_that_is_left_follows_from_the_updates_since_it_was_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(done=10, steps=30)
    now[0] = 110.0
    assert pace.remaining(15) == pytest.approx(30)
    assert pace.remaining(30) == 0
