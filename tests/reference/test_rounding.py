"""What is left out of comparisons is what rounding decides, and nothing else."""

from __future__ import annotations

import torch

from pointrend.core import SubdivisionStep
from tests.reference.rounding import REACH, ROUNDING, undecided

SIZE = (40, 40)


def step(uncertainty: torch.Tensor, num_points: int) -> SubdivisionStep:
    """A step on logits of this uncertainty (H, W), that takes its most uncertain cells."""
    logits = torch.stack((-uncertainty, torch.zeros_like(uncertainty)))[None]
    index = uncertainty.flatten().topk(num_points).indices[None]
    return SubdivisionStep(tuple(uncertainty.shape), logits, index, torch.zeros(1, num_points, 2), logits)


def ranked() -> torch.Tensor:
    """Cells that become less uncertain from left to right and from top to bottom, 0.01 from one to the next."""
    return -0.01 * torch.arange(40.0 * 40).view(SIZE)


def test_a_clear_ranking_leaves_nothing_out():
    assert not undecided([step(ranked(), 100)], SIZE).any()


def test_the_last_point_and_its_equal_are_left_out_with_their_surroundings():
    uncertainty = ranked()
    uncertainty[30, 20] = uncertainty.flatten()[99] - ROUNDING / 2  # the 100th is at (2, 19)
    found = undecided([step(uncertainty, 100)], SIZE)
    rows, columns = torch.nonzero(found).unbind(1)
    assert found[2, 19]
    assert found[30, 20]
    assert not found[15].any()
    assert int(found.sum()) == (2 + REACH + 1) * (2 * REACH + 1) + (2 * REACH + 1) ** 2
    assert (int(rows.max()), int(columns.max())) == (30 + REACH, 20 + REACH)


def test_all_cells_taken_is_no_choice():
    assert not undecided([step(torch.zeros(SIZE), 1600)], SIZE).any()


def test_an_exchange_moves_the_ranking_of_the_next_step():
    uncertainty = ranked()
    uncertainty[30, 20] = uncertainty.flatten()[99] - ROUNDING / 2
    alone, behind = (undecided(steps, SIZE) for steps in (
        [step(ranked(), 800)], [step(uncertainty, 100), step(ranked(), 800)]
    ))  # fmt: skip
    assert not alone.any()
    assert behind[19].any()  # the 800th cell ends row 19
