from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointrend.cli import main
from pointrend.data.build import open_dataset
from pointrend.data.validate import check_dataset


def make_image(path: Path, value: int, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def labels(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def semantic(tmp_path: Path) -> Path:
    """Good, all ignored, out of range, of another size, truncated, and a copy of the first; class "sky" is nowhere."""
    good = np.zeros((20, 30))
    good[:5] = 1
    good[5:7] = 255
    maps = {"a": good, "b": np.full((20, 30), 255), "c": good + 3, "d": good[:10], "e": good, "f": good}
    for number, (name, values) in enumerate(maps.items()):
        make_image(tmp_path / "images" / "train" / f"{name}.png", number)
        labels(tmp_path / "labels" / "train" / f"{name}.png", values)
    truncated = tmp_path / "images" / "train" / "e.png"
    truncated.write_bytes(truncated.read_bytes()[:40])
    shutil.copy(tmp_path / "images" / "train" / "a.png", tmp_path / "images" / "train" / "f.png")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["road", "car", "sky"]}))
    return tmp_path


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """A good object, one whose box is elsewhere, one too thin for a pixel; a missing image."""

    def thing(number: int, image: int, box: list[int], polygon: list[int]) -> dict:
        return {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": box,
            "segmentation": [polygon],
            "area": 36,
            "iscrowd": 0,
        }

    square = [2, 2, 8, 2, 8, 8, 2, 8]
    things = [
        thing(1, 1, [2, 2, 6, 6], square),
        thing(2, 1, [15, 10, 6, 6], square),
        thing(3, 2, [5, 5, 1, 1], [5.1, 5.1, 5.3, 5.1, 5.3, 5.3]),
        thing(4, 2, [2, 2, 6, 6], square),
        thing(5, 3, [2, 2, 6, 6], square),
    ]
    images = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 30} for n in (1, 2, 3)]
    content = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "disc"}]}
    for number in (1, 2):
        make_image(tmp_path / "train" / f"{number}.png", number)
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    return tmp_path


def kinds(folder: Path) -> dict[str, list[str]]:
    found = check_dataset(open_dataset(folder, "train")).by_kind()
    return {kind: [str(problem) for problem in problems] for kind, problems in found.items()}


def test_what_is_wrong_with_label_maps_is_found_and_named(semantic: Path) -> None:
    found = kinds(semantic)
    assert {kind: len(problems) for kind, problems in found.items()} == {
        "empty": 1,
        "unreadable": 3,
        "duplicate": 1,
    }
    assert "b.png" in found["empty"][0]
    assert any("c.png: expected labels 0..2" in text for text in found["unreadable"])
    assert any("d.png: expected the size" in text for text in found["unreadable"])
    assert any("e.png: not a readable image" in text for text in found["unreadable"])
    assert "f.png: the same file as" in found["duplicate"][0]


def test_classes_are_counted_in_pixels_and_images(semantic: Path) -> None:
    findings = check_dataset(open_dataset(semantic, "train"))
    assert findings.images_of == [2, 2, 0]
    assert findings.amount_of == [2 * 13 * 30, 2 * 5 * 30, 0]
    assert findings.ignored == 2 * 2 * 30 + 20 * 30
    assert findings.absent == ("sky",)
    assert findings.sizes == ((20, 30), (20, 30))


def test_what_is_wrong_with_objects_is_found_and_named(instance: Path) -> None:
    found = kinds(instance)
    assert {kind: len(problems) for kind, problems in found.items()} == {
        "box": 1,
        "object": 1,
        "unreadable": 1,
    }
    assert "1.png: object 1 (disc): the box (15, 10, 21, 16) does not fit the mask" in found["box"][0]
    assert "1 of 2 objects have no pixel" in found["object"][0]
    assert "3.png: no such file" in found["unreadable"][0]


def folders(root: Path) -> list[Path]:
    for name in "abc":
        make_image(root / "images" / "train" / f"{name}.png", ord(name))
        labels(root / "labels" / "train" / f"{name}.png", np.arange(600).reshape(20, 30) % 3)
    return [root / "labels" / "train" / "b.png", root / "images" / "train" / "c.png"]


def listed(root: Path) -> list[Path]:
    folders(root)
    names = [f"images/train/{name}.png labels/train/{name}.png" for name in "abc"]
    (root / "train.txt").write_text("\n".join(names))
    return [root / "labels" / "train" / "b.png", root / "images" / "train" / "c.png"]


def cityscapes(root: Path) -> list[Path]:
    for name in ("a_000000_000000", "a_000000_000001"):
        make_image(root / "leftImg8bit" / "train" / "a" / f"{name}_leftImg8bit.png", int(name[-1]))
        labels(root / "gtFine" / "train" / "a" / f"{name}_gtFine_labelIds.png", np.full((20, 30), 7))
    return [root / "gtFine" / "train" / "a" / "a_000000_000001_gtFine_labelIds.png"]


@pytest.mark.parametrize("layout", [folders, listed, cityscapes])
def test_every_missing_file_is_listed_and_training_stops_at_once(layout, tmp_path, capsys) -> None:
    missing = layout(tmp_path)
    for path in missing:
        path.unlink()
    assert main(["data", "check", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert f"unreadable: {len(missing)}" in shown
    for path in missing:
        assert path.stem in shown
    assert shown.count("no such file") == len(missing)
    with pytest.raises(ValueError, match=missing[0].stem):
        open_dataset(tmp_path, "train")


def test_labels_out_of_range_are_listed_where_the_classes_are_counted_from_them(tmp_path, capsys) -> None:
    folders(tmp_path)
    wide = np.full((20, 30), 300, np.uint16)
    Image.fromarray(wide).save(tmp_path / "labels" / "train" / "b.png")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "b.png: expected labels 0..2 or 255 (ignored), got 300" in capsys.readouterr().out


def test_generated_scenes_have_no_problems() -> None:
    for task in ("semantic", "instance"):
        assert not check_dataset(open_dataset(f"shapes:{task}", "val"), indices=range(3)).problems


def test_the_command_lists_draws_and_exits_with_1(semantic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = semantic / "sheets" / "sheet.png"
    assert main(["data", "check", str(semantic), "--sheet", str(sheet)]) == 1
    shown = capsys.readouterr().out
    assert "classes that occur nowhere: sky" in shown
    assert "unreadable: 3" in shown
    with Image.open(sheet) as drawn:  # three of the six can be drawn; rows are as high as their images
        assert drawn.width == 3 * 328 + 8
        assert 8 < drawn.height < 328 + 8


def test_the_command_exits_with_0_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "shapes:instance", "--limit", "2"]) == 0
    assert "no problems found" in capsys.readouterr().out
    assert main(["data", "check", "shapes", "--limit", "0"]) == 2
