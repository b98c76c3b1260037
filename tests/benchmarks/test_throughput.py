from __future__ import annotations

import sys

import pytest

from benchmarks import throughput

STREET = f"pointrend_r50_{throughput.STREET}"


def test_every_way_and_a_training_step_get_a_row(monkeypatch, capsys) -> None:
    options = ["--models", STREET, "--device", "cpu", "--scale", "0.1", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *options])
    throughput.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {STREET}")]
    assert [row.split(" | ")[2] for row in rows[:3]] == ["default", "optimized", "bfloat16"]
    assert all(row.endswith("| 8.48 |") and "96x192" in row for row in rows[:3])
    assert "2 of 64x96" in rows[3]
    assert rows[3].endswith("| 3.1 |")


@pytest.mark.parametrize("name", throughput.TRAINED)
def test_what_is_trained_is_also_predicted(name: str) -> None:
    assert name in throughput.PREDICTED
