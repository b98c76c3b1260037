"""Exports as versions, systems and settings of the tools vary them; each is read right, or refused in words."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.cli import main
from pointrend.data.build import open_dataset
from pointrend.data.splits import split_of
from tests.doors.test_exports import HEIGHT, SQUARE, WIDTH, coco, image, labelme, pascal_voc, square, yolo


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def names_of(root: Path, split: str) -> list[str]:
    """The files of a split's images, each of which has the square."""
    data = open_dataset(root, split)  # type: ignore[arg-type]
    samples = [data[index] for index in range(len(data))]
    assert all(torch.equal(sample.target.masks.dense()[0], square()) for sample in samples)
    return sorted(Path(sample.path or "").name for sample in samples)


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("instances_Train", "train"),
        ("instances_VAL2017", "val"),
        ("myTrainSet", "train"),
        ("_annotations.coco.valid", "val"),
        ("instances_Test", "test"),
        ("trainval", None),
        ("train_val", None),
        ("carnival", None),
        ("constraints", None),
    ],
)
def test_a_split_is_a_word_of_a_name_in_any_case(stem: str, split: str | None) -> None:
    assert split_of(stem) == split


@pytest.mark.parametrize("folders", [True, False])
def test_subsets_of_cvat_are_the_splits_and_a_test_set_is_none(tmp_path: Path, folders: bool) -> None:
    for subset in ("Train", "Validation", "Test"):
        names = [f"{subset}{number}.jpg" for number in range(2)]
        put(
            tmp_path / "annotations" / f"instances_{subset}.json",
            coco(names, "" if folders else f"{subset}/"),
        )
        for name in names:
            image(tmp_path / "images" / subset / name)
    assert names_of(tmp_path, "train") == ["Train0.jpg", "Train1.jpg"]
    assert names_of(tmp_path, "val") == ["Validation0.jpg", "Validation1.jpg"]


def test_a_file_that_is_of_no_split_or_of_a_test_set_is_not_taken_for_one(tmp_path: Path) -> None:
    put(tmp_path / "carnival_train.json", coco(["a.jpg"]))
    put(tmp_path / "carnival_test.json", coco(["b.jpg"]))
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "images" / name)
    assert names_of(tmp_path, "train") == ["a.jpg"]
    with pytest.raises(ValueError, match="for the split 'val', but one for 'train'"):
        open_dataset(tmp_path, "val")


def in_capitals(root: Path) -> None:
    """Folders of YOLO's as some programs write them."""
    for split in ("Train", "Val"):
        image(root / "Images" / split / "a.jpg")
        numbers = [v / (WIDTH, HEIGHT)[n % 2] for n, v in enumerate(SQUARE)]
        (root / "Labels" / split).mkdir(parents=True)
        (root / "Labels" / split / "a.txt").write_text("0 " + " ".join(map(str, numbers)))
    (root / "own-seg.yaml").write_text(
        "path: ../x\ntrain: images/train # and more, *not read*\nnames:\n  0: no\n"
    )


def masks_in_capitals(root: Path) -> None:
    for split in ("Train", "Val"):
        image(root / "Images" / split / "a.jpg")
        (root / "Masks" / split).mkdir(parents=True)
        Image.fromarray(square().numpy().astype(np.uint8)).save(root / "Masks" / split / "a.PNG")


@pytest.mark.parametrize("export", [in_capitals, masks_in_capitals])
def test_folders_are_found_in_any_case(tmp_path: Path, export: Callable[[Path], None]) -> None:
    export(tmp_path)
    for split in ("train", "val"):
        data = open_dataset(tmp_path, split)  # type: ignore[arg-type]
        assert data.class_names == (("no",) if export is in_capitals else ("class 0", "class 1"))
        assert Path(data[0].path or "").parent.name.lower() == split


@pytest.mark.parametrize("export", [labelme, yolo, pascal_voc])
def test_files_that_macos_hides_are_no_data(tmp_path: Path, export: Callable[[Path], None]) -> None:
    export(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
        hidden = tmp_path / "__MACOSX" / path.relative_to(tmp_path).parent / f"._{path.name}"
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"\0\5\x16\7")
    assert len(open_dataset(tmp_path, "train")) == 1


@pytest.mark.parametrize(
    "name",
    [
        "..\\..\\label-studio\\media\\upload\\4\\a.jpg",
        "/data/local-files/?d=mine/a.jpg",
        "https://x.org/upload/a.jpg?token=1",
        "https://x.org:8080/data/local-files/?d=mine/a.jpg",
        "images%2Fa.jpg",
        "s3://bucket/images/a.jpg",
    ],
)
def test_images_are_found_by_the_addresses_of_a_labelling_server(tmp_path: Path, name: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    put(tmp_path / "result.json", coco([name]))
    assert names_of(tmp_path, "train") == ["a.jpg"]


def test_the_background_of_labelmes_coco_file_is_no_class(tmp_path: Path) -> None:
    content = coco(["JPEGImages/a.jpg"])
    content["categories"] = [
        {"id": 0, "name": "_background_", "supercategory": None},
        {"id": 1, "name": "cup", "supercategory": None},
    ]
    image(tmp_path / "JPEGImages" / "a.jpg")
    put(tmp_path / "annotations.json", content)
    assert open_dataset(tmp_path, "train").class_names == ("cup",)


@pytest.mark.parametrize("name", ["IMG_0001.JPG", "x" * 5000, "a\0b"])
def test_labelmes_files_of_old_versions_and_renamed_images(tmp_path: Path, name: str) -> None:
    labelme(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    del content["imageHeight"], content["imageWidth"]
    put(tmp_path / "a.json", {**content, "imagePath": name})
    assert names_of(tmp_path, "train") == ["a.jpg"]


@pytest.mark.parametrize("class_maps", ["SegmentationClass", "SegmentationClassPNG"])
def test_the_classes_of_labelmes_pascal_voc_export_are_its_own(tmp_path: Path, class_maps: str) -> None:
    pascal_voc(tmp_path)
    path = next((tmp_path / "SegmentationClass").iterdir())
    Image.fromarray(square().numpy().astype(np.uint8)).save(path)
    if class_maps != "SegmentationClass":
        (tmp_path / "SegmentationClass").rename(tmp_path / class_maps)
        (tmp_path / "SegmentationClass").mkdir()
        np.save(tmp_path / "SegmentationClass" / f"{path.stem}.npy", np.zeros((HEIGHT, WIDTH)))
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncup\n")
    data = open_dataset(tmp_path, "train")
    assert data.class_names == ("_background_", "cup")
    assert torch.equal(data[0].target.labels, square().to(torch.uint8))
    assert open_dataset(f"{tmp_path}:instance", "train").class_names == ("cup",)


def test_as_many_objects_as_an_object_map_has_colours(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    path = next((tmp_path / "SegmentationObject").iterdir())
    Image.new("L", (WIDTH, HEIGHT), 15).save(tmp_path / "SegmentationClass" / path.name)
    colors = np.zeros((HEIGHT * WIDTH, 3), np.uint8)
    colors[:255, 1] = range(255)  # 254 objects and the background
    Image.fromarray(colors.reshape(HEIGHT, WIDTH, 3)).save(path)
    assert len(open_dataset(f"{tmp_path}:instance", "train")[0].target.labels) == 254
    colors[-1] = 7
    Image.fromarray(colors.reshape(HEIGHT, WIDTH, 3)).save(path)
    with pytest.raises(ValueError, match="expected at most 255 colours, got 256"):
        open_dataset(f"{tmp_path}:instance", "train")


def test_classes_of_pascal_voc_are_assumed_aloud(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    for path in [*tmp_path.rglob("2007_000032*")]:
        path.rename(path.with_stem("kitchen"))
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("kitchen.jpg\n")
        (tmp_path / "ImageSets" / "Segmentation" / f"aug_{split}.txt").write_text("other\n")
    with pytest.warns(UserWarning, match="no class names .*taken for Pascal VOC's"):
        assert len(open_dataset(tmp_path, "train")) == 1
    put(tmp_path / "classes.json", {"classes": ["rest", "cup"], "ids": [0, 15]})
    assert torch.equal(open_dataset(tmp_path, "train")[0].target.labels[5:], square()[5:].to(torch.uint8))
    assert open_dataset(f"{tmp_path}:instance", "train").class_names == ("cup",)
    shutil.rmtree(tmp_path / "JPEGImages")
    with pytest.raises(ValueError, match="label maps without their images; put them into"):
        open_dataset(tmp_path, "train")


def bitmap(mode: str) -> str:
    """A square of 10 pixels as Supervisely's versions store it."""
    buffer = io.BytesIO()
    ones = np.ones((10, 10), np.uint8)
    if mode == "P":  # black on transparent black
        picture = Image.frombytes("P", (10, 10), ones.tobytes())
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.save(buffer, format="PNG", transparency=0)
    elif mode == "RGBA":
        Image.fromarray(np.dstack([0 * ones, 0 * ones, 0 * ones, 255 * ones])).save(buffer, format="PNG")
    else:
        Image.fromarray(ones.astype(bool) if mode == "1" else ones).save(buffer, format="PNG")
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


@pytest.mark.parametrize("mode", ["P", "RGBA", "1", "L"])
@pytest.mark.parametrize("name", ["a.jpg.json", "a.json"])
def test_supervisely_bitmaps_of_every_version_and_shapes_without_area(
    tmp_path: Path, mode: str, name: str
) -> None:
    image(tmp_path / "ds" / "img" / "a.jpg")
    objects = [
        {"classTitle": "cup", "geometryType": "bitmap", "bitmap": {"data": bitmap(mode), "origin": [4, 3]}},
        {
            "classTitle": "edge",
            "geometryType": "line",
            "points": {"exterior": [[1, 1], [5, 5]], "interior": []},
        },
    ]
    put(tmp_path / "ds" / "ann" / name, {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects})
    with pytest.warns(UserWarning, match="1 x shape without area"):
        assert names_of(tmp_path, "train") == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: [yes, no]\n", ("yes", "no")),
        ("names: {'0': cup, '1': 1.50}\n", ("cup", "1.50")),
        ("names: [cup, cup]\n", "every name once, got 'cup' twice"),
        ("nc: 2\n", "names by number from 0, got nothing"),
        ("names: {0: cup, 2: plate}\n", "names by number from 0, got {'0': 'cup', '2': 'plate'}"),
        ("names: &a [*a]\n", "not a readable YAML file"),
    ],
)
def test_names_of_yolo_are_what_is_written(
    tmp_path: Path, text: str, expected: str | tuple[str, ...]
) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    if isinstance(expected, tuple):
        assert open_dataset(tmp_path, "train").class_names == expected
    else:
        with pytest.raises(ValueError, match=r"data\.yaml.*names|recursive") as refused:
            open_dataset(tmp_path, "train")
        assert expected in str(refused.value)


def test_labels_of_yolo_without_an_image_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "train" / "lost.txt").write_text("0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "labels without an image: 1\n  lost.txt" in capsys.readouterr().out


def test_crowds_alone_are_named_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco(["a.jpg", "b.jpg"])
    for record in content["annotations"]:
        record["iscrowd"] = 1
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "set" / "images" / name)
    put(tmp_path / "set" / "annotations" / "instances_default.json", content)
    with pytest.raises(
        ValueError, match=r"1 objects, 1 of them crowds \(iscrowd 1\), which are not learnt from"
    ):
        open_dataset(tmp_path / "set", "train")
    assert main(["data", "check", str(tmp_path / "set"), "--fix", str(tmp_path / "fixed")]) == 1
    assert "crowds alone: 1" in capsys.readouterr().out
    assert names_of(tmp_path / "fixed", "train") == ["b.jpg"]


def test_a_refusal_leads_to_the_folder_inside_and_names_other_forms(tmp_path: Path) -> None:
    yolo(tmp_path / "unpacked" / "cups.v1i.yolov8")
    with pytest.raises(ValueError, match=r"but one in .*cups\.v1i\.yolov8: give that folder"):
        open_dataset(tmp_path / "unpacked", "train")
    (tmp_path / "cups.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="expected a folder, got a file; give the folder that holds it"):
        open_dataset(tmp_path / "cups.zip", "train")
    others = tmp_path / "others"
    put(others / "project-1.json", [{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}])
    put(others / "via.json", {"a.jpg123": {"filename": "a.jpg", "regions": []}})
    (others / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(ValueError, match="It holds") as refused:
        open_dataset(others, "train")
    for words in (
        "Label Studio's own JSON",
        "VGG Image Annotator's JSON",
        "annotations.xml: XML, which is not read",
    ):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"segmentation": np.reshape(SQUARE, (-1, 2)).tolist()}, "pairs for a flat list"),
        ({"segmentation": [np.reshape(SQUARE, (-1, 2)).tolist()]}, "pairs for a flat list"),
        ({"segmentation": [[str(value) for value in SQUARE]]}, "text for a number"),
    ],
)
def test_polygons_in_other_nestings_are_read_as_meant(
    tmp_path: Path, change: dict[str, Any], kind: str
) -> None:
    content = coco(["a.jpg"])
    content["annotations"][0].update(change)
    image(tmp_path / "train" / "a.jpg")
    put(tmp_path / "instances_train.json", content)
    with pytest.warns(UserWarning, match=f"1 x {kind}"):
        assert names_of(tmp_path, "train") == ["a.jpg"]


def test_category_names_that_are_numbers_or_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco(["a.jpg"])
    content["categories"] = [{"id": 1, "name": 7}, {"id": 2, "name": "Cup"}, {"id": 3, "name": "cup "}]
    image(tmp_path / "train" / "a.jpg")
    put(tmp_path / "instances_train.json", content)
    with pytest.warns(UserWarning, match="1 x number for a text"):
        assert open_dataset(tmp_path, "train").class_names == ("7", "Cup", "cup ")
    main(["data", "check", str(tmp_path)])
    assert "'Cup' is there in another spelling" in capsys.readouterr().out
