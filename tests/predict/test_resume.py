"""Runs that were stopped go on where they were; several processes write what one would have written."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pointrend.predict import Output, Prediction, Predictor
from pointrend.predict.resume import fingerprint
from pointrend.results import InstanceResult
from tests.predict.models import Broken, Config, Finder, Threshold, corrupt, make_image


class Counting(Finder):
    """Remembers how many images it saw."""

    seen = 0

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        self.seen += len(images)
        return super().predict(images)


def make_images(folder: Path, count: int) -> Path:
    for number in range(count):
        make_image(folder / f"{number:02d}.png", bright=number % 3 > 0)
    return folder


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def journal(out: Path) -> Path:
    (path,) = (out / ".unfinished").glob("*.jsonl")
    return path


def unfinished(source: Path, out: Path) -> None:
    """A run of `Broken` that ended at the second image, made one of `Counting`'s."""
    with pytest.raises(KeyError):
        Predictor(Broken(), device="cpu").save([source], out)
    settings = out / ".unfinished" / "run.json"
    settings.write_text(settings.read_text().replace("Broken", "Counting"))


def test_a_broken_run_goes_on_where_it_was_and_writes_what_it_would_have_written(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 5)
    unfinished(source, tmp_path / "out")
    model = Counting()
    report = Predictor(model, device="cpu").save([source], tmp_path / "out")
    assert model.seen == 4
    assert len(report.predicted) == 5
    Predictor(Finder(), device="cpu").save([source], tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_finished_run_leaves_no_journal_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 3)
    for _ in range(2):
        model = Counting()
        Predictor(model, device="cpu").save([source], tmp_path / "out")
        assert model.seen == 3
        assert not (tmp_path / "out" / ".unfinished").exists()


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 3)
    unfinished(source, tmp_path / "out")
    path = journal(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-1])
    model = Counting()
    Predictor(model, device="cpu").save([source], tmp_path / "out")
    assert model.seen == 3
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]) == 3


def test_a_file_that_is_gone_is_made_again(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 3)
    unfinished(source, tmp_path / "out")
    (tmp_path / "out" / "overlays" / "00.png").unlink()
    model = Counting()
    Predictor(model, device="cpu").save([source], tmp_path / "out")
    assert model.seen == 3
    assert (tmp_path / "out" / "overlays" / "00.png").exists()


def test_an_unfinished_run_with_another_model_or_other_settings_is_refused_until_it_may_start_over(
    tmp_path: Path,
) -> None:
    source = make_images(tmp_path / "in", 3)
    unfinished(source, tmp_path / "out")
    other = Predictor(Counting(Config(class_names=("other", "names"))), device="cpu")
    with pytest.raises(ValueError, match=r"another run \(model: .*start over with --fresh"):
        other.save([source], tmp_path / "out")
    model = Counting()
    stricter = Predictor(model, device="cpu", min_score=0.9)
    with pytest.raises(ValueError, match=r"another run \(min_drawn_score: 0\.5, now 0\.9\)"):
        stricter.save([source], tmp_path / "out")
    assert model.seen == 0
    stricter.save([source], tmp_path / "out", fresh=True)
    assert model.seen == 3


def test_images_that_were_added_meanwhile_are_predicted_in_their_place(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 3)
    unfinished(source, tmp_path / "out")
    make_image(source / "000.png")
    Predictor(Counting(), device="cpu").save([source], tmp_path / "out")
    file = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(image["id"], Path(image["file_name"]).name) for image in file["images"]] == [
        (1, "00.png"),
        (2, "000.png"),
        (3, "01.png"),
        (4, "02.png"),
    ]
    assert [(one["id"], one["image_id"]) for one in file["annotations"]] == [(1, 2), (2, 3), (3, 4)]


def test_a_failure_is_tried_again(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 3)
    bad = corrupt(source / "000.png")  # after 00.png, at which the run does not break yet
    unfinished(source, tmp_path / "out")
    assert "failure" in journal(tmp_path / "out").read_text()
    make_image(bad)
    model = Counting()
    report = Predictor(model, device="cpu").save([source], tmp_path / "out")
    assert not report.failures
    assert model.seen == 3


def test_two_runs_do_not_write_to_one_folder_at_a_time(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 2)
    refusals = []

    class Nested(Threshold):
        def predict(self, images):
            with pytest.raises(ValueError, match="another run is writing to this folder") as refusal:
                Predictor(Threshold(), device="cpu").save([source], tmp_path / "out")
            refusals.append(refusal)
            return super().predict(images)

    assert len(Predictor(Nested(), device="cpu").save([source], tmp_path / "out").predicted) == 2
    assert len(refusals) == 2


def test_few_images_are_alive_at_a_time_however_many_there_are(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 40)
    alive = []

    class Watched(Threshold):
        def predict(self, images):
            if len(self.batches) % 10 == 9:  # going through all objects takes a third of a second
                alive.append(sum(type(one) is Prediction for one in gc.get_objects()))
            return super().predict(images)

    Predictor(Watched(), device="cpu").save([source], tmp_path / "out", Output(overlays=False))
    assert len(alive) == 4
    assert max(alive) <= 8


SCRIPT = """
import sys, time
from tests.predict.models import Finder
from pointrend.predict import Output, Predictor

class Slow(Finder):
    def predict(self, images):
        time.sleep(float(sys.argv[3]))
        return super().predict(images)

report = Predictor(Slow(), device="cpu").save([sys.argv[1]], sys.argv[2], Output(overlays=False))
print(len(report.predicted))
"""
ROOT = Path(__file__).parents[2]


def start(source: Path, out: Path, seconds: float, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(source), str(out), str(seconds)]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_run_goes_on_and_writes_what_it_would_have_written(tmp_path: Path) -> None:
    source, out = make_images(tmp_path / "in", 12), tmp_path / "out"
    process = start(source, out, 0.5)
    deadline = time.monotonic() + 120
    while not [line for path in out.glob(".unfinished/*.jsonl") for line in path.read_text().splitlines()]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lines = journal(out).read_text().count("\n")
    assert 1 <= lines < 12
    assert not (out / "predictions.json").exists()
    settings = out / ".unfinished" / "run.json"
    settings.write_text(settings.read_text().replace("Slow", "Counting"))
    model = Counting()
    Predictor(model, device="cpu").save([source], out, Output(overlays=False))
    assert model.seen == 12 - lines
    Predictor(Finder(), device="cpu").save([source], tmp_path / "whole", Output(overlays=False))
    assert content(out) == content(tmp_path / "whole")


def test_models_are_told_apart_behind_a_stand_in_and_stand_ins_by_their_options() -> None:
    class Behind:
        def __init__(self, model: object, *options: int) -> None:
            self.model, self.options = model, options

    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    seen = [first, second, Behind(first), Behind(second), Behind(first, 3), Behind(first, 4)]
    assert len({fingerprint(model) for model in seen}) == len(seen)
    assert fingerprint(Behind(first, 3)) == fingerprint(Behind(first, 3))


def test_two_processes_write_what_one_would_have_written(tmp_path: Path) -> None:
    source = make_images(tmp_path / "in", 7)
    corrupt(source / "99.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [start(source, tmp_path / "out", 0.0, RANK=str(rank), **address) for rank in range(2)]
    assert [process.communicate(timeout=200)[0].strip() for process in both] == ["7", "7"]
    Predictor(Finder(), device="cpu").save([source], tmp_path / "whole", Output(overlays=False))
    assert content(tmp_path / "out") == content(tmp_path / "whole")
