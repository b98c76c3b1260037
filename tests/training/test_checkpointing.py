"""Stopping, dying and going on: nothing may be lost, and nothing may come out differently."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pointrend.data.image_io import build_loader
from pointrend.signals import TERMINATED, Terminated
from pointrend.training import checkpointing as state_module
from pointrend.training.checkpointing import CheckpointError, write_atomically
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe

RECIPE = Recipe(
    steps=9, batch_size=4, accumulate=2, learning_rate=0.01, warmup_steps=3, average=0.9, clip_gradient=1.0
)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopping_and_resuming_changes_nothing(fit, greys, same, tmp_path: Path, optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, state_every=2)
    whole, stopped, resumed = fit(), fit(), fit()
    train(whole, TrainingLoader(greys(), recipe), recipe, device="cpu")
    steps: list[int] = []
    train(
        stopped,
        TrainingLoader(greys(), recipe),
        recipe,
        out=tmp_path,
        device="cpu",
        report=lambda step, _: steps.append(step),
        stop=lambda: len(steps) == 5,
    )
    assert not same(whole, stopped)
    torch.manual_seed(99)
    train(
        resumed,
        TrainingLoader(greys(), recipe, workers=1),
        recipe,
        out=tmp_path,
        device="cpu",
        report=lambda step, _: steps.append(step),
        resume=True,
    )
    assert steps == list(range(1, 10))
    assert same(whole, resumed)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["resumed"] for line in lines if "resumed" in line] == [5]


def test_batches_of_another_loader_are_gone_through_to_resume(fit, greys, same, tmp_path: Path) -> None:
    recipe = replace(RECIPE, accumulate=1, state_every=4)
    whole, resumed = fit(), fit()
    train(whole, build_loader(greys(), 4, seed=1), recipe, out=tmp_path, device="cpu")
    for path in tmp_path.glob("state-*.pt"):
        if path.name != "state-0000004.pt":
            path.unlink()
    train(resumed, build_loader(greys(), 4, seed=1), recipe, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
sys.path.insert(0, sys.argv[1])
from conftest import Fit, Greys
import torch
from test_checkpointing import RECIPE
from dataclasses import replace

def die(step, entry):
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(int(sys.argv[4]))  # sums are rounded differently with another number
torch.manual_seed(3)
recipe = replace(RECIPE, state_every=2)
train(Fit(), TrainingLoader(Greys(), recipe, workers=1), recipe, out=Path(sys.argv[2]), device="cpu", report=die)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_training_ends_as_if_it_had_not_been(fit, greys, same, tmp_path: Path) -> None:
    recipe = replace(RECIPE, state_every=2)
    at = random.Random(os.getpid()).randint(1, 8)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, here, str(tmp_path), str(at), str(torch.get_num_threads())]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), recipe), recipe, device="cpu")
    train(resumed, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed), f"killed in update {at}"


def test_sigterm_saves_and_exits_with_the_code_of_a_terminated_job(fit, greys, same, tmp_path: Path) -> None:
    def terminate(step: int, _: object) -> None:
        if step == 5:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended:
        train(fit(), TrainingLoader(greys(), RECIPE), RECIPE, out=tmp_path, device="cpu", report=terminate)
    assert ended.value.code == TERMINATED == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.glob("*.pt")] == ["state-0000005.pt"]
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), RECIPE), RECIPE, device="cpu")
    train(resumed, TrainingLoader(greys(), RECIPE), RECIPE, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)


def test_sigterm_ends_an_evaluation_at_once(fit, greys, same, tmp_path: Path) -> None:
    recipe = replace(RECIPE, evaluate_every=4, metric="score")
    saved: list[str] = []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return {"score": 1.0}

    with pytest.raises(Terminated):
        train(
            fit(),
            TrainingLoader(greys(), recipe),
            recipe,
            out=tmp_path,
            device="cpu",
            evaluate=evaluate,
            save=lambda model, path: saved.append(path.name),
        )
    assert saved == []
    assert [path.name for path in tmp_path.glob("*.pt")] == ["state-0000004.pt"]
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), RECIPE), RECIPE, device="cpu")
    train(resumed, TrainingLoader(greys(), RECIPE), RECIPE, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)


def test_sigterm_in_the_last_evaluation_leaves_it_to_the_training_that_goes_on(
    fit, greys, tmp_path: Path
) -> None:
    def interrupted(model: torch.nn.Module) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return {"score": 1.0}

    options = {"out": tmp_path, "device": "cpu", "save": lambda model, path: path.touch()}
    with pytest.raises(Terminated):
        train(fit(), TrainingLoader(greys(), RECIPE), RECIPE, evaluate=interrupted, **options)
    assert [path.name for path in tmp_path.glob("*.pt")] == [f"state-{RECIPE.steps:07d}.pt"]
    assert not (tmp_path / "model.safetensors").exists()
    loader = TrainingLoader(greys(), RECIPE)
    scores = train(fit(), loader, RECIPE, evaluate=lambda _: {"score": 2.0}, resume=True, **options)
    assert scores == {"score": 2.0}
    assert (tmp_path / "model.safetensors").exists()


def test_a_new_training_does_not_mix_its_checkpoints_with_those_of_another(
    fit, greys, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, state_every=3)
    train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    log = (tmp_path / "log.jsonl").read_text()
    with pytest.raises(ValueError, match=r"has checkpoints.*up to state-0000009\.pt; resume it"):
        train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    assert (tmp_path / "log.jsonl").read_text() == log


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def test_a_full_disk_is_an_error_that_leaves_the_last_good_checkpoint(
    fit, greys, same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, state_every=3)
    writes: list[Path] = []

    def write(path: Path, fill) -> None:
        writes.append(path)
        room = 2000 if len(writes) == 2 else 10**9
        write_atomically(path, lambda file: fill(FullDisk(file, room)))

    monkeypatch.setattr(state_module, "write_atomically", write)
    with pytest.raises(
        CheckpointError, match=r"state-0000006\.pt.*No space left.*last good one is .*0000003"
    ):
        train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    assert [path.name for path in tmp_path.glob("state*")] == ["state-0000003.pt"]  # nothing half-written
    monkeypatch.undo()
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), recipe), recipe, device="cpu")
    train(resumed, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)


def test_only_the_newest_checkpoints_stay(fit, greys, tmp_path: Path) -> None:
    recipe = replace(RECIPE, state_every=2, keep=2)
    train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["state-0000006.pt", "state-0000008.pt"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(fit, greys, same, tmp_path: Path) -> None:
    recipe = replace(RECIPE, state_every=4)
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    newest = tmp_path / "state-0000008.pt"
    newest.write_bytes(newest.read_bytes()[:700])
    with pytest.warns(UserWarning, match=r"state-0000008\.pt: not a readable checkpoint"):
        train(resumed, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)
    for path in tmp_path.glob("state-*.pt"):
        path.write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="not a readable checkpoint"),
        pytest.raises(ValueError, match="no checkpoint can be read"),
    ):
        train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)


def test_another_recipe_or_model_is_refused_and_the_difference_named(fit, greys, tmp_path: Path) -> None:
    recipe = replace(RECIPE, state_every=3)
    train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    other = replace(recipe, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.01 then, 0\.5 now"):
        train(fit(), TrainingLoader(greys(), other), other, out=tmp_path, device="cpu", resume=True)
    small = fit()
    small.head = torch.nn.Linear(4, 2)
    with pytest.raises(ValueError, match="of another model"):
        train(small, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)


def test_resuming_where_nothing_is_starts_from_the_beginning(fit, greys, same, tmp_path: Path) -> None:
    one, other = fit(), fit()
    train(one, TrainingLoader(greys(), RECIPE), RECIPE, device="cpu")
    train(other, TrainingLoader(greys(), RECIPE), RECIPE, out=tmp_path, device="cpu", resume=True)
    assert same(one, other)


def test_a_training_with_classes_in_another_order_is_not_resumed(fit, tmp_path: Path) -> None:
    def training(*names: str) -> state_module.Training:
        model = fit()
        model.config = SimpleNamespace(class_names=names)
        return state_module.Training(model, torch.optim.SGD(model.parameters(), 0.1), RECIPE)

    content = training("cup", "plate").content()
    training("cup", "plate").load(content, "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: .*other classes.*then cup, plate, now plate, cup"):
        training("plate", "cup").load(content, "state.pt")
    del content["class_names"]  # as written before
    training("plate", "cup").load(content, "state.pt")


def test_a_checkpoint_from_before_the_averaged_model_was_torchs_resumes_alike(
    fit, greys, same, tmp_path: Path
) -> None:
    """Its average had the parameters and floating-point buffers by name, and nothing else."""
    recipe = replace(RECIPE, state_every=4)
    train(fit(), TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu")
    for path in sorted(tmp_path.glob("state-*.pt"))[1:]:
        path.unlink()
    [path] = tmp_path.glob("state-*.pt")
    content = torch.load(path, weights_only=True)
    content["average"] = {n: value for n, value in content["average"].items() if value.is_floating_point()}
    torch.save(content, path)
    whole, resumed = fit(), fit()
    train(whole, TrainingLoader(greys(), recipe), recipe, device="cpu")
    train(resumed, TrainingLoader(greys(), recipe), recipe, out=tmp_path, device="cpu", resume=True)
    assert same(whole, resumed)
