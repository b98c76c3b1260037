"""Predictions on disk: what is written is read back, and an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pointrend.evaluation.evaluate_instances import evaluate_detections, evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.ground_truth import SampleList, ground_truth_of
from pointrend.evaluation.prediction_store import SavedDetections, SavedLabels, file_name_of
from pointrend.evaluation.report import Scores
from pointrend.results import InstanceResult, SemanticResult
from pointrend.run_folder import RunFolder
from pointrend.structures import InstanceMasks, InstanceTarget, Sample, SemanticTarget

NAMES = ("left", "right")


class Interrupted(Exception):
    """What stops a run in these tests."""


class Finder:
    """Finds the left and the right half's rectangle, a little off; stops at its n-th image if told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.config = SimpleNamespace(class_names=NAMES)
        self.calls, self.stop_at = 0, stop_at

    def predict(self, images: Sequence[Tensor]) -> list[Any]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise Interrupted
        return [self.one(image) for image in images]

    def one(self, image: Tensor) -> Any:
        if not image.any():
            return InstanceResult(
                torch.zeros(0, 4),
                torch.zeros(0, dtype=torch.int64),
                torch.zeros(0),
                InstanceMasks.from_dense(torch.zeros(0, *image.shape[1:])),
                NAMES,
            )
        masks = InstanceMasks.from_dense(torch.stack([torch.roll(image[0] == v, 1, 1) for v in (1, 2)]))
        boxes = torch.tensor([[3.1, 5, 19.7, 25], [31 / 3, 8, 58, 29.99999]])
        return InstanceResult(boxes, torch.tensor([0, 1]), torch.tensor([0.7, 1 / 3]), masks, NAMES)


class Painter(Finder):
    """Labels pixels by the first channel, wrongly in the first column."""

    def one(self, image: Tensor) -> Any:
        labels = (image[0] > 0).to(torch.uint8)
        labels[:, 0] = 1
        return SemanticResult(labels, NAMES)


def exactly(scores: Scores) -> Any:
    """The numbers, of which NaN equals NaN."""
    return pytest.approx(scores.numbers, abs=0, nan_ok=True)


def make_image(number: int) -> Tensor:
    image = torch.zeros(3, 40, 60 + number, dtype=torch.uint8)
    if number:  # the first image is empty
        image[0, 5:25, 4:20], image[0, 8:30, 30:58] = 1, 2
    return image


def objects(count: int = 4) -> list[Sample]:
    samples = []
    for number in range(count):
        image = make_image(number)
        found = [value for value in (1, 2) if (image[0] == value).any()]
        dense = torch.stack([image[0] == v for v in found]) if found else torch.zeros(0, *image.shape[1:])
        boxes = torch.tensor([[4.0, 5, 20, 25], [30, 8, 58, 30]])[: len(found)]
        labels = torch.tensor([v - 1 for v in found], dtype=torch.int64)
        crowd = torch.zeros(len(found), dtype=torch.bool)
        target = InstanceTarget(boxes, labels, InstanceMasks.from_dense(dense), crowd)
        samples.append(Sample(image, target, 10 + number))
    return samples


def maps(count: int = 4) -> list[Sample]:
    images = [make_image(number) for number in range(count)]
    return [
        Sample(image, SemanticTarget((image[0] > 0).to(torch.uint8)), f"street/{number}")
        for number, image in enumerate(images)
    ]


def kept(folder: Path, model: Finder | None, data: list[Sample] | None = None) -> Scores:
    """The scores of a model whose detections are kept in the folder."""
    with RunFolder(folder) as run:
        stores = {"model": SavedDetections(run)}
        return evaluate_instances(model, objects() if data is None else data, stores=stores)[0]


def test_an_interrupted_instance_run_goes_on_and_gives_the_same_scores(tmp_path: Path) -> None:
    whole = evaluate_instances(Finder(), objects())[0]
    with pytest.raises(Interrupted):
        kept(tmp_path, Finder(stop_at=3))
    assert not (tmp_path / "predictions.json").exists()
    second = Finder()
    scores = kept(tmp_path, second)
    assert second.calls == 2
    assert scores.numbers == exactly(whole)
    assert {file.name for file in tmp_path.iterdir()} <= {".lock", "predictions.json", "run.json"}


KILLED = """
import os, signal
from pathlib import Path
from tests.evaluation import test_prediction_store as ours
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.prediction_store import SavedDetections, SavedLabels
from pointrend.run_folder import RunFolder

class Kill:
    def one(self, image):
        if image.shape[2] == 62:  # the third image
            os.kill(os.getpid(), signal.SIGKILL)
        return super().one(image)

class Finder(Kill, ours.Finder): ...
class Painter(Kill, ours.Painter): ...

if os.fork() == 0:
    evaluate_instances(Finder(), ours.objects(), stores={"model": SavedDetections(RunFolder("objects"))})
elif os.fork() == 0:
    evaluate_semantic(Painter(), ours.maps(), stores={"model": SavedLabels("maps")})
else:
    print([os.wait()[1] for _ in range(2)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as Unix does")
def test_a_killed_run_goes_on_and_gives_the_same_scores(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout == "[9, 9]\n"  # both were killed
    finder, painter = Finder(), Painter()
    scores = kept(tmp_path / "objects", finder)
    assert scores.numbers == exactly(evaluate_instances(Finder(), objects())[0])
    scores = evaluate_semantic(painter, maps(), stores={"model": SavedLabels(tmp_path / "maps")})[0]
    assert scores.numbers == exactly(evaluate_semantic(Painter(), maps())[0])
    assert finder.calls == painter.calls == 2  # of four images


def test_a_complete_run_is_scored_again_without_a_model(tmp_path: Path) -> None:
    whole = kept(tmp_path, Finder())

    again = kept(tmp_path, None, SampleList(objects(), NAMES))
    assert again.numbers == exactly(whole)
    file = tmp_path / "predictions.json"
    truth = ground_truth_of(objects(), NAMES)
    assert evaluate_detections(file, objects(), ground_truth=truth).numbers == exactly(whole)
    assert evaluate_detections(file, objects(), class_names=NAMES).numbers == exactly(whole)
    assert len(json.loads(file.read_text())) == 6  # three images with two objects each


def test_a_line_torn_by_the_interruption_is_dropped_and_another_broken_one_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        kept(tmp_path, Finder(stop_at=4))
    [file] = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-40])
    model = Finder()
    scores = kept(tmp_path, model)
    assert model.calls == 2
    assert scores.numbers == exactly(evaluate_instances(Finder(), objects())[0])
    (tmp_path / "predictions.json").unlink()
    file.write_text('{"key": 10, "value": []}\n{"key": 11, "val\n')
    with pytest.raises(ValueError, match=r"0-of-1\.jsonl, line 2: expected a key and a value"):
        kept(tmp_path, model)


def test_saved_detections_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    kept(tmp_path, Finder())
    file = tmp_path / "predictions.json"
    records = json.loads(file.read_text())
    for change, message in (
        ({"score": float("nan")}, "score: expected a finite number"),
        ({"image_id": 99}, "image_id: 99 is not in"),
        ({"category_id": 5}, "category_id: 5 is not in"),
        ({"segmentation": {"size": [40, 61], "counts": "!!"}}, "counts: run lengths"),
        ({"segmentation": {"size": [3, 3], "counts": "9"}}, "size: expected the image's"),
        ({"id": "a", "bbox": [0, 0, -1, 1]}, "bbox: expected a width and height"),
    ):
        file.write_text(json.dumps([{**records[0], **change}, *records[1:]]))
        with pytest.raises(ValueError, match=rf"predictions\.json: record 0.*{message}"):
            evaluate_detections(file, objects(), class_names=NAMES)
    file.write_text("{}")
    with pytest.raises(ValueError, match="expected a list of detections"):
        SavedDetections(RunFolder(tmp_path))


def test_an_interrupted_semantic_run_goes_on_and_gives_the_same_scores(tmp_path: Path) -> None:
    whole = evaluate_semantic(Painter(), maps())[0]
    with pytest.raises(Interrupted):
        evaluate_semantic(Painter(stop_at=3), maps(), stores={"model": SavedLabels(tmp_path)})
    model = Painter()
    assert evaluate_semantic(model, maps(), stores={"model": SavedLabels(tmp_path)})[0].numbers == exactly(
        whole
    )
    assert model.calls == 2
    again = evaluate_semantic(None, maps(), class_names=NAMES, stores={"model": SavedLabels(tmp_path)})[0]
    assert again.numbers == exactly(whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"street%2F{n}.png" for n in range(4)]


def test_label_maps_can_have_other_numbers_and_colours_in_their_files(tmp_path: Path) -> None:
    store = SavedLabels(tmp_path, file_ids=(7, 26), palette=((255, 0, 0), (0, 255, 0)))
    whole = evaluate_semantic(Painter(), maps(), stores={"model": store})[0]
    with Image.open(tmp_path / "street%2F1.png") as image:
        assert np.unique(np.array(image)).tolist() == [7, 26]
    again = SavedLabels(tmp_path, file_ids=(7, 26))
    assert evaluate_semantic(None, maps(), class_names=NAMES, stores={"model": again})[0].numbers == exactly(
        whole
    )
    with pytest.raises(ValueError, match=r"street%2F0\.png: expected class numbers \[7, 8\], got 26"):
        evaluate_semantic(
            None, maps(), class_names=NAMES, stores={"model": SavedLabels(tmp_path, file_ids=(7, 8))}
        )


def test_a_missing_a_foreign_and_a_misfitting_label_map_are_refused(tmp_path: Path) -> None:
    ids = [sample.image_id for sample in maps()]
    evaluate_semantic(Painter(), maps(3), stores={"model": SavedLabels(tmp_path)})
    with pytest.raises(ValueError, match="image street/3: there is no saved prediction"):
        evaluate_semantic(None, maps(), class_names=NAMES, stores={"model": SavedLabels(tmp_path, known=ids)})
    with pytest.raises(ValueError, match=r"street%2F2\.png: belongs to no image"):
        SavedLabels(tmp_path, known=ids[:2])
    Image.new("L", (3, 3)).save(tmp_path / "street%2F0.png")
    with pytest.raises(ValueError, match=r"street%2F0\.png: expected the image's height and width"):
        evaluate_semantic(None, maps(), class_names=NAMES, stores={"model": SavedLabels(tmp_path)})
    (tmp_path / "street%2F0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"street%2F0\.png"):
        evaluate_semantic(None, maps(), class_names=NAMES, stores={"model": SavedLabels(tmp_path)})


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two images of the data set are called 'street/0'"):
        evaluate_semantic(Painter(), [maps()[0], maps()[0]], stores={"model": SavedLabels(tmp_path)})


def test_file_names_never_leave_the_folder() -> None:
    assert "/" not in file_name_of("../../etc/passwd")
    assert file_name_of(12) == "12"
