"""Further sets of stored outputs are checked without touching a test, whatever they override; and can fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.reference.made_up import write_detectron2, write_mmsegmentation

ROOT = Path(__file__).parents[2]
FILES = [
    f"tests/reference/test_{name}.py"
    for name in ("detectron2_instance", "detectron2_semantic", "mmsegmentation")
]


def run(folder: Path) -> tuple[int, str]:
    """The exit status and output of the reference tests on the sets in a folder."""
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        cwd=ROOT,
        env=os.environ | {"POINTREND_REFERENCE": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.returncode, answer.stdout


def spoil(goldens: Path) -> None:
    """Of two configurations: one has another number stored, and one a setting that no test knows."""
    arrays = dict(np.load(goldens / "implicit.npz"))
    arrays["A/step0_logits"][0, 0, 0] += 0.01
    np.savez(goldens / "implicit.npz", **arrays)
    listing = json.loads((goldens / "meta.json").read_text())
    listing["configs"] = {name: listing["configs"][name] for name in ("implicit", "fewer_steps")}
    listing["configs"]["fewer_steps"]["overrides"]["MODEL.RPN.BOUNDARY_THRESH"] = 3
    (goldens / "meta.json").write_text(json.dumps(listing))


def test_sets_of_other_seeds_classes_points_and_sizes_are_checked(reference: Path, tmp_path: Path) -> None:
    """In one run: what agrees passes, and of what was spoiled the tests of that configuration fail."""
    write_detectron2(tmp_path / "seed 5", reference / "detectron2" / "make_checkpoint.py", 5)
    write_mmsegmentation(tmp_path / "flat", reference / "mmsegmentation" / "make_checkpoint.py", 9)
    for folder, project in (("seed 5", "detectron2"), ("flat", "mmsegmentation")):
        shutil.copy(reference / project / "make_checkpoint.py", tmp_path / folder)
    shutil.copytree(tmp_path / "seed 5", tmp_path / "spoiled")
    spoil(tmp_path / "spoiled" / "goldens")
    code, output = run(tmp_path)
    assert code == 1, output
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    assert sum("implicit@spoiled" in line for line in failed) == 1, output
    assert all("implicit@spoiled" in line or "fewer_steps@spoiled" in line for line in failed), output
    assert "settings this test does not know: {'MODEL.RPN.BOUNDARY_THRESH'}" in output
