"""Jobs: a row for each image, once, whatever happens in between; shards that know nothing of each other."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointrend.cli import main
from pointrend.distributed import Shard
from pointrend.io import read_json
from pointrend.masks.rle import decode_window
from pointrend.predict import Predictor
from pointrend.predict.job import JobOptions, Summary, run_job
from pointrend.predict.tasks import Task, find_tasks
from tests.predict.models import Counting, Threshold, corrupt, make_image, rows, shapes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(7):
        make_image(tmp_path / "in" / f"{number}.png", bright=number % 3 > 0, size=(24, 16 + 4 * (number % 2)))
    return tmp_path / "in"


def run(folder: Path, out: Path | str, model: Any = None, batch_size: int = 1, **options: Any) -> Summary:
    predictor = Predictor(model or Counting(), device="cpu", batch_size=batch_size)
    return run_job(predictor, find_tasks([folder]), out, JobOptions(**options))


def test_each_image_has_a_row_with_its_masks(folder: Path, tmp_path: Path) -> None:
    summary = run(folder, tmp_path / "out", part_size=3)
    assert (summary.images, summary.failures, summary.skipped, summary.parts) == (7, 0, 0, 3)
    assert not summary.stopped
    found = rows(tmp_path / "out")
    assert [Path(row["image"]).stem for row in found] == [str(number) for number in range(7)]
    assert found[0]["masks"] == []
    assert {
        name: found[1][name] for name in ("height", "width", "boxes", "labels", "class_names", "scores")
    } == {
        "height": 20,
        "width": 24,
        "boxes": [[4, 2, 12, 10]],
        "labels": [1],
        "class_names": ["bright"],
        "scores": [0.75],
    }
    mask, offset = decode_window(found[1]["masks"][0], (20, 24))
    assert (mask.shape, offset, int(mask.sum())) == ((8, 8), (4, 2), 64)


def test_a_label_map_is_a_row_of_its_classes(tmp_path: Path) -> None:
    image = make_image(tmp_path / "in" / "a.png")
    run(image, tmp_path / "out", Threshold())
    (row,) = rows(tmp_path / "out")
    assert row["class_names"] == ["dark", "bright"]
    areas = [int(decode_window(counts, (16, 24))[0].sum()) for counts in row["masks"]]
    assert areas == [16 * 24 - 64, 64]


def test_an_image_of_one_pixel_and_none_at_all(tmp_path: Path) -> None:
    predictor = Predictor(Counting(), device="cpu")
    assert run_job(predictor, [], tmp_path / "none").parts == 0
    make_image(tmp_path / "in" / "a.png", size=(1, 1), bright=False)
    assert run(tmp_path / "in", tmp_path / "out").images == 1


def test_formats_say_the_same(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for kind in ("jsonl", "parquet"):
        run(folder, tmp_path / kind, part_size=2, format=kind)
    assert rows(tmp_path / "parquet") == rows(tmp_path / "jsonl")


def test_coco_parts_are_coco_files(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out", part_size=3, format="coco")
    files = [read_json(path) for path in (tmp_path / "out").glob("part-*.json")]
    assert len(files) == 3
    images = [image for file in files for image in file["images"]]
    assert len({image["id"] for image in images}) == 7
    names = {image["id"]: Path(image["file_name"]).name for image in images}
    records = [record for file in files for record in file["annotations"]]
    assert sorted(names[record["image_id"]] for record in records) == ["1.png", "2.png", "4.png", "5.png"]
    assert {(record["category_id"], record["area"], *record["bbox"]) for record in records} == {
        (2, 64, 4, 2, 8, 8)
    }
    assert files[0]["categories"] == [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "coco"])
def test_again_only_what_is_new_or_changed(folder: Path, tmp_path: Path, kind: Any) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    run(folder, out, part_size=3, format=kind)
    again = Counting()
    assert run(folder, out, again, format=kind).skipped == 7
    assert again.batches == []
    make_image(folder / "1.png", size=(40, 40), bright=False)
    make_image(folder / "new.png")
    assert (run(folder, out, again, format=kind).images, len(again.batches)) == (2, 2)
    for path in folder.glob("[012].png"):  # the whole content of some part may be outdated
        make_image(path, size=(50, 50))
    run(folder, out, part_size=3, format=kind)
    if kind == "coco":
        images = [one for path in out.glob("part-*") for one in read_json(path)["images"]]
        assert sorted(Path(one["file_name"]).stem for one in images) == [
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "new",
        ]
    else:
        found = {Path(row["image"]).stem: row["height"] for row in rows(out)}
        assert found == {"0": 50, "1": 50, "2": 50, "3": 20, "4": 16, "5": 20, "6": 16, "new": 16}
        assert len(rows(out)) == 8
    assert run(folder, out, Counting(), format=kind, fresh=True).images == 8


def test_shards_together_are_one_run(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "one")
    counts = [run(folder, tmp_path / "four", shard=Shard(index, 4)).images for index in range(4)]
    assert sum(counts) == 7
    assert rows(tmp_path / "four") == rows(tmp_path / "one")
    assert run(folder, tmp_path / "four", Counting(), shard=Shard(1, 2)).images == 0, "done by other shards"


def test_one_model_and_one_way_in_a_folder(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"another run \(model.*--fresh"):
        run(folder, tmp_path / "out", Threshold())
    with pytest.raises(ValueError, match=r"another run \(format"):
        run(folder, tmp_path / "out", format="coco")


def test_failures_have_a_file_and_are_tried_again(folder: Path, tmp_path: Path) -> None:
    corrupt(folder / "bad.png")
    summary = run(folder, tmp_path / "out")
    assert (summary.images, summary.failures) == (7, 1)
    failures = tmp_path / "out" / "failures-00000-of-00001.jsonl"
    (failure,) = map(json.loads, failures.read_text().splitlines())
    assert failure["image"] == str(folder / "bad.png")
    assert "not a readable image" in failure["error"]
    make_image(folder / "bad.png")
    assert run(folder, tmp_path / "out").images == 1
    assert not failures.exists()
    assert read_json(tmp_path / "out" / "summary-00000-of-00001.json")["skipped"] == 7


def test_images_of_one_size_share_batches_though_they_are_no_neighbours(folder: Path, tmp_path: Path) -> None:
    model = Counting()
    run(folder, tmp_path / "out", model, batch_size=3)
    assert sorted(model.batches) == [1, 3, 3]
    assert len(rows(tmp_path / "out")) == 7


def test_what_waits_for_its_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointrend.predict.job.WINDOW_BYTES", 1)
    for number in range(3):
        make_image(tmp_path / "in" / f"{number}.png")
    model = Counting()
    run(tmp_path / "in", tmp_path / "out", model, batch_size=3)
    assert model.batches == [1, 1, 1]


def test_an_image_that_is_listed_twice_has_one_row(folder: Path, tmp_path: Path) -> None:
    image = str(folder / "1.png")
    tasks = [Task(image), Task(image), Task(image, id="other")]
    run_job(Predictor(Counting(), device="cpu"), tasks, tmp_path / "out")
    assert [row["id"] for row in rows(tmp_path / "out")] == [None, "other"]


def test_a_signal_ends_the_run_with_its_part_written(folder: Path, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    predictor = Predictor(Counting(), device="cpu")
    summary = run_job(predictor, find_tasks([folder]), tmp_path / "out", stop=lambda: next(asked))
    assert summary.stopped
    assert len(rows(tmp_path / "out")) == summary.images == 3
    assert run(folder, tmp_path / "out").images == 4


def test_a_part_that_was_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    (part,) = (tmp_path / "out").glob("part-*")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{part.name}: not a part .*--fresh"):
        run(folder, tmp_path / "out")


def test_a_shard_runs_once_at_a_time(folder: Path, tmp_path: Path) -> None:
    def tasks() -> Iterator[Task]:
        with pytest.raises(ValueError, match="another process is writing shard"):
            run(folder, tmp_path / "out")
        yield from find_tasks([folder])

    assert run_job(Predictor(Counting(), device="cpu"), tasks(), tmp_path / "out").images == 7


def test_parts_go_into_a_store_and_come_back(folder: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in folder.glob("*.png"):
        store.pipe_file(f"/bucket/in/{path.name}", path.read_bytes())
    predictor = Predictor(Counting(), device="cpu")
    summary = run_job(predictor, find_tasks(["memory://bucket/in/"]), "memory://bucket/out")
    assert summary.images == 7
    (part,) = store.glob("/bucket/out/part-*")
    found = sorted(map(json.loads, store.cat_file(part).splitlines()), key=lambda row: row["image"])
    run(folder, tmp_path / "out")
    assert [row["masks"] for row in found] == [row["masks"] for row in rows(tmp_path / "out")]
    store.pipe_file("/bucket/in/new.png", (folder / "1.png").read_bytes())
    again = run_job(predictor, find_tasks(["memory://bucket/in/*.png"]), "memory://bucket/out")
    assert (again.images, again.skipped) == (1, 7)


def test_a_full_disk_leaves_whole_parts_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    room = 1

    def write_bytes(path: Path, content: bytes) -> int:
        if ".part-" in path.name:
            written.append(path)
            if len(written) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
        with path.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"part-.*: cannot be written \(No space left on device\)"):
        run(folder, tmp_path / "out", part_size=3)
    assert len(rows(tmp_path / "out")) == 3
    room = 99
    again = run(folder, tmp_path / "out", part_size=3)
    assert (again.skipped, again.images) == (3, 4)


def test_the_command_runs_shards_of_a_list_without_a_rendezvous(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted(shapes(tmp_path / "in", 4).iterdir())
    listed = tmp_path / "list.txt"
    listed.write_text(f'{images[0]}\n\n{{"image": "{images[1]}", "id": 7}}\n{images[2]}\nmissing.png\n')
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["predict", "--list", str(listed), "--model", "shapes-semantic", "--out", str(tmp_path / "out")]
    codes = [main(command), main([*command, "--shard", "0/2"])]
    summaries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Which shard has which image depends on the folder's name; one may have the missing image alone.
    expected = [0 if not one["failures"] else 1 if one["images"] else 2 for one in summaries]
    assert codes == expected
    assert sum(one["images"] for one in summaries) == 3
    assert sum(one["failures"] for one in summaries) == 1
    assert {one["shard"] for one in summaries} == {"0/2", "1/2"}
    assert [row["id"] for row in rows(tmp_path / "out")] == [None, 7, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "4/4"], "I/N"),
        (["--shard", "all"], "I/N"),
        (["--format", "yolo", "--list", "-"], "expected one of jsonl, parquet, coco, got yolo"),
        (["--format", "jsonl", "--cutout"], "neither cut-outs"),
        (["--format", "jsonl", "--part-size", "0"], "part_size"),
        (["--format", "jsonl", "--readers", "0"], "reader"),
    ],
)
def test_what_does_not_fit_to_a_job_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["predict", str(folder), "--model", "shapes-semantic", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err


def wait_for(what: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_and_asked_to_end_it_goes_on(tmp_path: Path) -> None:
    images, out = shapes(tmp_path / "in", 120), tmp_path / "out"
    command = [
        *(sys.executable, "-m", "pointrend", "predict", str(images), "--model", "shapes-semantic"),
        *("--format", "jsonl", "--part-size", "2", "--out", str(out)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        before = len(list(out.glob("part-*")))
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda before=before: len(list(out.glob("part-*"))) > before + 1, process)
        process.send_signal(number)
        assert process.wait(60) == code
    partly = len(rows(out))
    assert 0 < partly < 120
    assert main([*command[3:]]) == 0
    assert len({row["image"] for row in rows(out)}) == len(rows(out)) == 120
    assert read_json(out / "summary-00000-of-00001.json")["skipped"] == partly
    assert not list(out.glob(".part-*"))
