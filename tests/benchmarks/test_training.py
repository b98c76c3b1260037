from __future__ import annotations

import argparse

import pytest

from benchmarks.training import PARTS, VARIANTS, measure, table

QUICK = argparse.Namespace(cpu=True, scale=0.08, batch=2, backbone="resnet18", bfloat16=False, steps=1)


@pytest.mark.parametrize(("task", "variant"), [("instance", "pointrend"), ("semantic", "coarse")])
def test_a_step_is_split_into_its_parts(task: str, variant: str) -> None:
    row = measure(QUICK, task, variant)
    assert set(row["seconds"]) == set(PARTS)
    assert all(value > 0 for value in row["seconds"].values())
    assert row["peak_gib"] > 0
    assert (row["boxes_with_masks"] > 0) == (task == "instance")


def test_the_table_tells_what_a_head_adds_to_the_coarse_one() -> None:
    rows = [
        {
            "task": task,
            "variant": variant,
            "size": [8, 8],
            "seconds": dict.fromkeys(PARTS, 1.0 if variant == "coarse" else 2.0),
            "pictures_per_second": 1.0,
            "peak_gib": 1.0,
        }
        for task, variants in VARIANTS.items()
        for variant in variants
    ]
    shown = table(rows).splitlines()
    assert len(shown) == 2 + len(rows)
    assert "50.0 %" in shown[2]
    assert " 0.0 %" in shown[3]
