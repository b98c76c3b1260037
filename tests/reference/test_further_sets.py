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


def run(folder: Path, *files: str) -> tuple[int, str]:
    """The exit status and output of reference tests on the sets in a folder."""
    tests = [f"tests/reference/test_{name}.py" for name in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"POINTREND_REFERENCE": str(folder)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout


def test_sets_of_other_seeds_classes_points_and_sizes_are_checked(reference: Path, tmp_path: Path) -> None:
    write_detectron2(tmp_path / "seed 5", reference / "detectron2" / "make_checkpoint.py", 5)
    write_mmsegmentation(tmp_path / "flat", reference / "mmsegmentation" / "make_checkpoint.py", 9)
    for folder, project in (("seed 5", "detectron2"), ("flat", "mmsegmentation")):
        shutil.copy(reference / project / "make_checkpoint.py", tmp_path / folder)
    code, output = run(tmp_path, "detectron2_instance", "detectron2_semantic", "mmsegmentation")
    assert code == 0, output
    goldens = tmp_path / "seed 5" / "goldens"
    arrays = dict(np.load(goldens / "implicit.npz"))
    arrays["A/step0_logits"][0, 0, 0] += 0.01
    np.savez(goldens / "implicit.npz", **arrays)
    listing = json.loads((goldens / "meta.json").read_text())
    listing["configs"]["fewer_steps"]["overrides"]["MODEL.RPN.BOUNDARY_THRESH"] = 3
    (goldens / "meta.json").write_text(json.dumps(listing))
    code, output = run(tmp_path, "detectron2_instance")
    assert code == 1
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    assert sum("implicit@" in line for line in failed) == 1
    assert all("implicit@" in line or "fewer_steps@" in line for line in failed)
    assert "settings this test does not know: {'MODEL.RPN.BOUNDARY_THRESH'}" in output
