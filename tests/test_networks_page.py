"""docs/networks.md runs as written; what needs a library that is not here is left out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
LIBRARIES = ("transformers", "segmentation_models_pytorch")


@pytest.mark.parametrize("library", ["", *LIBRARIES])
def test_the_page_runs_as_written(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    ran = 0
    for number, block in enumerate(BLOCKS):
        of = next((name for name in LIBRARIES if name in block), "")
        if number == 0 or of == library:  # the first makes the image that all predict
            exec(compile(block, "docs/networks.md", "exec"), names)
            ran += 1
    assert ran >= 2
    if not library:
        assert names["again"].config.class_names == ("road", "other")
        assert names["refined"].shape == (5, 1, 224, 224)
        assert Path("own.safetensors").exists()
