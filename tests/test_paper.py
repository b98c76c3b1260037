"""What docs/paper.md says of the text and of the released code."""

from __future__ import annotations

import torch

from pointrend.core import binary_uncertainty, margin_uncertainty, regular_grid, subdivide
from pointrend.training.recipe import Recipe


def test_five_steps_from_7x7_are_three_from_28x28() -> None:
    """The text has the first, Detectron2 runs the second: with N = 28² grids of 14² and 28² are predicted whole."""
    torch.manual_seed(0)
    weights = torch.randn(3, 2) * 9

    def predict_at(points: torch.Tensor) -> torch.Tensor:
        return torch.sin(points @ weights.T).sum(-1)[:, None]  # (N, 1, P)

    def subdivided(start: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        return subdivide(
            start,
            predict_at,
            sizes=[(size, size) for size in sizes],
            num_points=784,
            uncertainty=binary_uncertainty,
        )

    coarse = torch.randn(2, 1, 7, 7)
    dense = predict_at(regular_grid(28, 28, regions=2)).view(2, 1, 28, 28)
    text, code = subdivided(coarse, [14, 28, 56, 112, 224]), subdivided(dense, [56, 112, 224])
    torch.testing.assert_close(text, code)


def test_warm_up_starts_at_a_rate_in_the_text_and_from_a_factor_in_the_code() -> None:
    code = Recipe(learning_rate=0.02, warmup_steps=1000)
    text = Recipe(learning_rate=0.02, warmup_steps=1000, warmup_factor=0.001 / 0.02)
    assert code.learning_rate * code.factor(0) == 0.02 * 0.001
    assert text.learning_rate * text.factor(0) == 0.001
    assert text.factor(1000) == code.factor(1000)


def test_margins_of_logits_and_of_probabilities_choose_nearly_the_same_points() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 19, 1000)
    chosen = [
        set(margin_uncertainty(values)[0].topk(100).indices.tolist())
        for values in (logits, logits.softmax(dim=1))
    ]
    assert 85 <= len(chosen[0] & chosen[1]) <= 95
