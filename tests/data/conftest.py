from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, named by POINTREND_DATA; tests that need it are skipped where it is absent."""
    repository = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("POINTREND_DATA", repository.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data not here: set POINTREND_DATA")
    return folder
