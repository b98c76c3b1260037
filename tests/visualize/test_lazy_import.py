"""Overlays are drawn without matplotlib, which takes a second to import."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, torch
from pointrend.results import SemanticResult
from pointrend.visualize import draw, draw_chosen, draw_uncertainty
image = torch.zeros(3, 4, 5, dtype=torch.uint8)
draw(image, SemanticResult(torch.zeros(4, 5, dtype=torch.uint8), ("a", "b")), legend=True)
draw_uncertainty(image, torch.rand(4, 5))
draw_chosen(image, [])
print("matplotlib" in sys.modules)
"""


def test_drawing_on_images_imports_no_matplotlib() -> None:
    answer = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
