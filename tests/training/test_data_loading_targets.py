"""A training says when updates have nothing to learn from."""

from __future__ import annotations

import warnings

import pytest
import torch

from pointrend.structures import InstanceMasks, InstanceTarget, SemanticTarget
from pointrend.training.data_loading import TargetWatch, has_target


def objects(count: int, crowd: bool = False) -> InstanceTarget:
    masks = InstanceMasks([torch.ones(1, 1)] * count, torch.zeros(count, 2, dtype=torch.int64), (4, 4))
    return InstanceTarget(
        torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64), masks, torch.full((count,), crowd)
    )


def labels(value: int) -> SemanticTarget:
    return SemanticTarget(torch.full((2, 2), value, dtype=torch.uint8))


def test_a_target_is_an_object_that_is_no_crowd_or_a_labelled_pixel() -> None:
    assert has_target(objects(1))
    assert has_target(labels(0))
    assert not has_target(objects(0))
    assert not has_target(objects(2, crowd=True))
    assert not has_target(labels(255))


def test_the_first_update_without_a_target_is_said_and_their_number_in_the_end() -> None:
    watch = TargetWatch()
    watch.check([objects(0), objects(1)], 0)
    with pytest.warns(UserWarning, match=r"update 2: none of its images has an object .*data check"):
        watch.check([objects(0)], 1)
    watch.check([objects(0)], 2)
    with pytest.warns(UserWarning, match="2 of 3 updates had no target"):
        watch.finish(3)


def test_nothing_is_said_where_every_update_has_one() -> None:
    watch = TargetWatch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.check([labels(255), labels(1)], 0)
        watch.finish(1)
