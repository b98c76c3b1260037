"""Data as people hold it: other editors' text, names of other systems, label maps of other kinds."""

from __future__ import annotations

import json
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from pointrend.cli import main
from pointrend.data import decode
from pointrend.data.build import open_dataset
from pointrend.data.image_io import read_image
from pointrend.data.label_io import read_labels
from pointrend.formats.file_names import FileFinder, FileNames

LABELS = np.arange(24 * 32).reshape(24, 32) // 99 % 3


def labelled(root: Path, values: np.ndarray, name: str = "a", suffix: str = ".png", **options: Any) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*values.shape[:2], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    path = root / "labels" / f"{name}{suffix}"
    Image.fromarray(values).save(path, **options)
    return path


def shown(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> tuple[int, str]:
    code = main(["data", "check", str(root), *options])
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    ["images/a.png labels/a.png", "images\\a.png\tlabels\\a.png", "file:///images/a.png ./labels/a.png"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_of_pairs_are_read_from_any_editor(tmp_path: Path, line: str, encoding: str) -> None:
    labelled(tmp_path, LABELS.astype(np.uint8))
    (tmp_path / "train.txt").write_bytes(f"{line}\r\n".encode(encoding))
    assert (open_dataset(tmp_path, "train")[0].target.labels.numpy() == LABELS).all()


def test_accents_in_one_piece_and_apart_are_the_same_name(tmp_path: Path) -> None:
    labelled(tmp_path, LABELS.astype(np.uint8), unicodedata.normalize("NFC", "é"))
    label = next((tmp_path / "labels").iterdir())
    label.rename(label.with_name(unicodedata.normalize("NFD", label.name)))
    assert len(open_dataset(tmp_path, "train")) == 1


def test_a_name_is_found_by_its_end_but_never_in_another_folder(tmp_path: Path) -> None:
    for name in ("train/a.png", "val/a.png", "train/sub/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    find = FileFinder(tmp_path)
    assert find("train/a.png") == tmp_path / "train/a.png"
    assert find("D:\\me\\set\\val\\A.PNG") == tmp_path / "val/a.png"
    assert find("b.png") == tmp_path / "train/sub/b.png"
    assert not find("test/a.png").is_file()
    assert not find("a.png").is_file()  # there are two
    assert not find("").is_file()
    assert not find("x\x00y").is_file()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("D:\\photos\\val\\CAF\u00c9.jpg", [2]),
        ("file:///home/me/train/cafe%CC%81.jpg", [1]),
        ("café.jpg", [1, 2]),
        ("elsewhere/one.JPG", [3]),
        ("ONE.jpg", [4]),
        ("two.jpg", []),
        ("", []),
    ],
)
def test_predictions_find_their_images_by_any_systems_names(name: str, found: list[int]) -> None:
    names = FileNames({1: "train/café.jpg", 2: "val/cafe\u0301.jpg", 3: "one.JPG", 4: "ONE.jpg"})
    assert names.find(name) == found


def test_coloured_label_maps_are_read_by_the_palette_and_refused_with_it_otherwise(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    labelled(tmp_path, colors[LABELS])
    with pytest.raises(
        ValueError, match=r"a\.png: .*mode RGB.*\[\[0, 0, 0\], \[0, 128, 0\], \[128, 0, 0\]\]"
    ):
        open_dataset(tmp_path, "train")
    table = {"classes": ["floor", "cup"], "palette": colors.tolist(), "ignore_label": 2}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    labels = open_dataset(tmp_path, "train")[0].target.labels.numpy()
    assert (labels == np.array([0, 1, 255])[LABELS]).all()
    table["palette"] = [[0, 0, 0], [1, 1, 1]]
    (tmp_path / "classes.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"expected the 2 colours of the palette, got \[\(0, 128, 0\)"):
        open_dataset(tmp_path, "train")[0]


@pytest.mark.parametrize("mode", ["LA", "F"])
def test_other_modes_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    path = labelled(tmp_path, LABELS.astype(np.uint8), suffix=".tif")
    Image.open(path).convert(mode).save(path)
    with pytest.raises(ValueError, match=rf"a\.tif: expected a label map.*mode {mode}"):
        open_dataset(tmp_path, "train")


def test_sixteen_bit_ids_are_refused_with_the_way_and_read_with_it(tmp_path: Path) -> None:
    labelled(tmp_path, (LABELS * 1000).astype(np.uint16))
    with pytest.raises(ValueError, match=r'a\.png: .*got 0\.\.2000.*"ids": \[0, 1000, 2000\]'):
        open_dataset(tmp_path, "train")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": list("abc"), "ids": [0, 1000, 2000]}))
    assert (open_dataset(tmp_path, "train")[0].target.labels.numpy() == LABELS).all()


def test_check_lists_the_numbers_of_all_label_maps_beyond_254_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, factor in (("a", 1000), ("b", 2000), ("c", 3000)):
        labelled(tmp_path, (LABELS * factor).astype(np.uint16), name)
    code, said = shown(capsys, tmp_path)  # the first is held out
    assert code == 1
    assert "labels beyond 254: 1" in said
    assert '{"classes": [5 names], "ids": [0, 2000, 3000, 4000, 6000]}' in said


def test_ids_of_images_as_text_are_those_of_the_objects_as_numbers(tmp_path: Path) -> None:
    content = objects(tmp_path)
    count = len(content["annotations"])
    content["images"][0]["id"] = str(content["images"][0]["id"])
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"{count} x number for a text"):
        assert len(open_dataset(tmp_path, "train")[0].target) == count


def test_masks_of_0_and_255_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    labelled(tmp_path, (LABELS == 1).astype(np.uint8) * 255)
    with pytest.raises(ValueError, match=r'Masks of objects\? .*"ids": \[0, 255\], "ignore_label": null'):
        open_dataset(tmp_path, "train")
    (tmp_path / "classes.json").write_text('{"classes": ["background", "object"]}')  # 255 is ignored still
    with pytest.raises(ValueError, match="hold 0 and 255 alone"):
        open_dataset(tmp_path, "train")
    table = {"classes": ["background", "object"], "ids": [0, 255], "ignore_label": None}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert (open_dataset(tmp_path, "train")[0].target.labels.numpy() == (LABELS == 1)).all()


def test_label_maps_as_jpeg_are_refused_for_compression_changes_them(tmp_path: Path) -> None:
    path = labelled(tmp_path, (LABELS * 100).astype(np.uint8), suffix=".jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: JPEG compression changes labels"):
        read_labels(path)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((24, 32)), "one class alone: 1"),
        (np.where(LABELS == 0, LABELS, 255), "one class alone: 1"),
        (np.where(LABELS == 0, np.arange(32) % 2, 255), "mostly ignored: 1"),
        (LABELS * 3, "labels left out: 1"),
        (np.arange(24 * 32).reshape(24, 32) % 97, "many labels: 1"),
    ],
)
def test_what_is_implausible_is_said(
    tmp_path: Path, values: np.ndarray, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(tmp_path, values.astype(np.uint8))
    code, said = shown(capsys, tmp_path)
    assert code == 1
    assert kind in said


def test_an_exif_orientation_beside_a_label_map_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(tmp_path, LABELS.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "a.png", exif=exif)
    assert "EXIF orientation: 1" in shown(capsys, tmp_path)[1]
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "a.png", exif=exif)
    with pytest.raises(
        ValueError, match="its EXIF orientation turns the image, and the labels were drawn without"
    ):
        open_dataset(tmp_path, "train")[0]


def objects(root: Path, **changes: Any) -> dict[str, Any]:
    """Four squares of which each can be changed: `second={"iscrowd": False}`."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(root / "train" / "a.png")
    annotations = []
    for number, name in enumerate(("first", "second", "third", "fourth")):
        x = 2 + 22 * number
        ring = [x, 8, x + 20, 8, x + 20, 28, x, 28]
        annotations.append(
            {
                "id": number + 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [ring],
                "bbox": [x, 8, 20, 20],
                "area": 400,
                "iscrowd": 0,
                **changes.get(name, {}),
            }
        )
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}],
    }
    (root / "instances_train.json").write_text(json.dumps(content))
    return content


def test_every_fault_of_an_annotation_file_is_listed_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = objects(tmp_path)["annotations"]
    objects(
        tmp_path,
        first={"segmentation": [*good[0]["segmentation"], [3, 3, 4, 4]]},
        second={"segmentation": []},
        third={"iscrowd": False},
        fourth={"segmentation": good[3]["segmentation"][0]},
    )
    code, said = shown(capsys, tmp_path)
    assert code == 1
    for kind in (
        "two-point polygon beside a good one",
        "missing mask",
        "true or false for iscrowd",
        "flat polygon",
    ):
        assert f"{kind}: 1" in said
    assert "annotations[1] (id 2), segmentation" in said


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"bbox": [46, 8, 0, 20]}, "box without a side"),
        (
            {"segmentation": [[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]], "bbox": [0.1, 0.1, 0.2, 0.2]},
            "fractions for pixels",
        ),
        ({"segmentation": [[100, 8, 120, 8, 120, 28]], "bbox": [100, 8, 20, 20]}, "object outside"),
        ({"id": 1}, "duplicate id"),
        ({"area": "400"}, "text for a number"),
    ],
)
def test_an_implausible_object_is_named(
    tmp_path: Path, change: dict[str, Any], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    objects(tmp_path, third=change)
    code, said = shown(capsys, tmp_path)
    assert code == 1
    assert f"{kind}: 1" in said


def test_fix_writes_a_copy_that_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = objects(tmp_path / "data")["annotations"]
    objects(
        tmp_path / "data",
        first={"segmentation": [*good[0]["segmentation"], [3, 3, 4, 4]]},
        second={"bbox": [24, 8, 0, 20]},
        third={"iscrowd": False},
        fourth={"segmentation": good[3]["segmentation"][0]},
    )
    code, said = shown(capsys, tmp_path / "data", "--fix", str(tmp_path / "fixed"))
    assert code == 1
    assert "4 faults repaired, 0 left" in said
    assert json.loads((tmp_path / "fixed" / "instances_train.json").read_text())["annotations"] == good
    assert shown(capsys, tmp_path / "fixed")[0] == 0
    assert main(["data", "check", str(tmp_path / "data"), "--fix", str(tmp_path / "fixed")]) == 2  # is there


def fixed(root: Path, *options: str) -> np.ndarray:
    """The first label map of the repaired copy, read again."""
    names = sorted(path.name for path in (root / "labels").iterdir())
    lines = (f"images/{name[0]}.png labels/{name}\n" for name in names)
    (root / "train.txt").write_text("".join(lines))
    assert main(["data", "check", str(root), "--fix", str(root.parent / "fixed"), *options]) == 1
    data = open_dataset(root.parent / "fixed", "train")
    return data[0].target.labels.numpy()


def test_fix_writes_numbers_for_the_colours_of_all_label_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    labelled(tmp_path / "set", colors[LABELS], "a")
    labelled(tmp_path / "set", np.full((*LABELS.shape, 3), (9, 9, 9), np.uint8), "b")
    assert (fixed(tmp_path / "set") == np.array([0, 3, 1])[LABELS]).all()
    said = capsys.readouterr().out
    assert "label maps in colour: 1" in said  # once, with the colours of both
    assert "[[0, 0, 0], [0, 128, 0], [9, 9, 9], [128, 0, 0]]" in said
    assert "2 label maps repaired, 0 left out" in said


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_fix_makes_masks_of_0_and_255_a_class(tmp_path: Path, suffix: str) -> None:
    large = np.kron(LABELS == 1, np.ones((16, 16), bool))
    labelled(tmp_path / "set", (large * 255).astype(np.uint8), suffix=suffix)
    assert (fixed(tmp_path / "set") == large).mean() > (0.999 if suffix == ".png" else 0.97)
    assert open_dataset(tmp_path / "fixed", "train").class_names == ("background", "object")


def test_fix_takes_blurred_colours_for_the_nearest_of_the_palette_and_leaves_what_is_near_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0]], np.uint8)
    large = np.kron(LABELS, np.ones((16, 16), np.uint8))
    noise = np.random.default_rng(0).integers(-30, 30, (*large.shape, 3))
    blurred = (colors[large].astype(int) + noise).clip(0, 255).astype(np.uint8)
    labelled(tmp_path / "set", blurred, "a")
    labelled(tmp_path / "set", np.full((*large.shape, 3), 128, np.uint8), "b")
    table = {"classes": ["a", "b", "c"], "palette": colors.tolist()}
    (tmp_path / "set" / "classes.json").write_text(json.dumps(table))
    assert (fixed(tmp_path / "set") == large).all()
    assert "1 label maps repaired, 1 left out" in (said := capsys.readouterr().out)
    assert "b.png: the colour [128, 128, 128] is none of the palette, nor near one" in said


def test_a_label_map_in_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + struct.pack(">6H", *([300] * 6)) for _ in range(2))  # 2 x 2 pixels
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    with (
        pytest.warns(UserWarning, match="nearly black"),
        pytest.raises(ValueError, match="in colour of 16 bits"),
    ):
        read_labels(tmp_path / "a.png")


def test_fractions_become_pixels_where_all_are_fractions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = objects(tmp_path / "data")
    scaled = json.loads(json.dumps(good))
    for item in scaled["annotations"]:
        item["segmentation"] = [[v / (96, 64)[n % 2] for n, v in enumerate(item["segmentation"][0])]]
        item["bbox"] = [v / (96, 64)[n % 2] for n, v in enumerate(item["bbox"])]
    (tmp_path / "data" / "instances_train.json").write_text(json.dumps(scaled))
    assert "fractions for pixels: 4" in shown(capsys, tmp_path / "data", "--fix", str(tmp_path / "fixed"))[1]
    fixed = json.loads((tmp_path / "fixed" / "instances_train.json").read_text())
    for item, wanted in zip(fixed["annotations"], good["annotations"], strict=True):
        assert np.allclose(item["segmentation"], wanted["segmentation"])
        assert np.allclose(item["bbox"], wanted["bbox"])
        assert item["area"] == pytest.approx(400)


@pytest.mark.parametrize(("largest", "depth"), [(200, 8), (1000, 10), (3950, 12), (16000, 14)])
def test_grey_images_of_fewer_than_16_bits_are_not_black_and_their_range_is_said(
    tmp_path: Path, largest: int, depth: int
) -> None:
    values = np.linspace(0, largest, 24 * 32).reshape(24, 32).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=f"largest values need {depth}"):
        found = read_image(tmp_path / "a.png")
    assert (found[0].numpy() == values >> (depth - 8)).all()


def test_heic_is_named_and_the_plugin_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "formats", lambda: decode.FORMATS)  # as without the plugin
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40)
    with pytest.raises(ValueError, match=r"a\.heic: a HEIC image, .*pip install pillow-heif"):
        read_image(tmp_path / "a.heic")


def test_a_training_part_without_an_object_is_refused_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = objects(tmp_path)
    content["images"].append({**content["images"][0], "id": 2})
    (tmp_path / "instances_train.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(
        ValueError, match="expected an image with an object of cup; it has 2 images and 0 objects"
    ):
        open_dataset(tmp_path, "train")
    code, said = shown(capsys, tmp_path)
    assert code == 1
    assert "no objects: 1" in said
    assert "image listed twice: 1" in said


def test_damaged_metadata_of_an_image_is_passed_over_in_silence(tmp_path: Path) -> None:
    """As viewers do; Pillow's own warning would name neither the file nor a way (a warning is an error here)."""
    pixels = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={270: "a description"})
    content = (tmp_path / "a.tif").read_bytes()
    tag = struct.pack("<HHI", 270, 2, len("a description") + 1)
    (tmp_path / "a.tif").write_bytes(content.replace(tag, struct.pack("<HHI", 270, 2, 2**20)))
    assert (tmp_path / "a.tif").read_bytes() != content
    if int(PIL.__version__.partition(".")[0]) < 11:  # does not open such a file at all
        with pytest.raises(ValueError, match=r"a\.tif: not a readable image"):
            read_image(tmp_path / "a.tif")
    else:
        assert (read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy() == pixels).all()
