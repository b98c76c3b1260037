"""The evaluation benchmark runs, and both tools agree."""

from __future__ import annotations

import pytest

from benchmarks.evaluation import run


def test_both_tools_give_the_same_numbers() -> None:
    pytest.importorskip("pycocotools")
    found = run(images=3, detections=12, threads=1)
    assert found["pointrend"]["numbers"]["AP50"] > 0
    assert found["pycocotools"]["peak_mb"][1] > 0  # the median
