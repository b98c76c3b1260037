from __future__ import annotations

import pytest
import torch
from torch import nn

from pointrend.training.recipe import Recipe, build_optimizer


def test_poly_ends_at_zero_and_milestones_step_down() -> None:
    poly = Recipe(steps=100)
    assert poly.factor(0) == 1
    assert poly.factor(50) == pytest.approx(0.5**0.9)
    assert poly.factor(100) == 0
    published = Recipe(steps=90, schedule="milestones", milestones=(60, 80))
    assert [published.factor(step) for step in (59, 60, 79, 80)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warm_up_is_linear_from_its_factor() -> None:
    recipe = Recipe(schedule="constant", warmup_steps=1000, warmup_factor=0.001)
    assert recipe.factor(0) == pytest.approx(0.001)
    assert recipe.factor(500) == pytest.approx(0.001 * 0.5 + 0.5)
    assert recipe.factor(1000) == 1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"milestones": (5, 3)}]
)
def test_impossible_recipes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="recipe"):
        Recipe(**wrong)


def test_norms_are_not_decayed_and_the_backbone_has_its_own_rate() -> None:
    model = nn.ModuleDict(
        {"backbone": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "head": nn.Linear(4, 2)}
    )
    recipe = Recipe(learning_rate=0.1, weight_decay=0.01, backbone_factor=0.5)
    groups = build_optimizer(model, recipe).param_groups
    found = {(group["lr"], group["weight_decay"]): len(group["params"]) for group in groups}
    assert found == {(0.05, 0.01): 2, (0.1, 0.0): 2, (0.1, 0.01): 2}


def test_frozen_parameters_are_left_out_and_a_frozen_model_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert len(build_optimizer(model, Recipe()).param_groups[0]["params"]) == 1
    model.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(model, Recipe(optimizer="adamw"))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["mean_over", "optimizer", "schedule", "precision"])
def test_a_word_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected .* or .*, got 'SGD'"):
        Recipe(**{name: "SGD"})
