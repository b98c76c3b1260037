"""Two processes against one: the same losses and the same weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pointrend.models.attached import attach
from pointrend.signals import sigterm
from pointrend.structures import SemanticTarget
from pointrend.training.data_loading import Plan
from pointrend.training.loggers import MEASURES
from pointrend.training.processes import create_accelerator, prepare_model, synchronise_norms
from pointrend.training.recipe import Recipe
from tests.training.scenarios import FILLED, SCENARIOS, TwoHeads

PROGRAM = Path(__file__).parent / "scenarios.py"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the two processes: another number of threads sums in another order, and the choice of points makes
    of a last bit another point, so that after 18 updates losses are 1e-3 apart."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def two_processes(in_two_processes: Callable[..., Path]) -> Path:
    """Runs every scenario in two processes (gloo)."""
    return in_two_processes(PROGRAM, *SCENARIOS)


def weights(folder: Path, name: str, rank: int) -> dict[str, Tensor]:
    return torch.load(folder / f"{name}-{rank}" / "weights.pt", weights_only=True)


def losses(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in MEASURES} for entry in entries if "step" in entry]


def assert_equal_training(name: str, two: Path, alone: Path, model: nn.Module) -> None:
    ours, theirs = losses(alone), losses(two / f"{name}-0")
    assert len(theirs) == SCENARIOS[name].steps
    for one, other in zip(ours, theirs, strict=False):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    if len(ours) == len(theirs):
        for key, value in weights(two, name, 0).items():
            assert torch.allclose(model.state_dict()[key], value, rtol=1e-3, atol=1e-5), key


@pytest.mark.parametrize("name", SCENARIOS)
def test_processes_stay_in_step_even_where_one_has_no_objects(two_processes: Path, name: str) -> None:
    ours, theirs = weights(two_processes, name, 0), weights(two_processes, name, 1)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert not (two_processes / f"{name}-1" / "log.jsonl").exists()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["semantic", "instance"])
def test_two_processes_do_what_one_does_at_once_or_in_parts(
    two_processes: Path, tmp_path: Path, name: str, accumulate: int
) -> None:
    model = SCENARIOS[name].run(tmp_path, accumulate=accumulate)
    assert_equal_training(name, two_processes, tmp_path, model)


def test_two_processes_that_accumulate_do_what_one_does_at_once(two_processes: Path, tmp_path: Path) -> None:
    model = SCENARIOS["accumulated"].run(tmp_path, accumulate=1)
    assert_equal_training("accumulated", two_processes, tmp_path, model)


def test_those_trainings_had_processes_without_any_object() -> None:
    parts = Plan(6, 4, parts=2, seed=3).parts_from(0)
    filled = [tuple(sum(draw.image < FILLED for draw in next(parts)) for _ in range(2)) for _ in range(20)]
    assert any(min(pair) == 0 < max(pair) for pair in filled)
    assert any(0 < min(pair) != max(pair) for pair in filled)


def test_means_over_parts_are_the_same_in_two_processes_and_in_two_parts(
    two_processes: Path, tmp_path: Path
) -> None:
    model = SCENARIOS["parts"].run(tmp_path, accumulate=2)
    assert_equal_training("parts", two_processes, tmp_path, model)


def test_one_process_may_train_twice_in_different_precisions() -> None:
    for precision in ("bfloat16", "float32"):
        recipe = replace(Recipe(), precision=precision)
        expected = {"bfloat16": "bf16", "float32": "no"}[precision]
        assert create_accelerator(recipe, device="cpu").mixed_precision == expected


def test_parts_without_a_loss_are_found_before_anything_is_compiled() -> None:
    model = attach(TwoHeads(3), classes=3, features="body")
    compiled: list[nn.Module] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"), prepare=lambda *parts: parts)
    loss, _ = prepare_model(
        two, model, torch.optim.SGD(model.parameters(), 0.1), Recipe(steps=1, compile=backend)
    )
    assert not compiled
    trained = {name for name, one in model.network.module.named_parameters() if one.requires_grad}
    assert trained == {"body.weight", "body.bias", "head.weight", "head.bias"}
    target = SemanticTarget(torch.zeros(32, 48, dtype=torch.int64))
    losses, _ = loss([torch.zeros(3, 32, 48, dtype=torch.uint8)], [target], [0])
    sum(losses.values()).backward()
    assert len(compiled) == 1
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "gpu"])
def test_a_device_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device: "):
        create_accelerator(Recipe(), name)


def test_synchronised_norms_keep_names_and_results() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(2, 3, 5, 5)
    expected = model(x)
    synchronise_norms(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules()) == 2
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model(x), expected)


def test_sigterm_is_noted_and_then_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with sigterm() as came:
        assert not came()
        signal.raise_signal(signal.SIGTERM)
        assert came()
    assert signal.getsignal(signal.SIGTERM) == before
