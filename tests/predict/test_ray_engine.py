"""The same rows from Ray's workers as from one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pointrend.cli import main
from tests.predict.models import corrupt, rows, shapes


def test_without_ray_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    command = ["predict", str(shapes(tmp_path / "in", 1)), "--model", "shapes-semantic", "--engine", "ray"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'pointrend[ray]'" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's
def test_two_workers_write_what_one_process_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="not installed: pip install 'pointrend[ray]'")
    folder = shapes(tmp_path / "in", 9)
    corrupt(folder / "bad.png")
    listed = tmp_path / "list"
    entries = [{"image": str(path), "id": number} for number, path in enumerate(sorted(folder.iterdir()))]
    listed.write_text("\n".join(map(json.dumps, entries)))
    summaries: list[dict[str, Any]] = []
    for name, options in (("plain", []), ("ray", ["--engine", "ray", "--workers", "2"])):
        command = [
            "predict",
            "--list",
            str(listed),
            "--model",
            "shapes-semantic",
            "--out",
            str(tmp_path / name),
        ]
        assert main([*command, *options]) == 1
        assert main([*command, *options]) == 1, "again, and the failure is still one"
        summaries.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert [(one["images"], one["skipped"], one["failures"]) for one in summaries] == [(0, 9, 1)] * 2
    assert rows(tmp_path / "ray") == rows(tmp_path / "plain")
