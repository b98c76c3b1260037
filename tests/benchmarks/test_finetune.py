from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.finetune import SETS, STARTS, plot, table


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_curves_are_tabled_and_drawn(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    runs = []
    for name, setting in SETS.items():
        rows = [
            {
                "start": start,
                "seed": seed,
                "steps": [10, 20],
                "scores": {score: [1.0 + seed, 2.0] for score in setting.shown},
            }
            for start in STARTS
            for seed in seeds
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "curves.json").write_text(json.dumps({"set": name, "rows": rows}))
        runs.append(tmp_path / name)
    lines = table(json.loads((runs[0] / "curves.json").read_text())).splitlines()
    assert lines[0].startswith("| mIoU after | seed | 10 | 20 |")
    assert len(lines) == 2 + len(STARTS) * len(seeds)
    plot(runs, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 1000
    assert (tmp_path / "curves.png").stat().st_size < 100_000
