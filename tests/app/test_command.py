"""`pointrend app` before it answers: what is missing or wrong is said in one line."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pointrend.cli import main
from pointrend.cli.app import free_port


def test_without_a_server_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if it were not installed
    assert main(["app"]) == 2
    assert "pip install 'pointrend[app]'" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--queue", "0"], ["--memory", "1"], ["--port", "70000"]])
def test_impossible_numbers_are_named(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", *options]) == 2
    assert options[1] in capsys.readouterr().err


def test_a_missing_checkpoint_ends_it_before_anybody_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointrend.cli.app.require_server", lambda: None)
    missing = str(tmp_path / "missing.safetensors")
    assert main(["app", missing, "--device", "cpu"]) == 2
    assert missing in capsys.readouterr().err


def test_a_device_that_is_not_there_ends_it_before_anybody_comes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointrend.cli.app.require_server", lambda: None)
    assert main(["app", "shapes-semantic", "--device", "nonsense"]) == 2
    assert "device: nonsense cannot be used here" in capsys.readouterr().err


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} .*choose another with --port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0


def test_an_address_of_another_computer_is_said() -> None:
    with pytest.raises(ValueError, match="cannot answer at"):
        free_port("192.0.2.1", 0)
