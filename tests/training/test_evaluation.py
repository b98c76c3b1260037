"""Two processes share the evaluations of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.evaluations import APART, RECIPE, SCENARIOS, Pixels

PROGRAM = Path(__file__).parent / "evaluations.py"


@pytest.fixture(scope="module")
def two(in_two_processes: Callable[..., Path]) -> Path:
    """Every scenario, run in two processes (gloo)."""
    return in_two_processes(PROGRAM, *SCENARIOS, APART)


def evaluations(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "mIoU" in entry]


def ended(two: Path, name: str) -> list[str]:
    return [(two / f"{name}-{rank}" / "ended.txt").read_text() for rank in range(2)]


@pytest.mark.parametrize("name", ["seven", "averaged", "one"])
def test_both_processes_get_the_scores_of_one_that_evaluates_the_best_model_alone(
    two: Path, name: str
) -> None:
    first, second = ended(two, name)
    assert first == second
    found = evaluations(two / f"{name}-0")
    best = max(found, key=lambda entry: entry["mIoU"])
    model = Pixels()
    model.load_state_dict(load_file(two / f"{name}-0" / "best.safetensors"))
    alone = SCENARIOS[name][0](model.eval())
    assert {"step": best["step"], **alone} == best
    assert 20 < best["mIoU"] < 100
    assert len({entry["mIoU"] for entry in found}) > 1


@pytest.mark.parametrize("name", ["seven", "averaged", "one"])
def test_they_end_together_when_the_patience_of_the_first_is_at_its_end(two: Path, name: str) -> None:
    found = [entry["mIoU"] for entry in evaluations(two / f"{name}-0")]
    assert len(found) < RECIPE.steps
    assert max(found) not in found[-RECIPE.patience :]
    assert ended(two, name)[1].startswith(f"{len(found)} evaluations\n")
    assert not (two / f"{name}-1" / "log.jsonl").exists()
    assert not (two / f"{name}-1" / "best.safetensors").exists()


def test_sigterm_in_one_process_ends_the_evaluation_of_both_with_a_checkpoint(two: Path) -> None:
    assert ended(two, "sigterm") == ["2 evaluations\nTerminated: 143"] * 2
    assert [path.name for path in (two / "sigterm-0").glob("state-*")] == ["state-0000002.pt"]
    assert len(evaluations(two / "sigterm-0")) == 1


def test_an_image_that_one_process_cannot_read_stops_both_and_is_named_in_both(two: Path) -> None:
    first, second = ended(two, "broken")
    assert second == "2 evaluations\nValueError: stripes1.png: not a readable image"
    assert first == (
        "2 evaluations\nRemoteError: process 1 gave up: ValueError: stripes1.png: not a readable image"
    )


def test_processes_that_find_different_checkpoints_are_refused(two: Path) -> None:
    for said in ended(two, APART):
        assert "ValueError: resume: expected the same checkpoint" in said
        assert "after updates 2, 0;" in said
        assert "a folder that all machines share" in said


def test_alone_a_training_is_evaluated_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training import evaluations as program

    monkeypatch.setitem(SCENARIOS, "alone", (program.Score(1), 0.0))
    program.run("alone", tmp_path)
    calls, said = (tmp_path / "ended.txt").read_text().split("\n")
    assert calls == f"{len(evaluations(tmp_path))} evaluations"
    assert "mIoU" in said
