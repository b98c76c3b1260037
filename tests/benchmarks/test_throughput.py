from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # as if the script were run
    return importlib.import_module("throughput")


def test_every_way_and_a_training_step_get_a_row(throughput, monkeypatch, capsys) -> None:
    name = f"pointrend_r50_{throughput.STREET}"
    options = ["--models", name, "--device", "cpu", "--scale", "0.1", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *options])
    throughput.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {name}")]
    assert [row.split(" | ")[2] for row in rows[:3]] == ["default", "optimized", "bfloat16"]
    assert all(row.endswith("| 8.48 |") and "96x192" in row for row in rows[:3])
    assert "2 of 64x96" in rows[3]
    assert rows[3].endswith("| 3.1 |")


def test_what_is_trained_is_also_predicted(throughput) -> None:
    assert set(throughput.TRAINED) <= set(throughput.PREDICTED)
