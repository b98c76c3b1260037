"""Sources become images, and images get names that never collide."""

from __future__ import annotations

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


def test_what_was_written_before_is_not_read_again(tree: Path) -> None:
    (tree / "overlays").mkdir()
    (tree / "overlays" / "one.png").touch()
    paths, _ = find_images([tree], skip=[tree / "overlays"])
    assert not any("overlays" in path.parts for path in paths)


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
