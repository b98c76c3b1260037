"""A folder belongs to one run, which goes on where it was and refuses another."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointrend.run_folder import RunFolder


def test_what_was_noted_is_there_when_the_run_goes_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.add("a", {"found": [1, 2]})
        run.add(7, None)
        assert "a" not in run  # it is read when all processes are asked
        run.refresh()
        assert list(run) == ["a", 7]
    with RunFolder(tmp_path) as run:
        assert run.get("a") == {"found": [1, 2]}
        assert run.get(7) is None
        assert 7 in run
        assert "7" not in run


def test_what_was_noted_later_counts(tmp_path: Path) -> None:
    for value in ("failed", "done"):
        with RunFolder(tmp_path) as run:
            run.add("a", value)
    with RunFolder(tmp_path) as run:
        assert run.get("a") == "done"


def test_another_run_is_refused_and_says_how_to_go_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a", {"model": "m", "points": [1, 2]}) as run:
        run.add("x", 1)
    RunFolder(tmp_path / "a", {"model": "m", "points": (1, 2)}).close()
    with pytest.raises(
        ValueError, match=r"another run \(model: 'm', now 'n'\); repeat .*start over with --fresh"
    ):
        RunFolder(tmp_path / "a", {"model": "n", "points": [1, 2]})
    with pytest.raises(ValueError, match=r"another run \(limit: None, now 3\)"):
        RunFolder(tmp_path / "a", {"model": "m", "points": [1, 2], "limit": 3})
    with RunFolder(tmp_path / "a", {"model": "n"}, fresh=True) as run:
        assert list(run) == []
    with RunFolder(tmp_path / "a", {"model": "n"}) as run:
        assert list(run) == []


def test_fresh_touches_no_folder_that_is_no_run_s(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    RunFolder(tmp_path, fresh=True).close()
    assert (tmp_path / "photo.jpg").exists()


def test_two_runs_cannot_use_a_folder_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(ValueError, match="another run is writing to this folder"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_a_line_without_an_end_does_not_count_and_a_broken_one_is_named(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.add("a", 1)
        run.add("b", 2)
    [file] = tmp_path.glob("*.jsonl")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with RunFolder(tmp_path) as run:
        assert list(run) == ["a"]
    for broken in (b"{\n", b"[]\n", b'{"key": null, "value": 1}\n', b"\xff\n"):
        file.write_bytes(content + broken)
        with pytest.raises(ValueError, match=r"jsonl, line 3: expected a"):
            RunFolder(tmp_path)


def test_settings_that_cannot_be_read_and_a_file_in_the_way_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"run\.json: expected the settings of a run"):
        RunFolder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be made into a folder"):
        RunFolder(tmp_path / "file" / "folder")
