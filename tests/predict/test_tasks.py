"""Lists, shards and versions of the images of a job."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pointrend.predict.tasks import Task, find_tasks, parse_shard, read_list, version
from tests.predict.models import make_image


def test_a_list_has_paths_addresses_and_json() -> None:
    text = 'a b.png\r\n\n  \ns3://bucket/c.jpg\n{"image": "d.png", "id": 3}\n{"image": "e.png", "more": 1}\n'
    assert list(read_list(io.StringIO(text), "list")) == [
        *(Task("a b.png"), Task("s3://bucket/c.jpg"), Task("d.png", 3), Task("e.png")),
    ]


@pytest.mark.parametrize(
    "line", ['{"image": 3}', "{", '{"id": 1}', '{"image": "a", "id": [1]}', '{"image": "", "id": 1}']
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"list\.jsonl, line 2"):
        list(read_list(["a.png", line], "list.jsonl"))


def test_a_list_is_read_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a.png\n{\n"))
    assert next(find_tasks([], "-")) == Task("a.png")
    (tmp_path / "list").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        list(find_tasks([], str(tmp_path / "list")))
    with pytest.raises(ValueError, match="cannot be read"):
        list(find_tasks([], str(tmp_path / "none")))
    with pytest.raises(ValueError, match="no file matches"):
        list(find_tasks([str(tmp_path / "*.png")]))


def test_a_source_without_images_is_no_job_that_is_done(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("")
    assert list(find_tasks([], str(tmp_path / "list"))) == []  # a list may say that there is nothing new
    with pytest.raises(ValueError, match="no image is in this folder"):
        list(find_tasks([tmp_path]))
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match=r"memory://none/here/: nothing is there"):
        list(find_tasks(["memory://none/here/"]))


def test_shards_are_named_by_their_number_and_count() -> None:
    assert (parse_shard("3/12").index, parse_shard("3/12").count) == (3, 12)
    for wrong in ("12/12", "-1/4", "1", "a/b", "1/0", "0/0"):
        with pytest.raises(ValueError, match="I/N"):
            parse_shard(wrong)


def test_every_image_belongs_to_one_shard_whatever_else_is_listed() -> None:
    keys = [Task(f"{number}.png").key for number in range(1000)]
    assert len(set(keys)) == 1000
    shares = [sum(key % 4 == index for key in keys) for index in range(4)]
    assert min(shares) > 200
    assert Task("a").key != Task("a", 1).key


def test_a_version_changes_with_the_file(tmp_path: Path) -> None:
    task = Task(str(make_image(tmp_path / "a.png")))
    before = version(task)
    assert version(task) == before
    make_image(tmp_path / "a.png", size=(50, 50))
    assert version(task) != before
    with pytest.raises(ValueError, match="no such file"):
        version(Task(str(tmp_path / "b.png")))


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\\udcff.png: the name is not UTF-8.*rename"):
        version(Task("a\udcff.png"))
