"""Sources become images, and images get names that never collide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointrend.predict import find_images, output_names


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/one.jpg", "a/deep/two.PNG", "b/one.jpg", "b/notes.txt", ".hidden/three.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(root: Path, *sources: str) -> list[str]:
    paths, failures = find_images([root / source for source in sources])
    assert not failures
    return [path.relative_to(root).as_posix() for path in paths]


def test_a_folder_stands_for_all_images_below_it_but_hidden_ones(tree: Path) -> None:
    assert names(tree, "") == ["a/deep/two.PNG", "a/one.jpg", "b/one.jpg"]


def test_patterns_may_cross_folders(tree: Path) -> None:
    assert names(tree, "**/one.jpg") == ["a/one.jpg", "b/one.jpg"]
    assert names(tree, "?/*.jpg") == ["a/one.jpg", "b/one.jpg"]


def test_an_image_named_twice_comes_once(tree: Path) -> None:
    assert names(tree, "a", "a/one.jpg", "*/one.jpg") == ["a/deep/two.PNG", "a/one.jpg", "b/one.jpg"]


def test_a_file_named_outright_is_taken_whatever_its_suffix(tree: Path) -> None:
    assert names(tree, "b/notes.txt") == ["b/notes.txt"]


def test_a_file_may_have_brackets_in_its_name(tree: Path) -> None:
    (tree / "a[1].jpg").touch()
    assert names(tree, "a[1].jpg") == ["a[1].jpg"]


@pytest.mark.parametrize("sign", [".pointrend-predictions", "predictions.json", ".unfinished/run.json"])
def test_what_an_earlier_run_wrote_is_not_read_again(tree: Path, sign: str) -> None:
    expected = names(tree, "")
    for name in ("overlays/a/one.png", "labels/one.png", "cutouts/one.png", sign):
        if "labels" not in name or sign != "predictions.json":
            (tree / "old" / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / "old" / name).touch()
    if sign == "predictions.json":  # of a version without the marker
        (tree / "old/cutouts/one.png").unlink()
    assert names(tree, "") == expected
    assert names(tree, "**/*.*g") == ["a/one.jpg", "b/one.jpg"]
    assert names(tree, "old/overlays") == ["old/overlays/a/one.png"]  # named outright
    assert names(tree, "old/overlays/a/*.png") == ["old/overlays/a/one.png"]


def test_folders_called_labels_are_read_where_no_run_wrote_them(tree: Path) -> None:
    (tree / "labels").mkdir()
    (tree / "labels" / "one.png").touch()
    assert "labels/one.png" in names(tree, "")


def test_addresses_stay_as_they_are_and_get_their_last_part_as_name() -> None:
    urls = ["https://host/a%20b.jpg?size=3", "http://host/x/..%2Fsecret", "https://host/"]
    found, failures = find_images([*urls, urls[0]])
    assert (found, failures) == (urls, [])
    assert output_names(found) == ["a b", "secret", "image"]
    assert output_names([*found[:1], Path("x/one.jpg")]) == ["a b", "one"]


def test_file_addresses_are_files(tree: Path) -> None:
    assert find_images([(tree / "a/one.jpg").as_uri()])[0] == [tree / "a/one.jpg"]


def test_a_pattern_without_a_match_is_a_failure_and_an_empty_folder_is_nothing(tree: Path) -> None:
    (tree / "empty").mkdir()
    paths, failures = find_images([tree / "*.webp", tree / "empty"])
    assert not paths
    assert [failure.reason for failure in failures] == ["no file matches this pattern"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/a/one.jpg", "x/b/one.jpg"], ["a/one", "b/one"]),
        (["x/one.jpg", "x/one.png"], ["one.jpg", "one.png"]),
        (["x/One.jpg", "x/one.jpg"], ["One.jpg", "one.jpg-2"]),
        (["x/one.jpg"], ["one"]),
        (["x/a.b.jpg", "x/a.c.jpg"], ["a.b", "a.c"]),
        ([], []),
    ],
)
def test_every_image_has_a_name_of_its_own(paths: list[str], expected: list[str]) -> None:
    found = output_names([Path(path) for path in paths])
    assert found == expected
    assert len({name.casefold() for name in found}) == len(found)


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
def test_links_that_lead_nowhere_are_named_and_pipes_left_alone(tree: Path) -> None:
    (tree / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tree / "a" / "pipe.jpg")
    assert names(tree, "a") == ["a/deep/two.PNG", "a/gone.jpg", "a/one.jpg"]


def test_folders_that_cannot_be_read_are_failures(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refused(folder: str) -> Iterator[os.DirEntry[str]]:
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        found, failures = find_images([str(tree)])
    assert {Path(path).name for path in found} == {"one.jpg"}
    assert [(failure.path, failure.reason) for failure in failures] == [
        (tree / "a" / "deep", "cannot be read (Permission denied)")
    ]


def test_an_empty_text_is_not_the_folder_that_one_is_in() -> None:
    with pytest.raises(ValueError, match="got an empty text"):
        find_images([""])
