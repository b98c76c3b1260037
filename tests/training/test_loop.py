from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loggers import MEASURES
from pointrend.training.loop import train
from pointrend.training.nonfinite import NonFiniteLoss, load_batch
from pointrend.training.recipe import Recipe


class Line(nn.Module):
    """Fits y = 2 x by one weight; an image is a scalar here."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def loss(self, images: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        x, y = torch.stack(images), torch.stack(targets)
        return {"square": ((self.weight * x - y) ** 2).mean()}


def batches(count: int = 4, value: float = 1.0) -> list:
    pairs = [(torch.tensor(value * (n + 1)), torch.tensor(2 * value * (n + 1))) for n in range(count)]
    data = [([x, x], [y, y], [f"image{n}.png"] * 2) for n, (x, y) in enumerate(pairs)]
    return torch.utils.data.DataLoader(data, batch_size=None)


def test_training_fits_and_reports_every_step() -> None:
    model, seen = Line(), []
    recipe = Recipe(steps=60, learning_rate=0.02, momentum=0.0, schedule="constant")
    scores = train(
        model,
        batches(),
        recipe,
        device="cpu",
        evaluate=lambda m: {"weight": m.weight.item()},
        report=lambda step, entry: seen.append((step, entry["square"])),
    )
    assert scores["weight"] == pytest.approx(2, abs=1e-3)
    assert [step for step, _ in seen] == list(range(1, 61))
    assert seen[-1][1] < seen[0][1]


def test_the_log_holds_the_recipe_losses_and_scores_as_json_lines(tmp_path: Path) -> None:
    recipe = Recipe(steps=6, log_every=2, evaluate_every=3)
    train(Line(), batches(), recipe, out=tmp_path / "run", device="cpu", evaluate=lambda m: {"score": 1.0})
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert entries[0]["recipe"]["steps"] == 6
    assert [entry["step"] for entry in entries[1:] if "square" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in entries[1:] if "score" in entry] == [3, 6]  # the last one once
    assert all(set(MEASURES) <= set(entry) for entry in entries[1:] if "square" in entry)
    last = entries[-2]
    assert last["remaining_seconds"] == 0
    assert last["memory_gib"] > 0.01
    assert 0 < last["data_seconds"] < last["seconds"]
    assert last["gradient_norm"] > 0


def test_checkpoints_are_written_when_asked(tmp_path: Path) -> None:
    def save(model: nn.Module, path: Path) -> None:
        torch.save(model.state_dict(), path)

    train(Line(), batches(), Recipe(steps=5, save_every=2), out=tmp_path, device="cpu", save=save)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == ["model.safetensors", "step0000002.safetensors", "step0000004.safetensors"]


def test_a_loss_that_is_no_number_stops_and_names_the_images() -> None:
    model = Line()
    with pytest.raises(NonFiniteLoss, match=r"update 1.*square.*image0\.png"):
        train(model, batches(value=float("nan")), Recipe(steps=3), device="cpu")
    assert torch.isfinite(model.weight)


def test_accumulating_two_batches_is_one_batch_of_both() -> None:
    def trained(recipe: Recipe, data: object) -> float:
        model = Line()
        train(model, data, recipe, device="cpu")
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
        train(model, batches(), Recipe(steps=5, seed=seed), device="cpu")
        return model.weight.item()

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


def test_training_may_be_stopped_early() -> None:
    steps: list[int] = []
    train(
        Line(),
        batches(),
        Recipe(steps=100),
        device="cpu",
        report=lambda step, _: steps.append(step),
        stop=lambda: len(steps) == 3,
    )
    assert steps == [1, 2, 3]


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch"):
        train(Line(), torch.utils.data.DataLoader([], batch_size=None), Recipe(steps=1), device="cpu")


def test_the_best_model_by_the_metric_is_kept_and_patience_ends_the_training(tmp_path: Path) -> None:
    scores = iter([0.3, 0.5, 0.4, 0.2])
    recipe = Recipe(steps=50, evaluate_every=2, metric="score", patience=2)
    saved: list[str] = []
    train(
        Line(),
        batches(),
        recipe,
        out=tmp_path,
        device="cpu",
        evaluate=lambda m: {"score": next(scores)},
        save=lambda m, path: saved.append(path.name),
    )
    # 0.3 and 0.5 were better; it ends after two that were not.
    assert saved == ["best.safetensors", "best.safetensors", "model.safetensors"]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1]) == {"step": 8, "score": 0.2}


def test_a_score_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    scores = iter([float("nan"), 0.1, float("nan"), 0.2])
    saved: list[str] = []
    train(
        Line(),
        batches(),
        Recipe(steps=4, evaluate_every=1, metric="score"),
        out=tmp_path,
        device="cpu",
        evaluate=lambda m: {"score": next(scores)},
        save=lambda m, path: saved.append(path.name),
    )
    assert saved == ["best.safetensors", "best.safetensors", "model.safetensors"]


def test_an_unknown_metric_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives AP, not 'mIoU'"):
        train(Line(), batches(), Recipe(steps=1, metric="mIoU"), device="cpu", evaluate=lambda m: {"AP": 1.0})
    with pytest.raises(ValueError, match="'mIoU' is a score, and this training is not evaluated"):
        train(Line(), batches(), Recipe(steps=1, metric="mIoU"), device="cpu")
    with pytest.raises(ValueError, match="patience needs a metric"):
        Recipe(patience=3)


def test_the_moving_average_is_what_is_scored_saved_and_left_in_the_model(tmp_path: Path) -> None:
    weights: list[float] = []
    scored: list[float] = []

    class Noted(Line):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            weights.append(self.weight.item())
            return super().loss(images, targets)

    model = Noted()
    recipe = Recipe(steps=3, learning_rate=0.01, average=0.5, evaluate_every=1)
    train(
        model, batches(), recipe, device="cpu", evaluate=lambda m: {"weight": scored.append(m.weight.item())}
    )
    assert weights[0] == 0
    assert len(scored) == 3
    averages = [0.0]
    for weight in weights[1:]:
        averages.append(0.5 * averages[-1] + 0.5 * weight)
    assert scored[:2] == pytest.approx(averages[1:])
    assert model.weight.item() == pytest.approx(scored[2])


def test_a_failed_batch_can_be_run_again(tmp_path: Path) -> None:
    class Diverging(Line):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            noise = torch.rand(())
            return {"noisy": super().loss(images, targets)["square"] + noise.reciprocal() * float("inf")}

    with pytest.raises(NonFiniteLoss, match=r"update 1.*batch, weights and seed are in .*\.pt"):
        train(Diverging(), batches(), Recipe(steps=3), out=tmp_path, device="cpu")
    failed = load_batch(tmp_path / "failed-update0000001-process0.pt")
    assert not torch.isfinite(failed.run(Diverging())["noisy"])
    assert [y.item() for y in failed.targets] == [2 * x.item() for x in failed.images]


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    class Steep(Line):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            return {"root": self.weight.abs().sqrt() * len(images)}  # 0 at 0, with an infinite slope

    model = Steep()
    recipe = Recipe(steps=3, accumulate=2)
    with pytest.raises(NonFiniteLoss, match=r"update 1.*gradient.*image0\.png.*image1\.png"):
        train(model, batches(), recipe, out=tmp_path, device="cpu")
    assert model.weight == 0
    failed = load_batch(tmp_path / "failed-update0000001-process0.pt")
    assert (len(failed.images), len(failed.seeds)) == (4, 4)


def test_a_model_that_finds_its_own_loss_infinite_is_reported_like_any(tmp_path: Path) -> None:
    class Aware(Line):
        def loss(self, images: list, targets: list) -> dict[str, torch.Tensor]:
            raise FloatingPointError("boxes are NaN")

    with pytest.raises(NonFiniteLoss, match=r"boxes are NaN.*image0\.png"):
        train(Aware(), batches(), Recipe(steps=3), out=tmp_path, device="cpu")
    assert len(list(tmp_path.glob("failed-*.pt"))) == 1


def test_memory_layout_and_compilation_do_not_change_the_result(greys, fit) -> None:
    found = []
    for changes in ({}, {"channels_last": True}, {"compile": "eager"}):
        recipe = Recipe(steps=3, batch_size=4, learning_rate=0.01, **changes)
        model = fit()
        model.dropped = 0.0  # what is dropped follows the layout
        train(model, TrainingLoader(greys(), recipe), recipe, device="cpu")
        found.append(model.state_dict())
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.allclose(other[name], value, atol=1e-5) for name, value in found[0].items())


def test_losses_come_in_float32_from_a_network_in_bfloat16(greys, fit) -> None:
    inside: list[torch.dtype] = []
    model = fit()
    model.head.register_forward_hook(lambda *_: inside.append(_[2].dtype))
    recipe = Recipe(steps=2, batch_size=2, precision="bfloat16")
    losses: list[float] = []
    train(
        model,
        TrainingLoader(greys(), recipe),
        recipe,
        device="cpu",
        report=lambda step, entry: losses.append(entry["square"]),
    )
    assert set(inside) == {torch.bfloat16}
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
