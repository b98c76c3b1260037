"""What annotation tools export is read as it comes, each with the objects that it holds."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.build import open_dataset
from pointrend.formats.labelme import from_labelme

HEIGHT, WIDTH = 24, 32
VOC_NAME = "2007_000032"
SQUARE = [4.0, 3.0, 14.0, 3.0, 14.0, 13.0, 4.0, 13.0]


def square() -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[3:13, 4:14] = True
    return mask


def image(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(path)


def coco(names: list[str], prefix: str = "") -> dict[str, Any]:
    return {
        "images": [
            {"id": n, "file_name": f"{prefix}{name}", "height": HEIGHT, "width": WIDTH}
            for n, name in enumerate(names)
        ],
        "categories": [
            {"id": 0, "name": "tableware", "supercategory": "none"},
            {"id": 1, "name": "cup", "supercategory": "tableware"},
        ],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": 1,
                "segmentation": [SQUARE],
                "bbox": [4, 3, 10, 10],
                "area": 100,
                "iscrowd": 0,
            }
            for n in range(len(names))
        ],
    }


def png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return buffer.getvalue()


def roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        image(root / split / "a.jpg")
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco(["a.jpg"])))


def cvat(root: Path) -> None:
    image(root / "images" / "default" / "a.jpg")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(coco(["a.jpg"])))


def label_studio(root: Path) -> None:
    image(root / "images" / "a.jpg")
    (root / "result.json").write_text(json.dumps(coco(["a.jpg"], "images\\\\")), encoding="utf-8-sig")


def labelme(root: Path) -> None:
    image(root / "a.jpg")
    shapes = [{"label": "cup", "points": np.reshape(SQUARE, (-1, 2)).tolist(), "shape_type": "polygon"}]
    content = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    (root / "a.json").write_text(json.dumps({"version": "5.5.0", **content}))


def labelme_rectangle(root: Path) -> None:
    labelme(root)
    content = json.loads((root / "a.json").read_text())
    content["shapes"] = [{"label": "cup", "points": [[14, 13], [4, 3]], "shape_type": "rectangle"}]
    (root / "a.json").write_text(json.dumps(content))


def labelme_mask(root: Path) -> None:
    labelme(root)
    content = json.loads((root / "a.json").read_text())
    text = base64.b64encode(png(np.full((10, 10), 255, np.uint8))).decode()
    content["shapes"] = [{"label": "cup", "points": [[4, 3], [13, 12]], "shape_type": "mask", "mask": text}]
    (root / "a.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    numbers = np.reshape(SQUARE, (-1, 2)) / (WIDTH, HEIGHT)
    for split in ("train", "val"):
        image(root / "images" / split / "a.jpg")
        (root / "labels" / split).mkdir(parents=True)
        line = " ".join(map(str, [0, *numbers.ravel().tolist()]))
        (root / "labels" / split / "a.txt").write_text(line + "\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: cup\n")


def yolo_of_label_studio(root: Path) -> None:
    yolo(root)
    for kind in ("images", "labels"):
        (root / kind / "train").rename(root / "moved")
        (root / kind / "val").rename(root / f"old-{kind}")
        (root / kind).rmdir()
        (root / "moved").rename(root / kind)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cup\n")


def pascal_voc(root: Path) -> None:
    image(root / "JPEGImages" / f"{VOC_NAME}.jpg")
    for name, value in (("SegmentationClass", 15), ("SegmentationObject", 1)):
        values = square().numpy().astype(np.uint8) * value
        values[0, 0] = 255
        (root / name).mkdir()
        Image.fromarray(values).save(root / name / f"{VOC_NAME}.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{VOC_NAME}\n")


def cvat_masks(root: Path) -> None:
    pascal_voc(root)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:250,50,83::\n"
    )
    colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colors[square().numpy()] = (250, 50, 83)
    for name in ("SegmentationClass", "SegmentationObject"):
        Image.fromarray(colors).save(root / name / f"{VOC_NAME}.png")


def supervisely(root: Path) -> None:
    image(root / "ds" / "img" / "a.jpg")
    (root / "ds" / "ann").mkdir()
    data = base64.b64encode(zlib.compress(png(np.full((10, 10), 255, np.uint8)))).decode()
    objects = [{"classTitle": "cup", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [4, 3]}}]
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
    (root / "ds" / "ann" / "a.jpg.json").write_text(json.dumps(content))


EXPORTS = [
    *(roboflow, cvat, label_studio, labelme, labelme_rectangle, labelme_mask, yolo, yolo_of_label_studio),
    *(pascal_voc, cvat_masks, supervisely),
]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
def test_an_export_is_read_as_it_comes(tmp_path: Path, export: Callable[[Path], None]) -> None:
    export(tmp_path)
    for split in ("train", "val"):
        data = open_dataset(f"{tmp_path}:instance", split)  # type: ignore[arg-type]
        sample = data[0]
        [mask] = sample.target.masks.dense()
        assert torch.equal(mask, square())
        assert data.class_names[int(sample.target.labels[0])] == ("person" if export is pascal_voc else "cup")
        assert sample.image.shape == (3, HEIGHT, WIDTH)


def test_roboflows_project_is_no_class_and_names_its_classes_as_a_supercategory(tmp_path: Path) -> None:
    roboflow(tmp_path)
    assert open_dataset(tmp_path, "train").class_names == ("cup",)
    assert len(open_dataset(tmp_path, "train", categories=["tableware"])[0].target) == 1


def test_a_circle_of_labelme_is_filled_and_a_line_is_left_out_and_said(tmp_path: Path) -> None:
    labelme(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    content["shapes"] = [
        {"label": "cup", "points": [[16, 12], [22, 12]], "shape_type": "circle"},
        {"label": "edge", "points": [[0, 0], [9, 9]], "shape_type": "line"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 x shape without area"):
        data = open_dataset(tmp_path, "train")
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disc = (x - 16) ** 2 + (y - 12) ** 2 < 36
    difference = data[0].target.masks.dense()[0].numpy() ^ disc
    assert difference.sum() <= 12  # along the outline
    assert data.class_names == ("cup",)


def test_every_kind_of_labelme_shape_is_read_from_python_too() -> None:
    text = base64.b64encode(png(np.full((10, 10), 255, np.uint8))).decode()
    corners = np.reshape(SQUARE, (-1, 2)).tolist()
    shapes = [
        {"label": "cup", "points": corners},
        {"label": "cup", "points": [[14, 13], [4, 3]], "shape_type": "rectangle"},
        {"label": "cup", "points": corners, "shape_type": "rectangle"},
        {"label": "cup", "points": corners, "shape_type": "rotation"},
        {"label": "cup", "points": [[4, 3], [13, 12]], "shape_type": "mask", "mask": text, "score": 0.25},
        {"label": "cup", "points": corners[:3], "group_id": 1},
        {"label": "cup", "points": [[4, 3], [13, 12]], "shape_type": "mask", "mask": text, "group_id": 1},
    ]
    document = {"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    found = from_labelme(document)
    assert [torch.equal(mask, square()) for mask in found.masks.dense()] == [True] * 6
    assert found.scores.tolist() == [1, 1, 1, 1, 0.25, 1]
    circle = {"label": "hole", "points": [[16, 12], [22, 12]], "shape_type": "circle"}
    point = {"label": "hole", "points": [[16, 12]], "shape_type": "point"}
    with pytest.warns(UserWarning, match="1 of kind point left out"):
        disc = from_labelme({**document, "shapes": [circle, point]})
    assert abs(int(disc.masks.dense().sum()) - np.pi * 36) < 4
    with pytest.raises(ValueError, match="expected LabelMe's JSON"):
        from_labelme([])  # type: ignore[arg-type]


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    labelme(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    [shape] = content["shapes"]
    other = {**shape, "points": [[20, 3], [30, 3], [30, 9]]}
    content["shapes"] = [{**one, "group_id": 3} for one in (shape, other)]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert len(open_dataset(tmp_path, "train")[0].target) == 1


def test_label_maps_of_pascal_voc_have_its_classes_and_an_ignored_seam(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    data = open_dataset(tmp_path, "train")
    assert (data.task, len(data.class_names), data.class_names[15]) == ("semantic", 21, "person")
    assert data.palette[1] == (128, 0, 0)
    labels = data[0].target.labels
    assert sorted(labels.unique().tolist()) == [0, 15, 255]
    assert int(labels[5, 5]) == 15


def test_coloured_masks_are_read_by_their_labelmap(tmp_path: Path) -> None:
    cvat_masks(tmp_path)
    data = open_dataset(tmp_path, "val")
    assert data.class_names == ("background", "cup")
    assert torch.equal(data[0].target.labels, square().to(torch.uint8))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("imgs/a.jpg", "masks/a.png"),
        ("images/a.jpg", "masks/a_mask.png"),
        ("img_dir/{}/a.jpg", "ann_dir/{}/a.png"),
        ("{}/images/a.jpg", "{}/masks/a.png"),
        ("{}/a.jpg", "{}_masks/a_mask.gif"),
        ("{}/a.png", "{}annot/a.png"),
        ("images/{}/a_leftImg.png", "labels/{}/a_leftImg_gt.png"),
    ],
)
def test_label_maps_are_found_in_the_folders_of_usual_names(tmp_path: Path, images: str, labels: str) -> None:
    for split in ("train", "val"):
        image(tmp_path / images.format(split))
        path = tmp_path / labels.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square().numpy().astype(np.uint8)).save(path)
    for split in ("train", "val"):
        data = open_dataset(tmp_path, split)  # type: ignore[arg-type]
        assert (len(data), data.class_names) == (1, ("class 0", "class 1"))
        assert torch.equal(data[0].target.labels, square().to(torch.uint8))


def test_a_split_that_is_not_there_is_named_beside_the_one_that_is(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(coco(["a.jpg"])))
    with pytest.raises(
        ValueError, match="none of the layouts below for the split 'val', but one for 'train'"
    ):
        open_dataset(tmp_path, "val")


@pytest.mark.parametrize("split_up", [True, False])
def test_roboflows_semantic_masks_are_found_beside_their_images(tmp_path: Path, split_up: bool) -> None:
    for folder in [tmp_path / "train", tmp_path / "valid"] if split_up else [tmp_path]:
        image(folder / "a.rf.12.jpg")
        Image.fromarray(square().numpy().astype(np.uint8) * 3).save(folder / "a.rf.12_mask.png")
        (folder / "_classes.csv").write_text(
            "Pixel Value, Class\n0, unlabeled\n3, cup\n", encoding="utf-8-sig"
        )
    for split in ("train", "val"):
        data = open_dataset(tmp_path, split)  # type: ignore[arg-type]
        assert (data.task, data.class_names, len(data)) == ("semantic", ("unlabeled", "cup"), 1)
        assert torch.equal(data[0].target.labels, square().to(torch.uint8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Pixel Value, Class\n0, a\nx, b\n",
            "_classes.csv, line 3: expected a number and a name, got 'x, b'",
        ),
        ("Pixel Value, Class\n0, a\n0, b\n", "expected a different number for each class"),
        ("", "expected a different number for each class"),
    ],
)
def test_a_broken_table_of_roboflow_is_named(tmp_path: Path, text: str, message: str) -> None:
    image(tmp_path / "a.jpg")
    Image.fromarray(square().numpy().astype(np.uint8)).save(tmp_path / "a_mask.png")
    (tmp_path / "_classes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "train")


def test_coco_panoptic_is_named_and_how_to_convert_it(tmp_path: Path) -> None:
    image(tmp_path / "train2017" / "a.jpg")
    content = coco(["a.jpg"])
    content["annotations"] = [
        {"image_id": 0, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1, "area": 9}]}
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "panoptic_train2017.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"COCO panoptic annotations, which are not read: panopticapi converts"
    ):
        open_dataset(tmp_path, "train")


def test_a_yolo_data_set_of_boxes_is_refused_as_one_for_detection(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 1: a box .* this is a data set for detection"):
        open_dataset(tmp_path, "train")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"no class names; put data\.yaml or classes\.txt into"):
        open_dataset(tmp_path, "train")


def test_a_refusal_names_the_files_seen_and_what_they_were_taken_for(tmp_path: Path) -> None:
    image(tmp_path / "photos" / "a.jpg")
    (tmp_path / "notes.json").write_text('{"made by": "me"}')
    (tmp_path / "stuff.txt").write_text("x")
    with pytest.raises(ValueError, match=r"It holds") as refused:
        open_dataset(tmp_path, "train")
    said = str(refused.value)
    assert "notes.json: no annotations ({'made by': 'me'})" in said
    assert "photos/: 1 .jpg" in said
    assert "stuff.txt" in said


@pytest.mark.parametrize("export", [labelme, yolo, supervisely])
def test_a_broken_file_of_many_is_named(tmp_path: Path, export: Callable[[Path], None]) -> None:
    export(tmp_path)
    [file] = [*tmp_path.glob("a.json"), *tmp_path.glob("labels/train/a.txt"), *tmp_path.glob("ds/ann/*.json")]
    file.write_text(file.read_text()[:-20] + "x")
    if export is labelme:  # beside a good one: alone it is taken for no annotation at all
        (tmp_path / "b.json").write_text(
            '{"shapes": [], "imagePath": "a.jpg", "imageHeight": 9, "imageWidth": 9}'
        )
    with pytest.raises(ValueError, match=file.name.replace(".", r"\.")):
        open_dataset(tmp_path, "train")
