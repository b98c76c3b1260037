from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pointrend.training.loop import NonFiniteLoss, train
from pointrend.training.recipe import Recipe


class Line(nn.Module):
    """Fits y = 2 x by one weight; a picture is a scalar here."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def loss(self, images: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        x, y = torch.stack(images), torch.stack(targets)
        return {"square": ((self.weight * x - y) ** 2).mean()}


def batches(count: int = 4, value: float = 1.0) -> list:
    pairs = [(torch.tensor(value * (n + 1)), torch.tensor(2 * value * (n + 1))) for n in range(count)]
    data = [([x, x], [y, y], [f"picture{n}.png"] * 2) for n, (x, y) in enumerate(pairs)]
    return torch.utils.data.DataLoader(data, batch_size=None)


def test_training_fits_and_reports_every_step() -> None:
    model, seen = Line(), []
    recipe = Recipe(steps=60, learning_rate=0.02, momentum=0.0, schedule="constant")
    scores = train(
        model,
        batches(),
        recipe,
        cpu=True,
        evaluate=lambda m: {"weight": m.weight.item()},
        report=lambda step, entry: seen.append((step, entry["square"])),
    )
    assert scores["weight"] == pytest.approx(2, abs=1e-3)
    assert [step for step, _ in seen] == list(range(1, 61))
    assert seen[-1][1] < seen[0][1]


def test_the_log_holds_the_recipe_losses_and_scores_as_json_lines(tmp_path: Path) -> None:
    recipe = Recipe(steps=6, log_every=2, evaluate_every=3)
    train(Line(), batches(), recipe, out=tmp_path / "run", cpu=True, evaluate=lambda m: {"score": 1.0})
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert entries[0]["recipe"]["steps"] == 6
    assert [entry["step"] for entry in entries[1:] if "square" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in entries[1:] if "score" in entry] == [3, 6, 6]


def test_checkpoints_are_written_when_asked(tmp_path: Path) -> None:
    def save(model: nn.Module, path: Path) -> None:
        torch.save(model.state_dict(), path)

    train(Line(), batches(), Recipe(steps=5, save_every=2), out=tmp_path, cpu=True, save=save)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == ["model.safetensors", "step0000002.safetensors", "step0000004.safetensors"]


def test_a_loss_that_is_no_number_stops_and_names_the_pictures() -> None:
    model = Line()
    with pytest.raises(NonFiniteLoss, match=r"update 1.*square.*picture0\.png"):
        train(model, batches(value=float("nan")), Recipe(steps=3), cpu=True)
    assert torch.isfinite(model.weight)


def test_accumulating_two_batches_is_one_batch_of_both() -> None:
    def trained(recipe: Recipe, data: object) -> float:
        model = Line()
        train(model, data, recipe, cpu=True)
        return model.weight.item()

    pairs = list(batches(2))
    joined = [([*pairs[0][0], *pairs[1][0]], [*pairs[0][1], *pairs[1][1]], [])]
    together = trained(
        Recipe(steps=1, learning_rate=0.01), torch.utils.data.DataLoader(joined, batch_size=None)
    )
    assert trained(Recipe(steps=1, learning_rate=0.01, accumulate=2), batches(2)) == pytest.approx(together)


def test_a_seed_makes_training_repeatable() -> None:
    class Noisy(Line):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            return {"noisy": (self.weight - torch.rand(())) ** 2}

    def trained(seed: int) -> float:
        model = Noisy()
        train(model, batches(), Recipe(steps=5, seed=seed), cpu=True)
        return model.weight.item()

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


def test_training_may_be_stopped_early() -> None:
    steps: list[int] = []
    train(
        Line(),
        batches(),
        Recipe(steps=100),
        cpu=True,
        report=lambda step, _: steps.append(step),
        stop=lambda: len(steps) == 3,
    )
    assert steps == [1, 2, 3]


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch"):
        train(Line(), torch.utils.data.DataLoader([], batch_size=None), Recipe(steps=1), cpu=True)
