"""Mutate files of every format that is read, and check that each ends in a right answer or in one clear line.

    python tools/fuzz.py --count 10000 --seed 0

A mutation passes if the reader refuses it by a `ValueError` that our own code raises, of one line that names the file,
or if it reads it and an independent reader (pycocotools, Pillow, numpy, safetensors) gets the same. Anything else is a
finding: another exception, a library's own, a library's warning, an answer that differs, more than ten seconds. The
inputs of findings are kept in --keep. docs/reliability.md has the figures.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import io
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from safetensors.torch import load_file

import pointrend
from pointrend.app.label_session import LabelSession
from pointrend.checkpoints.external import read_foreign
from pointrend.data.build import open_dataset
from pointrend.data.coco import CocoInstances
from pointrend.data.decode import ignore_warnings_of_pillow
from pointrend.data.image_io import read_image
from pointrend.data.label_io import read_labels
from pointrend.evaluation.coco_ap import CocoEvaluator
from pointrend.evaluation.external_results import read_detections
from pointrend.formats.cityscapes_polygons import write_label_files

ROOT = Path(pointrend.__file__).parent
HEIGHT, WIDTH = 24, 32
SECONDS = 10.0
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        0.5,
        -0.5,
        1.5,
        1e9,
        -1e9,
        1e300,
        10**30,
        float("nan"),
        float("inf"),
    ),
    *("", " ", "1", "0.5", "nan", "a", "é", "\x00", "../../x", "C:\\x\\a.png", "a.png", "x" * 300),
    *(
        [],
        [[]],
        [0],
        [1, 2, 3, 4],
        [[1, 2]],
        [[0, 0, 5, 0, 5, 5]],
        {},
        {"a": 1},
        {"size": [24, 32], "counts": "0"},
    ),
]


class Wrong(AssertionError):
    """An answer that the independent reader does not give."""


@dataclass
class Family:
    """Files of one kind: how they are made, mutated and read."""

    name: str
    weight: int
    make: Callable[[Path], None]
    """Write good files into a folder."""
    target: str
    """The file of them that is mutated."""
    read: Callable[[Path], None]
    """Read the folder; raises `Wrong` where the answer is not right."""
    json: bool = False
    counts: Counter[str] = field(default_factory=Counter)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """The value with one to three nodes replaced, taken out, doubled or exchanged."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        nodes = list(_containers(value))
        if not nodes:
            return rng.choice(ODD)
        node = rng.choice(nodes)
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        how = rng.random()
        if how < 0.6:
            node[key] = copy.deepcopy(rng.choice(ODD))
        elif how < 0.75:
            del node[key]
        elif how < 0.85 and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif isinstance(node[key], int | float) and not isinstance(node[key], bool):
            node[key] = node[key] * rng.choice((-1, 0, 0.01, 2, 1000)) + rng.choice((0, 1, -1, 0.5))
        else:
            node[key] = copy.deepcopy(rng.choice(list(_values(value))))
    return value


def _containers(value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def _values(value: Any) -> Any:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changed, a piece cut out, doubled or overwritten, or the end cut off."""
    data = bytearray(content)
    how = rng.random()
    if how < 0.5:
        for _ in range(rng.choice((1, 2, 8, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif how < 0.7:
        del data[rng.randrange(len(data)) :]
    else:
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.choice((1, 4, 20, 200)))
        piece = bytes(data[start:stop])
        if how < 0.8:
            del data[start:stop]
        elif how < 0.9:
            data[start:start] = piece
        else:
            data[start:stop] = bytes(rng.randrange(256) for _ in piece)
    return bytes(data)


def write_image(path: Path, seed: int = 0, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT)).save(path, **options)


# COCO annotations ------------------------------------------------------------------------------------------------


def coco_content() -> dict[str, Any]:
    bits = np.zeros((HEIGHT, WIDTH), np.uint8)
    bits[4:12, 5:20] = 1
    packed = coco_mask.encode(np.asfortranarray(bits))
    plain = {"size": [HEIGHT, WIDTH], "counts": [100, 10, 14, 10, HEIGHT * WIDTH - 134]}
    shapes = [
        ([[2.5, 2, 20, 3, 15, 18.25]], [2.5, 2, 17.5, 16.25]),
        ({"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}, [5, 4, 15, 8]),
        (plain, [4, 4, 2, 10]),
        ([[1, 1, 9, 1, 9, 9, 1, 9], [12, 12, 20, 12, 20, 20]], [1, 1, 19, 19]),
    ]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH, "license": 1} for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cup", "supercategory": "thing"}, {"id": 5, "name": "plate"}],
        "annotations": [
            {
                "id": n + 1,
                "image_id": 1 + n % 2,
                "category_id": (1, 5)[n % 2],
                "segmentation": shape,
                "bbox": box,
                "area": 50.0,
                "iscrowd": int(n == 2),
            }
            for n, (shape, box) in enumerate(shapes)
        ],
    }


def make_coco(root: Path) -> None:
    for number in (1, 2):
        write_image(root / "train" / f"{number}.png", number)
    (root / "instances_train.json").write_text(json.dumps(coco_content()))


def read_coco_data(root: Path) -> None:
    data = open_dataset(root, "train")
    assert isinstance(data, CocoInstances)
    mended = data.inspection is not None and bool(data.inspection.faults)
    samples = [data[index] for index in range(len(data))]
    if mended:
        return  # said by a warning; the official code refuses such files or reads them otherwise
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO()
        official.dataset = json.loads((root / "instances_train.json").read_bytes())
        official.createIndex()
    for sample in samples:
        expected = []
        for item in official.loadAnns(official.getAnnIds(imgIds=[sample.image_id])):
            mask = official.annToMask(item)
            box = np.clip(
                [*item["bbox"][:2], item["bbox"][0] + item["bbox"][2], item["bbox"][1] + item["bbox"][3]],
                0,
                [WIDTH, HEIGHT] * 2 if mask.shape == (HEIGHT, WIDTH) else [*mask.shape[::-1]] * 2,
            )
            if mask.any() and box[2] - box[0] > 1e-5 and box[3] - box[1] > 1e-5:
                expected.append(mask)
        found = sample.target.masks.dense().numpy().astype(np.uint8)
        if len(found) != len(expected) or any((a != b).any() for a, b in zip(found, expected, strict=True)):
            raise Wrong(f"image {sample.image_id}: masks differ from pycocotools'")


def pointed_content() -> dict[str, Any]:
    """The objects with three labelled points in place of their masks."""
    content = coco_content()
    points = {"point_coords": [[3, 4], [15, 18], [0, 0]], "point_labels": [1, 1, 0]}
    records = [
        {k: v for k, v in one.items() if k != "segmentation"} | points for one in content["annotations"]
    ]
    return content | {"annotations": records}


def make_points(root: Path) -> None:
    make_coco(root)
    (root / "instances_train_n3_v1_without_masks.json").write_text(json.dumps(pointed_content()))


def read_points(root: Path) -> None:
    data = open_dataset(f"{root}:points", "train")
    assert isinstance(data, CocoInstances)
    samples = [data[index] for index in range(len(data))]
    if data.inspection is not None and data.inspection.faults:
        return
    records = json.loads((root / "instances_train_n3_v1_without_masks.json").read_bytes())["annotations"]
    for sample in samples:
        target, own = sample.target, [one for one in records if one["image_id"] == sample.image_id]
        if len(target) == len(own) and target.points is not None:
            expected = [[[x + 0.5, y + 0.5] for x, y in one.get("point_coords") or []] for one in own]
            known = [pair for pair in zip(target.points.coords.tolist(), expected, strict=True) if pair[1]]
            if any(found != wanted for found, wanted in known):
                raise Wrong(f"image {sample.image_id}: points differ from the file's")


def make_labelling(root: Path) -> None:
    make_coco(root)
    content = pointed_content()
    done, *left = content["annotations"]
    left = [{k: v for k, v in one.items() if not k.startswith("point_")} for one in left]
    work = {"points": 3, "seed": 1, "draw": True, "pending": left, "skipped": [], "done_drawing": [1]}
    (root / "points.json").write_text(json.dumps(content | {"annotations": [done], "labelling": work}))


def read_labelling(root: Path) -> None:
    work = LabelSession(root / "train", root / "points.json", {}, points=3, seed=1)
    while (task := work.task())["object"] is not None:
        work.image(task["image"])
        work.answer(task["object"], [1, 0, 1], 1.0)
    work.undo()


# Annotation tools --------------------------------------------------------------------------------------------------


def png_text(mask: np.ndarray, packed: bool = False) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    content = zlib.compress(buffer.getvalue()) if packed else buffer.getvalue()
    return base64.b64encode(content).decode()


def make_labelme(root: Path) -> None:
    write_image(root / "a.png")
    mask = np.ones((5, 6), np.uint8) * 255
    shapes = [
        {"label": "cup", "points": [[2, 2], [20, 3], [15, 18]], "shape_type": "polygon", "group_id": None},
        {"label": "cup", "points": [[20, 20], [28, 10]], "shape_type": "rectangle", "group_id": 1},
        {"label": "plate", "points": [[10, 10], [14, 10]], "shape_type": "circle"},
        {"label": "plate", "points": [[3, 4], [8, 8]], "shape_type": "mask", "mask": png_text(mask)},
        {"label": "line", "points": [[3, 4], [8, 8]], "shape_type": "line"},
    ]
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": "a.png", "imageData": None}
    (root / "a.json").write_text(json.dumps({**content, "imageHeight": HEIGHT, "imageWidth": WIDTH}))


def make_supervisely(root: Path) -> None:
    write_image(root / "ds" / "img" / "a.png")
    (root / "ds" / "ann").mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text('{"classes": [{"title": "cup"}]}')
    mask = np.ones((5, 6), np.uint8) * 255
    objects = [
        {
            "classTitle": "cup",
            "geometryType": "bitmap",
            "bitmap": {"data": png_text(mask, True), "origin": [4, 3]},
        },
        {
            "classTitle": "cup",
            "geometryType": "polygon",
            "points": {"exterior": [[1, 1], [20, 2], [20, 20]], "interior": [[[8, 5], [12, 5], [12, 9]]]},
        },
        {
            "classTitle": "plate",
            "geometryType": "rectangle",
            "points": {"exterior": [[1, 1], [9, 7]], "interior": []},
        },
    ]
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
    (root / "ds" / "ann" / "a.png.json").write_text(json.dumps(content))


def read_objects(root: Path) -> None:
    """Every sample is read; masks lie inside the image and have pixels."""
    for split in ("train", "val"):
        data = open_dataset(f"{root}:instance", split)  # type: ignore[arg-type]
        for index in range(len(data)):
            sample = data[index]
            masks = sample.target.masks.dense()
            if masks.shape[1:] != sample.image.shape[1:] or (
                len(masks) and not masks.flatten(1).any(1).all()
            ):
                raise Wrong("a mask without pixels, or of another size than its image")


def make_yolo(root: Path) -> None:
    write_image(root / "images" / "train" / "a.png")
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    lines = ["0 0.1 0.1 0.8 0.1 0.5 0.9", "1 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4"]
    (root / "labels" / "train" / "a.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("names: [cup, plate]\nnc: 2\n")


def read_yolo(root: Path) -> None:
    data = open_dataset(root, "train")
    assert isinstance(data, CocoInstances)
    lines = (root / "labels" / "train" / "a.txt").read_text(encoding="utf-8-sig").splitlines()
    numbers = [np.array(line.split(), dtype=float) for line in lines if line.strip()]
    [objects] = data.file.objects.values()
    if len(objects) != len(numbers):
        raise Wrong(f"{len(objects)} objects of {len(numbers)} lines")
    for item, own in zip(objects, numbers, strict=True):
        points = own[1:].reshape(-1, 2) * (WIDTH, HEIGHT)
        assert item.shape is not None
        if not np.allclose(item.shape.rings[0], points) or item.category_id != own[0] + 1:  # type: ignore[union-attr]
            raise Wrong("an outline differs from its line")
    if len(data):
        data[0]


PHOTO = "2007_000032"
"""As Pascal VOC names its images."""


def make_voc(root: Path) -> None:
    write_image(root / "JPEGImages" / f"{PHOTO}.png")
    classes, objects = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2))
    classes[2:10, 2:10], classes[12:20, 12:30] = 15, 7
    objects[2:10, 2:10], objects[12:20, 12:30] = 1, 2
    for name, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / name / f"{PHOTO}.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{PHOTO}\n")


# Label maps, images ------------------------------------------------------------------------------------------------


def make_labels(kind: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write_image(root / "images" / "a.png")
        (root / "labels").mkdir(parents=True, exist_ok=True)
        values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 40 % 5).astype(np.uint8)
        image = Image.fromarray(values.astype(np.uint16) if kind == "16" else values)
        if kind == "palette":
            image = image.convert("P")
            image.putpalette([value for n in range(256) for value in (n, 255 - n, n // 2)])
        image.save(root / "labels" / ("a.tif" if kind == "tiff" else "a.png"))
        (root / "classes.json").write_text(json.dumps({"classes": list("abcde")}))

    return make


def read_label_maps(root: Path) -> None:
    data = open_dataset(root, "train")
    path = next((root / "labels").iterdir())
    labels = data[0].target.labels.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            expected = np.array(image)
    if labels.shape != expected.shape or (labels != expected).any():
        raise Wrong("labels differ from Pillow's")
    if (read_labels(path).numpy() != expected).any():
        raise Wrong("numbers differ from Pillow's")


# Benchmarks as released --------------------------------------------------------------------------------------------

STREET = "a/a_000000_000000"
STREET_IDS = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
"""Cityscapes' 19 classes, in order; the things among them are the last eight."""


def make_streets(root: Path) -> None:
    ids = np.full((HEIGHT, WIDTH), 7)
    ids[:6], ids[0, 0], ids[8:14, 2:9], ids[8:14, 9:16], ids[18:22, 20:28] = 23, 3, 26000, 26001, 24
    write_image(root / "leftImg8bit" / "train" / f"{STREET}_leftImg8bit.png")
    labels = np.where(ids >= 1000, ids // 1000, ids)
    for name, values in (("labelIds", labels.astype(np.uint8)), ("instanceIds", ids.astype(np.uint16))):
        path = root / "gtFine" / "train" / f"{STREET}_gtFine_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def read_street_labels(root: Path) -> None:
    found = open_dataset(root, "train")[0].target.labels.numpy()
    ids = pillow_numbers(root / "gtFine" / "train" / f"{STREET}_gtFine_labelIds.png")
    expected = np.full(ids.shape, 255)
    for number, own in enumerate(STREET_IDS):
        expected[ids == own] = number
    if found.shape != expected.shape or (found != expected).any():
        raise Wrong("classes differ from the ids' that Pillow reads")


def read_street_objects(root: Path) -> None:
    target = open_dataset(f"{root}:instance", "train")[0].target
    ids = pillow_numbers(root / "gtFine" / "train" / f"{STREET}_gtFine_instanceIds.png")
    expected = [ids == own for own in np.unique(ids) if own >= 1000 and own // 1000 in STREET_IDS[-8:]]
    found = target.masks.dense().numpy()[~target.crowd.numpy()]
    if len(found) != len(expected) or any((a != b).any() for a, b in zip(found, expected, strict=True)):
        raise Wrong("objects differ from the ids that Pillow reads")


def make_polygons(root: Path) -> None:
    write_image(root / "leftImg8bit" / "train" / f"{STREET}_leftImg8bit.png")
    path = root / "gtFine" / "train" / f"{STREET}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [("road", [[0, 8], [31, 8], [31, 23], [0, 23]]), ("car", [[4, 9], [12, 9], [12, 16], [4, 16]])]
    objects = [{"label": label, "polygon": ring} for label, ring in shapes]
    path.write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}))


def draw_and_read_streets(root: Path) -> None:
    write_label_files(root, "train")
    ids = pillow_numbers(root / "gtFine" / "train" / f"{STREET}_gtFine_labelIds.png")
    if ids.shape != (HEIGHT, WIDTH) or int(ids.max()) > 33:
        raise Wrong("a label that Cityscapes does not have")
    read_street_labels(root)


def pillow_numbers(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


def make_ade20k(root: Path) -> None:
    write_image(root / "images" / "training" / "a.png")
    (root / "annotations" / "training").mkdir(parents=True, exist_ok=True)
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 5 % 151).astype(np.uint8)
    Image.fromarray(values).save(root / "annotations" / "training" / "a.png")
    (root / "objectInfo150.txt").write_text("")


def read_ade20k(root: Path) -> None:
    found = open_dataset(root, "train")[0].target.labels.numpy()
    expected = (pillow_numbers(root / "annotations" / "training" / "a.png") - 1) % 256
    if found.shape != expected.shape or (found != expected).any():
        raise Wrong("classes differ from the numbers that Pillow reads")


def make_lvis(root: Path) -> None:
    content = coco_content()
    for image in content["images"]:
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image['id']}.png"
        image |= {"neg_category_ids": [1], "not_exhaustive_category_ids": []}
        write_image(root / "train2017" / f"{image['id']}.png", image["id"])
    synsets = (
        {"id": 1, "name": "cup", "synset": "cup.n.01"},
        {"id": 5, "name": "acorn", "synset": "acorn.n.01"},
    )
    content["categories"] = list(synsets)
    for item in content["annotations"]:
        del item["iscrowd"]
    (root / "lvis_v1_train.json").write_text(json.dumps(content))


def read_lvis(root: Path) -> None:
    data = open_dataset(root, "train")
    content = json.loads((root / "lvis_v1_train.json").read_bytes())
    for index in range(len(data)):
        sample = data[index]
        # What is wrong with an object of a class that COCO does not have is not looked at.
        own = [one for one in content["annotations"] if one.get("image_id") == sample.image_id]
        masks = [official_mask(one) for one in own]
        for mask in sample.target.masks.dense().numpy():
            if not any(other is not None and (other == mask).all() for other in masks):
                raise Wrong(f"image {sample.image_id}: a mask that is none of pycocotools'")


def official_mask(record: Any) -> np.ndarray | None:
    """pycocotools' mask of an object of an image; None where it reads none."""
    shape = record.get("segmentation")
    with contextlib.suppress(Exception):
        if isinstance(shape, list) or isinstance(shape["counts"], list):
            shape = coco_mask.frPyObjects(shape, HEIGHT, WIDTH)
        return coco_mask.decode(coco_mask.merge(shape) if isinstance(shape, list) else shape)
    return None


def make_roboflow_masks(root: Path) -> None:
    write_image(root / "train" / "a.png")
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 40 % 3).astype(np.uint8)
    Image.fromarray(values).save(root / "train" / "a_mask.png")
    (root / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, unlabeled\n1, cup\n2, plate\n")


def make_image(name: str, **options: Any) -> Callable[[Path], None]:
    return lambda root: write_image(root / name, **options)


def read_one_image(root: Path) -> None:
    path = next(root.iterdir())
    found = read_image(path).permute(1, 2, 0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            image.load()
            if image.mode not in ("RGB", "L", "P", "1") or image.has_transparency_data:
                return
            if image.getexif().get(0x0112, 1) != 1:
                return
            expected = np.array(image.convert("RGB"))
    if found.shape != expected.shape or (found != expected).any():
        raise Wrong("pixels differ from Pillow's")


# Tables, lists -----------------------------------------------------------------------------------------------------


def make_table(root: Path) -> None:
    make_labels("8")(root)
    table = {"classes": list("abcde"), "ignore_label": 255, "ids": [0, 1, 2, 3, 4]}
    (root / "classes.json").write_text(
        json.dumps({**table, "palette": [[n, 2 * n, 3 * n] for n in range(5)]})
    )


def make_list(root: Path) -> None:
    make_labels("8")(root)
    (root / "train.txt").write_text("images/a.png labels/a.png\nimages\\a.png\tlabels\\a.png\n")


def read_semantic(root: Path) -> None:
    data = open_dataset(root, "train")
    for index in range(len(data)):
        labels = data[index].target.labels
        if bool(((labels >= len(data.class_names)) & (labels != 255)).any()):
            raise Wrong("a label that is no class")


# Results, checkpoints ----------------------------------------------------------------------------------------------


def detections() -> list[dict[str, Any]]:
    records = []
    for number, item in enumerate(coco_content()["annotations"]):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[3 : 10 + number, 4:20] = 1
        packed = coco_mask.encode(np.asfortranarray(mask))
        rle = {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}
        own = {key: item[key] for key in ("image_id", "category_id")}
        records.append(
            {**own, "score": 0.9 - number / 10, "bbox": [4, 3, 16, 7 + number], "segmentation": rle}
        )
    return records


def make_results(root: Path) -> None:
    make_coco(root)
    (root / "results.json").write_text(json.dumps(detections()))


def make_predictions(root: Path) -> None:
    make_coco(root)
    content = coco_content()
    for number, (record, item) in enumerate(zip(detections(), content["annotations"], strict=True)):
        item.update(record, id=number + 1)
    (root / "results.json").write_text(json.dumps(content))


def read_results(root: Path) -> None:
    data = open_dataset(root, "train")
    truth = data.as_coco()
    assert truth is not None
    records = read_detections(root / "results.json", data)
    scorer = CocoEvaluator(truth, metrics=("mask",))
    scorer.update(records, source=str(root / "results.json"))
    scores = scorer.compute()
    found = [record for one in scorer._detections.values() for record in one]
    for record in found:
        rle = record["segmentation"]
        if (
            int(
                coco_mask.area(
                    coco_mask.frPyObjects(rle, HEIGHT, WIDTH) if isinstance(rle["counts"], list) else rle
                )
            )
            != (record["area"])
        ):
            raise Wrong("an area differs from pycocotools'")
    if not all(value != value or 0 <= value <= 1 for value in scores.values()):
        raise Wrong("a score outside of 0..1")


MODEL = tempfile.mkdtemp(prefix="fuzz-model-")


def tiny_model() -> Path:
    path = Path(MODEL) / "m.safetensors"
    if not path.exists():
        from pointrend.models.backbones import BackboneConfig
        from pointrend.models.semantic import SemanticPointRendConfig

        torch.manual_seed(0)
        config = pointrend.SemanticConfig(
            ("sky", "road"),
            backbone=BackboneConfig("resnet18"),
            fpn_channels=8,
            decoder_channels=16,
            point_rend=SemanticPointRendConfig(width=8),
        )
        model = pointrend.SemanticSegmenter(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half().float())
        pointrend.save(model, path)
        torch.save({"model": model.state_dict(), "epoch": 3}, path.with_suffix(".pth"))
    return path


def make_checkpoint(suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / f"m{suffix}").write_bytes(tiny_model().with_suffix(suffix).read_bytes())

    return make


def save_checkpoint_again(path: Path, rng: random.Random) -> None:
    """The checkpoint as another training or version would have written it: a good file, if not always of ours."""
    how = rng.randrange(6)
    if path.suffix == ".safetensors":
        model = pointrend.load(str(path))
        names = ("sky", "road") if how % 2 else ("é" * rng.randrange(1, 40), "b")
        model.config = replace(model.config, class_names=names)
        if how < 3:
            model.to((torch.float16, torch.bfloat16, torch.float64)[how])
        with torch.no_grad():
            tensor = rng.choice(list(model.parameters()))
            tensor.mul_(rng.choice((0.0, -1.0, 1e-3, float("nan"), float("inf"))))
        pointrend.save(model, path, extra={"note": "x" * rng.randrange(100)})
        return
    content = torch.load(path, weights_only=True)
    state = content.pop("model")
    name = rng.choice(list(state))
    if how == 0:
        state[name] = state[name].to(rng.choice((torch.float16, torch.float64, torch.int32, torch.bfloat16)))
    elif how == 1:
        state = {f"module.{own}": tensor for own, tensor in state.items()}
    elif how == 2:
        state[name] = state[name].flatten()[: rng.randrange(1, 4)]
    elif how == 3:
        del state[name]
    elif how == 4:
        state[name] = (
            torch.full_like(state[name], rng.choice((float("nan"), 0.0, 1e30)))
            if state[name].is_floating_point()
            else state[name]
        )
    else:
        state[rng.choice(("extra", "", "a.b", name + "."))] = torch.zeros(rng.randrange(3))
    key = rng.choice(("model", "state_dict", "model_state_dict", "net", "module"))
    more = rng.choice(
        ({}, {"epoch": 3}, {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}})
    )
    torch.save({key: state, **more}, path, _use_new_zipfile_serialization=rng.random() < 0.7)


def read_checkpoint(root: Path) -> None:
    path = next(root.iterdir())
    if path.suffix == ".pth":
        found_tensors = read_foreign(path).tensors
        content = torch.load(path, weights_only=True)
        official = next(
            value for key, value in content.items() if isinstance(value, dict) and key != "optimizer"
        )
        for name, tensor in official.items():
            if not torch.equal(found_tensors[name.removeprefix("module.")], tensor):
                raise Wrong("a tensor differs from torch.load's")
        return
    model = pointrend.load(str(path))
    found = model.state_dict()
    for name, values in load_file(path).items():
        if name in found and not torch.equal(found[name], values.to(found[name].dtype)):
            raise Wrong(f"tensor {name} differs from safetensors'")


def read_train(root: Path) -> None:
    data = open_dataset(root, "train")
    for index in range(len(data)):
        data[index]


FAMILIES = [
    Family("COCO annotations", 25, make_coco, "instances_train.json", read_coco_data, json=True),
    Family(
        "labelled points", 4, make_points, "instances_train_n3_v1_without_masks.json", read_points, json=True
    ),
    Family("files of pointrend label", 3, make_labelling, "points.json", read_labelling, json=True),
    Family("COCO results", 6, make_results, "results.json", read_results, json=True),
    Family("COCO predictions", 4, make_predictions, "results.json", read_results, json=True),
    Family("labelme", 9, make_labelme, "a.json", read_objects, json=True),
    Family("Supervisely", 6, make_supervisely, "ds/ann/a.png.json", read_objects, json=True),
    Family("YOLO text", 6, make_yolo, "labels/train/a.txt", read_yolo),
    Family("YOLO data.yaml", 2, make_yolo, "data.yaml", read_train),
    Family("Pascal VOC object maps", 3, make_voc, f"SegmentationObject/{PHOTO}.png", read_objects),
    Family("Pascal VOC class maps", 2, make_voc, f"SegmentationClass/{PHOTO}.png", read_objects),
    Family("Roboflow masks", 2, make_roboflow_masks, "train/a_mask.png", read_semantic),
    Family("Roboflow _classes.csv", 1, make_roboflow_masks, "train/_classes.csv", read_semantic),
    Family(
        "Cityscapes labels", 3, make_streets, f"gtFine/train/{STREET}_gtFine_labelIds.png", read_street_labels
    ),
    Family(
        "Cityscapes instances",
        3,
        make_streets,
        f"gtFine/train/{STREET}_gtFine_instanceIds.png",
        read_street_objects,
    ),
    Family(
        "Cityscapes polygons",
        4,
        make_polygons,
        f"gtFine/train/{STREET}_gtFine_polygons.json",
        draw_and_read_streets,
        json=True,
    ),
    Family("ADE20K", 2, make_ade20k, "annotations/training/a.png", read_ade20k),
    Family("LVIS annotations", 5, make_lvis, "lvis_v1_train.json", read_lvis, json=True),
    Family("classes.json", 3, make_table, "classes.json", read_semantic, json=True),
    Family("lists of pairs", 2, make_list, "train.txt", read_semantic),
    Family("label maps, 8 bits", 5, make_labels("8"), "labels/a.png", read_label_maps),
    Family("label maps, 16 bits", 3, make_labels("16"), "labels/a.png", read_label_maps),
    Family("label maps, palette", 3, make_labels("palette"), "labels/a.png", read_label_maps),
    Family("label maps, TIFF", 2, make_labels("tiff"), "labels/a.tif", read_label_maps),
    *(
        Family(f"images, {name[2:]}", 2, make_image(name, **options), name, read_one_image)
        for name, options in {
            "a.png": {},
            "a.jpg": {},
            "a.webp": {},
            "a.tif": {"compression": "tiff_lzw"},
            "a.gif": {},
            "a.bmp": {},
            "a.avif": {},
        }.items()
        if name != "a.avif" or Image.registered_extensions().get(".avif") is not None
    ),
    Family("checkpoints, safetensors", 4, make_checkpoint(".safetensors"), "m.safetensors", read_checkpoint),
    Family("checkpoints, pickle", 3, make_checkpoint(".pth"), "m.pth", read_checkpoint),
]


def outcome(family: Family, folder: Path) -> str:
    """What a reader made of the folder; "read" and "refused" are right, all else is a finding."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            ignore_warnings_of_pillow()  # as the package does in every process
            family.read(folder)
        strange = [one for one in seen if not _ours(one)]
        answer = f"warning of a library: {strange[0].message}" if strange else "read"
    except Wrong as error:
        answer = f"silently wrong: {error}"
    except Exception as error:
        answer = judged(error, folder)
    if time.perf_counter() - started > SECONDS:
        answer = f"slow: {time.perf_counter() - started:.0f} s"
    return answer


def _ours(warning: Any) -> bool:
    # The last is pycocotools' own, of the independent reader.
    known = ("read as meant", "grey images of 16 bits", "__array__")
    return any(text in str(warning.message) for text in known)


def judged(error: Exception, folder: Path) -> str:
    """Whether an exception is one clear line of our own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    if not isinstance(error, ValueError) or str(ROOT) not in last.filename:
        return f"{type(error).__name__} at {where}: {str(error)[:100]}"
    text = str(error)
    if str(folder) not in text and "classes" not in text and "no such file" not in text:
        return f"names no file at {where}: {text[:100]}"
    own = text.split("and a data set is one of")[0]  # a refusal of a layout lists what the folder holds
    if ("\n" in own and "It holds" not in own) or len(own) > 1500:
        return f"not one line at {where}: {text[:100]}"
    return f"refused: {text[:200]}"


def save_again(path: Path, rng: random.Random) -> None:
    """The image in another mode, size, depth or with other values: a good file, if not always of what is expected."""
    with Image.open(path) as image:
        image.load()
        kept = image.format or "PNG"
        pixels: Any = image.copy()
    how = rng.randrange(6)
    if how == 0:
        pixels = pixels.convert(rng.choice(("L", "P", "RGB", "RGBA", "LA", "1", "CMYK", "I", "F")))
    elif how == 1:
        pixels = pixels.resize((rng.randrange(1, 60), rng.randrange(1, 60)), Image.Resampling.NEAREST)
    elif how == 2:
        values = np.array(pixels.convert("L")).astype(np.uint16) * rng.choice((1, 7, 250))
        pixels = Image.fromarray(values)
    elif how == 3:
        pixels = Image.fromarray(np.array(pixels.convert("L")) // rng.choice((1, 2, 50)))
    exif = Image.Exif()
    if how == 4:
        exif[0x0112] = rng.randrange(0, 10)
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):  # the format has no such mode
        buffer = io.BytesIO()
        pixels.save(buffer, format=kept if rng.random() < 0.8 else "PNG", exif=exif)
        path.write_bytes(buffer.getvalue())


def rewritten(text: str, rng: random.Random) -> bytes:
    """The same text as another editor writes it."""
    how = rng.randrange(4)
    if how == 0:
        return text.encode("utf-8-sig")
    if how == 1:
        return text.replace("\n", "\r\n").encode()
    if how == 2:
        return text.replace("/", "\\" if ".png" in text and "{" not in text else "/").encode() + b"\n\n"
    return text.encode("utf-16")


def mutate(family: Family, folder: Path, rng: random.Random) -> None:
    path = folder / family.target
    content = path.read_bytes()
    if path.suffix in (".safetensors", ".pth") and rng.random() < 0.6:
        save_checkpoint_again(path, rng)
    elif path.suffix in (".png", ".tif", ".jpg", ".webp", ".gif", ".bmp") and rng.random() < 0.4:
        save_again(path, rng)
    elif path.suffix in (".json", ".txt", ".yaml", ".csv") and rng.random() < 0.15:
        path.write_bytes(rewritten(content.decode(), rng))
    elif family.json and rng.random() < 0.8:
        path.write_text(json.dumps(mutated_json(json.loads(content), rng)), encoding="utf-8")
    else:
        path.write_bytes(mutated_bytes(content, rng))


def run(count: int, seed: int, keep: Path | None, only: str = "", *, say: bool = False) -> int:
    """Run so many mutations over all families; how many findings there were."""
    families = [family for family in FAMILIES if only in family.name]
    total = sum(family.weight for family in families)
    findings = 0
    print("| files | read | refused | findings |\n| --- | ---: | ---: | ---: |")
    for family in families:
        for number in range(-1, max(1, round(count * family.weight / total))):
            with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
                folder = Path(name)
                family.make(folder)
                if number >= 0:
                    mutate(family, folder, random.Random(f"{seed} {family.name} {number}"))
                answer = outcome(family, folder)
                if number < 0 and answer == "read":  # what is not mutated has to be read
                    continue
                good = number >= 0 and answer.partition(": ")[0] in ("read", "refused")
                family.counts[answer.partition(": ")[0] if good else "finding"] += 1
                if say and good:
                    print(f"{family.name} {number}: {answer}", flush=True)
                if not good:
                    findings += 1
                    print(f"{family.name} {number}: {answer}", flush=True)
                    if keep is not None:
                        target = keep / f"{family.name.replace(' ', '-').replace(',', '')}-{number}"
                        target.mkdir(parents=True, exist_ok=True)
                        (target / Path(family.target).name).write_bytes((folder / family.target).read_bytes())
        show(family.name, family.counts)
    every = sum((family.counts for family in families), Counter())
    show("**all**", every)
    return findings


def show(name: str, row: Counter[str]) -> None:
    """A row of the table."""
    print(f"| {name} | {row['read']} | {row['refused']} | {row['finding']} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=10_000, help="mutations in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("--only", default="", help="families whose names contain this")
    parser.add_argument("--say", action="store_true", help="print what became of every mutation")
    options = parser.parse_args()
    return 1 if run(options.count, options.seed, options.keep, options.only, say=options.say) else 0


if __name__ == "__main__":
    sys.exit(main())
