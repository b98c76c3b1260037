"""Labelling without a browser: what is asked, what the file has after each answer, and that it goes on from there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.app.label_file import boxes_to_label
from pointrend.app.label_session import LabelSession
from pointrend.cli import main
from pointrend.data.coco import CocoInstances
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks

LABELS = [1, 0, 1]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of 40 x 30 pixels."""
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((30, 40, 3), 90, dtype=np.uint8)).save(folder / name)
    return folder


def boxes() -> dict[str, Any]:
    """Objects 7 and 8 on the second image, 9 on the first; a crowd."""
    base = {"category_id": 3, "bbox": [2.5, 3, 20, 10], "segmentation": [[2, 3, 22, 3, 22, 13]]}
    records = [{"id": number, "image_id": place, **base} for number, place in ((7, 2), (8, 2), (9, 1))]
    names = ((1, "a.png"), (2, "b.png"))
    return {
        "info": {"year": 2026},
        "images": [{"id": n, "file_name": name, "height": 30, "width": 40} for n, name in names],
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": [*records, {**base, "id": 10, "image_id": 1, "iscrowd": 1}],
    }


def session(images: Path, **options: Any) -> LabelSession:
    given = {"boxes": boxes(), "points": 3, **options}
    return LabelSession(images, images.parent / "points.json", **given)


def test_objects_come_image_by_image_and_their_points_lie_in_their_box(images: Path) -> None:
    work, order = session(images), []
    while (task := work.task())["object"] is not None:
        assert (task["size"], task["category"], len(task["points"])) == ([40, 30], "disc", 3)
        assert all(2 <= x <= 22 and 3 <= y < 13 for x, y in task["points"])
        order.append((task["image"], task["object"]))
        work.answer(task["object"], LABELS, 7.25)
    assert order == [(0, 9), (1, 7), (1, 8)]
    assert (task["finished"], task["total"], task["image"], task["seconds"]) == (3, 3, None, 7.2)


def test_the_file_is_ready_to_train_on_after_each_object(images: Path) -> None:
    work = session(images)
    task = work.task()
    work.answer(task["object"], LABELS, 7.25)
    content = json.loads(work.out.read_text())
    assert content["info"] == {"year": 2026}
    (record,) = content["annotations"]
    assert record["point_coords"] == task["points"]
    assert (record["point_labels"], record["point_seconds"]) == (LABELS, 7.25)
    assert "segmentation" not in record
    data = CocoInstances(images, work.out, keep_empty=False)
    assert data[0].target.points.labels.tolist() == [LABELS]


def test_it_goes_on_where_it_stopped_with_the_same_points(images: Path) -> None:
    work = session(images)
    work.answer(9, LABELS, 1.0)
    due = work.task()
    again = session(images, boxes={})  # from the file alone
    assert again.task() == due
    more = boxes()
    more["annotations"].append({"id": 11, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5]})
    assert session(images, boxes=more).task()["total"] == 4
    with pytest.raises(ValueError, match="3 points of each object; say --points so"):
        session(images, points=10)
    with pytest.raises(ValueError, match="points are of seed 12345; say --seed so"):
        session(images, seed=1)


def test_an_answer_and_a_refusal_can_be_undone(images: Path) -> None:
    work = session(images)
    first = work.task()
    work.undo()  # nothing
    work.skip(9)
    assert work.task()["total"] == 2
    work.undo()
    assert work.task() == first
    work.answer(9, LABELS, 2.0)
    work.undo()
    assert work.task() == first | {"labels": LABELS[:-1], "took": 2.0}
    work.skip(9)
    assert json.loads(work.out.read_text())["annotations"] == []
    assert session(images).task()["object"] == 7


def test_what_was_finished_before_a_restart_can_be_undone_too(images: Path) -> None:
    session(images).answer(9, LABELS, 2.0)
    again = session(images)
    again.undo()
    assert again.task()["object"] == 9
    assert again.task()["labels"] == LABELS[:-1]


def test_an_object_with_another_number_of_points_is_asked_for_from_its_first_point_again(
    images: Path,
) -> None:
    work = session(images)
    work.answer(9, LABELS, 2.0)
    content = json.loads(work.out.read_text())
    content["annotations"][0] |= {"point_coords": [[3, 4]], "point_labels": [1]}  # by another program
    work.out.write_text(json.dumps(content))
    again = session(images)
    again.undo()
    assert (again.task()["object"], again.task()["labels"]) == (9, [])


def test_the_answers_of_an_unfinished_object_are_kept_for_a_restart(images: Path) -> None:
    work = session(images)
    assert (work.task()["labels"], work.task()["took"]) == ([], 0)
    work.keep(9, LABELS[:2], 3.5)
    assert not work.out.exists()  # an object without all of its labels is in no file that is trained on
    for again in (work, session(images)):
        assert (again.task()["object"], again.task()["labels"], again.task()["took"]) == (9, LABELS[:2], 3.5)
    for number, labels in ((7, [1]), (9, LABELS), (9, [2])):
        with pytest.raises(ValueError, match=r"already|of 0 or 1"):
            work.keep(number, labels, 1.0)
    work.answer(9, LABELS, 5.0)
    assert work.task()["labels"] == session(images).task()["labels"] == []
    assert [path.name for path in images.parent.iterdir() if "unfinished" in path.name] == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels": [0, 1, 0]}'])
def test_kept_answers_of_something_else_are_passed_over(images: Path, content: str) -> None:
    (images.parent / "points.json.unfinished").write_text(content)
    assert session(images).task()["labels"] == []


@pytest.mark.parametrize(
    "change",
    [{"took": took} for took in (math.nan, math.inf, 10**400, -1)] + [{"labels": [3]}, {"labels": LABELS}],
)
def test_kept_answers_are_of_the_same_points_and_well_formed(images: Path, change: dict[str, Any]) -> None:
    work = session(images)
    work.keep(9, LABELS[:2], 3.5)
    assert session(images).task()["labels"] == LABELS[:2]
    assert session(images, seed=1).task()["labels"] == []
    work.beside.write_text(json.dumps(work.unfinished | change))
    assert session(images).task()["labels"] == []


def test_answers_that_do_not_fit_are_refused_and_change_nothing(images: Path) -> None:
    work = session(images)
    for number, labels, words in (
        (7, LABELS, "already"),
        (9, [1, 0], "one for each point"),
        (9, [1, 0, 2], "of 0 or 1"),
    ):
        with pytest.raises(ValueError, match=words):
            work.answer(number, labels, 1.0)
    assert work.task()["finished"] == 0
    assert not work.out.exists()


def test_a_file_that_another_program_changed_is_not_overwritten(images: Path) -> None:
    first, second = session(images), session(images)
    first.answer(9, LABELS, 1.0)
    before = first.out.read_text()
    with pytest.raises(ValueError, match="changed by another program"):
        second.answer(9, LABELS, 1.0)
    assert first.out.read_text() == before
    assert second.task()["object"] == 9


def test_after_a_write_that_failed_the_object_is_asked_for_again(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "disk full")

    work = session(images)
    due = work.task()
    with monkeypatch.context() as broken:
        broken.setattr("pointrend.app.label_session.write_text", full)
        with pytest.raises(OSError, match="full"):
            work.answer(9, LABELS, 1.0)
    assert work.task() == due
    work.answer(9, LABELS, 1.0)
    assert work.task()["finished"] == 1


@pytest.mark.parametrize(
    "content", ["[]", "{}", json.dumps(boxes()), json.dumps(boxes() | {"labelling": {}})]
)
def test_a_file_of_something_else_is_left_alone(images: Path, content: str) -> None:
    out = images.parent / "points.json"
    out.write_text(content)
    with pytest.raises(ValueError, match="choose another --out"):
        session(images)
    assert out.read_text() == content


def test_boxes_are_drawn_image_by_image(images: Path) -> None:
    content = boxes_to_label(images, None, classes=("disc", "ring"))
    work = session(images, boxes=content, draw=True)
    task = work.task()
    assert (task["object"], task["image"], task["categories"]) == (None, 0, ["disc", "ring"])
    work.add_box(0, [-5, 2, 20, 10], "ring")
    task = work.task()
    assert (task["box"], task["category"]) == ([0, 2, 15, 10], "ring")  # cut to the image
    work.answer(task["object"], LABELS, 1.0)
    work.finish_image(0)
    assert session(images, boxes={}).task()["image"] == 1
    for place, box, name in (
        (1, [50, 0, 5, 5], "disc"),
        (1, [0, 0, 5, 5], "star"),
        (2, [0, 0, 5, 5], "disc"),
    ):
        with pytest.raises(ValueError, match=r"no pixel|No such"):
            work.add_box(place, box, name)
    work.finish_image(1)
    assert work.task()["image"] is None


def test_a_model_proposes_boxes(images: Path) -> None:
    def propose(paths: list[Path]) -> Any:
        masks = InstanceMasks.from_dense(torch.zeros(1, 30, 40))
        box, label, score = torch.tensor([[1.0, 2, 11, 22]]), torch.tensor([1]), torch.tensor([0.75])
        found = InstanceResult(box, label, score, masks, ("disc", "ring"), None)
        return ("disc", "ring"), [found for _ in paths]

    work = session(images, boxes=boxes_to_label(images, None, propose=propose))
    task = work.task()
    assert (task["box"], task["category"], task["total"]) == ([1, 2, 10, 20], "ring", 2)
    work.answer(task["object"], LABELS, 1.0)
    assert json.loads(work.out.read_text())["annotations"][0]["proposed_score"] == 0.75


def test_an_image_is_sent_as_jpeg_and_there_are_no_others(images: Path) -> None:
    content = session(images).image(0)
    assert content is not None
    assert content[:3] == b"\xff\xd8\xff"
    assert session(images).image(2) is None
    assert session(images).image(-1) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["missing"], "no such folder of images"),
        (["train"], "names of --classes"),
        (["train", "--annotations", "no.json"], "cannot be read"),
        (["train", "--classes", "a", "--points", "0"], "1 to 1000"),
        (["train", "--port", "70000"], "port"),
    ],
)
def test_the_command_says_what_is_wrong(
    images: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.chdir(images.parent)
    assert main(["label", *options]) == 2
    assert words in capsys.readouterr().err
