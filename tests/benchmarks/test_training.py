from __future__ import annotations

import argparse

import pytest

from benchmarks.training import PARTS, VARIANTS, joined, measure, spread, table

QUICK = argparse.Namespace(
    cpu=True, scale=0.08, batch=2, backbone="resnet18", bfloat16=False, steps=1, processor_time=False
)


@pytest.mark.parametrize(("task", "variant"), [("instance", "pointrend"), ("semantic", "coarse")])
def test_a_step_is_split_into_its_parts(task: str, variant: str) -> None:
    row = measure(QUICK, task, variant)
    assert set(row["seconds"]) == {*PARTS, "head"}
    assert all(len(row["seconds"][part]) == 1 and min(row["seconds"][part]) > 0 for part in PARTS)
    assert len(row["seconds"]["head"]) == (1 if variant == "pointrend" else 0)
    assert row["peak_gib"] > 0
    assert (row["boxes_with_masks"] > 0) == (task == "instance")


def test_the_table_tells_what_a_head_adds_to_the_coarse_one() -> None:
    rows = [
        {
            "task": task,
            "variant": variant,
            "size": [8, 8],
            "seconds": {part: [1.0, 1.0, 9.0] if variant == "coarse" else [2.0] * 3 for part in PARTS}
            | {"head": []},
            "peak_gib": 1.0,
        }
        for task, variants in VARIANTS.items()
        for variant in variants
    ]
    shown = table(rows).splitlines()
    assert len(shown) == 2 + len(rows)
    assert "50.0 %" in shown[2]
    assert " 0.0 %" in shown[3]


def test_rounds_of_a_variant_are_joined() -> None:
    row = {"seconds": {"data": [1.0, 3.0], "head": []}, "peak_gib": 2.0}
    other = {"seconds": {"data": [2.0], "head": []}, "peak_gib": 3.0}
    both = joined([row, other])
    assert both == {"seconds": {"data": [1.0, 3.0, 2.0], "head": []}, "peak_gib": 3.0}
    assert spread(both["seconds"]["data"]) == "2 s (1 to 3)"
    assert spread([]) == "–"
