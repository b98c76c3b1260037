from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from pointrend.training.data_loading import Draw, Plan, derive_seed


def parts(plan: Plan, count: int, update: int = 0) -> list[list[Draw]]:
    return list(islice(plan.parts_from(update), count))


def test_each_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    draws = [Plan(7, 2).draw(number) for number in range(21)]
    epochs = [[draw.image for draw in draws[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [draw.number for draw in draws] == list(range(21))


def test_a_batch_may_be_larger_than_the_data_set() -> None:
    (batch,) = parts(Plan(2, 5), 1)
    assert Counter(draw.image for draw in batch).total() == 5


@pytest.mark.parametrize("wide", [None, [True, False, True, True, False]])
def test_starting_at_an_update_gives_what_would_have_come_there(wide: list[bool] | None) -> None:
    plan = Plan(5, 4, parts=2, seed=8, wide=wide)
    assert parts(plan, 20)[6:] == parts(plan, 14, update=3)


def test_processes_share_an_update_and_together_see_what_one_would() -> None:
    alone = parts(Plan(9, 6), 4)
    ranks = [list(islice(Plan(9, 6, parts=3).parts_from(0, rank=r, processes=3), 4)) for r in range(3)]
    assert [[*one, *two, *three] for one, two, three in zip(*ranks, strict=True)] == alone
    later = Plan(9, 6, parts=3).parts_from(2, rank=1, processes=3)
    assert next(iter(later)) == ranks[1][2]


def test_an_accumulating_process_sees_the_parts_that_two_processes_see() -> None:
    accumulated = parts(Plan(9, 6, parts=2), 4)
    ranks = [list(islice(Plan(9, 6, parts=2).parts_from(0, rank=r, processes=2), 2)) for r in range(2)]
    assert [part for update in zip(*ranks, strict=True) for part in update] == accumulated


def test_wide_and_tall_images_do_not_share_a_part_and_none_is_lost() -> None:
    wide = [index % 3 != 0 for index in range(10)]
    found = parts(Plan(10, 4, parts=2, wide=wide), 200)
    assert all(len({wide[draw.image] for draw in part}) == 1 for part in found)
    assert {draw.image for part in found for draw in part} == set(range(10))
    numbers = [draw.number for part in found for draw in part]
    assert len(numbers) == len(set(numbers))


def test_seeds_of_neighbours_are_unrelated_and_fit_torch() -> None:
    seeds = {derive_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0, "batch_size": 1}, "at least one image"),
        ({"size": 5, "batch_size": 3, "parts": 2}, "multiple of processes x accumulate = 2, got 3"),
        ({"size": 5, "batch_size": 2, "wide": [True]}, "expected 5 values"),
    ],
)
def test_impossible_plans_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**settings)
