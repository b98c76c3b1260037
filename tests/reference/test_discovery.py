"""Stored outputs are found however their folders are arranged, each with the files that belong to it."""

from __future__ import annotations

import json

import pytest

from tests.reference import discovery


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "ROOT", tmp_path / "given")
    monkeypatch.setattr(discovery, "DEFAULT", tmp_path / "default")
    write(tmp_path / "default" / "d2" / "make_checkpoint.py", "def checkpoint(): return 'default'")
    write(tmp_path / "default" / "d2" / "shapes" / "r50.json", {"x": [2]})
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_flat_folder_and_subfolders_are_both_read(root):
    for name, folders in {"flat": ("", ""), "deep": ("goldens/", "shapes/")}.items():
        write(root / name / f"{folders[0]}goldens.json", {name: {"seed": 7}})
        write(root / name / f"{folders[0]}{name}.npz", "")
        write(root / name / f"{folders[1]}shapes_{name}.json", {"y": [1]})
    found = discovery.mmsegmentation()
    assert sorted(golden.id for golden in found) == ["deep@deep/goldens", "flat@flat"]
    for golden in found:
        assert golden.shapes() == {"y": [1]}
        assert golden.arrays().parts[-len(golden.id.split("/")) - 1] == golden.name


def test_each_set_has_the_files_nearest_to_it(root):
    for seed in ("1", "2"):
        write(root / seed / "goldens" / "meta.json", {"seed": int(seed), "configs": {"r50": {"cases": {}}}})
        write(root / seed / "goldens" / "images.npz", seed)
        write(root / seed / "make_checkpoint.py", f"def checkpoint(): return {seed}")
    found = discovery.detectron2()
    assert [golden.shared["seed"] for golden in found] == [1, 2]
    assert [golden.file("images.npz").read_text() for golden in found] == ["1", "2"]
    assert [golden.maker().checkpoint() for golden in found] == [1, 2]


def test_what_does_not_depend_on_the_seed_may_be_the_defaults(root):
    write(root / "meta.json", {"seed": 1, "configs": {"r50": {"cases": {}}}})
    # The other project's program of the same name is nearer, but none of ours.
    write(root / "mmseg" / "make_checkpoint.py", "def make_state_dict(): pass")
    [golden] = discovery.detectron2()
    assert golden.id == "r50"
    assert golden.shapes() == {"x": [2]}
    assert golden.maker().checkpoint() == "default"


def test_a_set_that_is_not_whole_is_no_reason_to_skip(root):
    write(root / "meta.json", {"seed": 1, "configs": {"r50": {"cases": {}}}})
    with pytest.raises(FileNotFoundError, match=r"lists r50, but .* has no r50\.npz"):
        discovery.detectron2()[0].arrays()


def test_an_empty_folder_has_nothing(root):
    write(root / "meta.json", [])
    assert discovery.detectron2() == discovery.mmsegmentation() == discovery.units() == []
