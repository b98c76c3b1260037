"""The mask heads cost what Table 2 of the paper says."""

from __future__ import annotations

import pytest

from benchmarks import flops
from pointrend.core import subdivision_sizes

COSTS = {f"{cost.name} {cost.side}": cost for cost in flops.costs()}
C, K = 256, 80


@pytest.mark.parametrize("row", flops.PAPER)
def test_counts_round_to_the_published_numbers(row: str) -> None:
    cost = COSTS[row]
    assert (flops.rounded(cost.macs / 1e9), flops.rounded(cost.activations / 1e6)) == flops.PAPER[row]


@pytest.mark.parametrize(("row", "pooled"), [("4x conv 28", 14), ("4x conv 224", 112)])
def test_conv_heads_count_as_derived_by_hand(row: str, pooled: int) -> None:
    mask = (2 * pooled) ** 2
    assert COSTS[row].macs == 4 * pooled**2 * 9 * C**2 + mask * C**2 + mask * C * K
    assert COSTS[row].outputs == 4 * pooled**2 * C + mask * C + mask * K


def test_pointrend_counts_as_derived_by_hand() -> None:
    coarse = 7**2 * 4 * C**2 + 7**2 * C * 1024 + 1024**2 + 1024 * 7**2 * K
    a_point = 3 * (C + K) * C + (C + K) * K
    cost = COSTS["PointRend 224"]
    assert cost.macs == coarse + 4 * 784 * a_point
    assert cost.outputs == 7**2 * C + 1024 + 1024 + 7**2 * K + 784 * (3 * C + K)


def test_the_five_steps_of_the_text_would_round_to_another_number() -> None:
    cells = [min(784, rows * columns) for rows, columns in subdivision_sizes((7, 7), (224, 224))]
    assert cells == [196, 784, 784, 784, 784]
    a_point = 3 * (C + K) * C + (C + K) * K
    coarse = COSTS["PointRend 224"].macs - 4 * 784 * a_point
    assert flops.rounded((coarse + sum(cells) * a_point) / 1e9) == "1.0"


@pytest.mark.parametrize(("name", "row"), [("conv28", "4x conv 28"), ("pointrend", "PointRend 224")])
def test_predict_runs_less_than_is_counted(name: str, row: str) -> None:
    assert COSTS[row].macs / 2 < flops.macs_as_run(name) < COSTS[row].macs


def test_hooks_are_gone_after_counting() -> None:
    head = flops.mask_head("pointrend")
    with flops.layer_outputs(head):
        pass
    assert not any(part._forward_hooks for part in head.modules())
