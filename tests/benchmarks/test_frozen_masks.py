from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch

from pointrend.structures import InstanceMasks, LabelledPoints

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # its scripts import one another
from frozen_masks import LEVELS, POINTS, STRIDE, STUDIES, Person, score, train

CHOSEN = (
    "mild, N=7x7",
    "depth 5, width 128",
    "conv28, masks",
    "conv28, 1 point",
    "pointrend, 10 points, 5 drawn",
)


def person(height: int, width: int) -> Person:
    """A rectangle in an image of noise."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[8:-8, 8:-8] = True
    box = torch.tensor([8.0, 8, width - 8, height - 8])
    places = 8 + torch.rand(1, POINTS, 2) * (box[2:] - box[:2])
    maps = {
        level: torch.randn(1, 8, height // side, width // side).half()
        for level, side in zip(LEVELS, (4, 8, 16, 16), strict=True)
    }
    return Person(
        maps, InstanceMasks.from_dense(mask[None]), box, LabelledPoints(places, torch.ones(1, POINTS))
    )


@pytest.mark.parametrize("name", CHOSEN)
def test_a_head_learns_and_is_scored_on_images_of_several_sizes(name: str) -> None:
    (plan,) = (plans[name] for plans in STUDIES.values() if name in plans)
    strides = dict(zip(LEVELS, (STRIDE, 8, 16, 16), strict=True))
    head = plan.head(dict.fromkeys(LEVELS, 8), strides, 1, plan.config)
    before = [parameter.clone() for parameter in head.parameters()]
    people = [person(64, 48), person(96, 64)]
    train(
        {name: plan},
        torch.nn.ModuleList([head]),
        people,
        argparse.Namespace(steps=2, batch=2, lr=1e-3, seed=0),
    )
    assert all((old != new).any() for old, new in zip(before, head.parameters(), strict=True))
    (found,) = score([name], torch.nn.ModuleList([head.eval()]), people).values()
    assert set(found) == {"mask IoU", "boundary IoU", "boundary IoU 3 px"}
    assert all(0 <= value <= 100 for value in found.values())


def test_each_study_compares_what_the_paper_does() -> None:
    assert {name: len(plans) for name, plans in STUDIES.items()} == {"selection": 12, "head": 7, "labels": 12}
