"""Every format holds the same masks under the data set's own ids, as its readers read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from pointrend.data.build import open_dataset
from pointrend.formats.coco_json import read_coco
from pointrend.formats.labelme import from_labelme
from pointrend.predict import Output, Predictor
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks, InstanceTarget
from tests.masks.readers import read_geojson, read_label_studio, read_voc, read_yolo
from tests.predict.models import Config, Threshold, make_image

NAMES = ("cup", "plate")


def dense() -> Tensor:
    """A ring with an island in its hole, and a square that touches the image's border."""
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, 2:12, 3:13] = True
    masks[0, 4:10, 5:11] = False
    masks[0, 6:8, 7:9] = True
    masks[1, 10:, 15:] = True
    return masks


class Two:
    """Finds a plate and a cup in each image."""

    config = Config(class_names=NAMES)
    origin: Mapping[str, Any] = MappingProxyType({})

    def predict(self, images: Sequence[Tensor]) -> list[InstanceResult]:
        boxes = torch.tensor([[3.0, 2, 13, 12], [15, 10, 24, 16]])
        scores, masks = torch.tensor([0.9, 0.4]), InstanceMasks.from_dense(dense())
        return [InstanceResult(boxes, torch.tensor([1, 0]), scores, masks, NAMES) for _ in images]


class Known(Two):
    """Its checkpoint says which ids the classes had."""

    origin = MappingProxyType({"category_ids": [18, 44]})


def save(folder: Path, *formats: Any, model: Any = None, **options: Any) -> Path:
    """What is written of two images."""
    for name in ("a", "b"):
        make_image(folder / "in" / f"{name}.png")
    output = Output(formats, overlays=False)
    Predictor(model or Two(), device="cpu").save([folder / "in"], folder / "out", output, **options)
    return folder / "out"


def annotations(folder: Path) -> Path:
    """Annotations of the two images with ids of their own, boxes like those that are found."""
    images: list[dict[str, Any]] = [
        {"id": number, "file_name": f"somewhere/{name}.png", "width": 24, "height": 16}
        for number, name in ((70, "b"), (9, "a"))
    ]
    square = [[15, 10, 24, 10, 24, 16, 15, 16]]
    objects = [
        {"id": n, "image_id": image["id"], "category_id": 3, "iscrowd": 0, "bbox": [15, 10, 9, 6], "area": 54}
        | {"segmentation": square}
        for n, image in enumerate(images, 1)
    ]
    categories = [{"id": 3, "name": "cup"}, {"id": 5, "name": "plate"}, {"id": 8, "name": "fork"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


def test_predictions_like_annotations_are_scored_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    scoring = pytest.importorskip("pycocotools.cocoeval")
    truth = annotations(tmp_path)
    plain = save(tmp_path, "coco-results", like=truth) / "predictions.json"
    file = json.loads((save(tmp_path, "coco", like=truth) / "predictions.json").read_text())
    (tmp_path / "list.json").write_text(json.dumps(file["annotations"]))
    plain_list = save(tmp_path, "coco-results", like=truth) / "predictions.json"
    assert plain == plain_list
    official = coco.COCO(str(truth))
    for results in (plain_list, tmp_path / "list.json"):
        found = official.loadRes(str(results))
        scorer = scoring.COCOeval(official, found, "segm")
        scorer.params.catIds = [3]
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
        assert scorer.stats[0] == pytest.approx(1)


def test_ids_of_annotations_are_those_of_images_and_classes_of_these_names(tmp_path: Path) -> None:
    file = json.loads((save(tmp_path, like=annotations(tmp_path)) / "predictions.json").read_text())
    assert {Path(image["file_name"]).name: image["id"] for image in file["images"]} == {
        "a.png": 9,
        "b.png": 70,
    }
    assert file["categories"] == [{"id": 3, "name": "cup"}, {"id": 5, "name": "plate"}]
    assert [(r["image_id"], r["category_id"]) for r in file["annotations"]] == [
        (9, 5),
        (9, 3),
        (70, 5),
        (70, 3),
    ]


def test_annotations_that_lack_a_class_or_an_image_are_refused(tmp_path: Path) -> None:
    truth = annotations(tmp_path)
    content = json.loads(truth.read_text())
    truth.write_text(json.dumps({**content, "categories": content["categories"][:1]}))
    with pytest.raises(ValueError, match="has no category 'plate', which the model predicts"):
        save(tmp_path, like=truth)
    make_image(tmp_path / "in" / "a.png")
    cups = Predictor(Two(), device="cpu", classes=["cup"])
    cups.save([tmp_path / "in"], tmp_path / "cups", like=truth)
    file = json.loads((tmp_path / "cups" / "predictions.json").read_text())
    assert file["categories"] == [{"id": 3, "name": "cup"}]
    make_image(tmp_path / "in" / "c.png")
    with pytest.raises(ValueError, match=r"c\.png: no image of it has this file name"):
        cups.save([tmp_path / "in"], tmp_path / "more", like=truth)
    sources = [make_image(tmp_path / "x" / "a.png"), make_image(tmp_path / "y" / "a.png")]
    with pytest.raises(ValueError, match="two images would be image 9"):
        cups.save(sources, tmp_path / "more", like=truth)


def test_ids_of_the_training_data_come_from_the_checkpoint(tmp_path: Path) -> None:
    file = json.loads((save(tmp_path, model=Known()) / "predictions.json").read_text())
    assert file["categories"] == [{"id": 18, "name": "cup"}, {"id": 44, "name": "plate"}]
    assert {record["category_id"] for record in file["annotations"]} == {18, 44}


@pytest.mark.parametrize("noted", [[1], [1, 1], ["1", "2"], 3, [True, 2]])
def test_ids_in_a_checkpoint_that_are_none_are_left_out(tmp_path: Path, noted: Any) -> None:
    model = Two()
    model.origin = {"category_ids": noted}
    file = json.loads((save(tmp_path, model=model) / "predictions.json").read_text())
    assert [category["id"] for category in file["categories"]] == [1, 2]


def masks_of(result: InstanceResult) -> dict[str, Tensor]:
    return {one.class_name: one.mask for one in result}


def expect_same(masks: dict[str, Tensor]) -> None:
    assert set(masks) == {"plate", "cup"}
    assert torch.equal(masks["plate"], dense()[0])
    assert torch.equal(masks["cup"], dense()[1])


def test_every_format_is_written_at_once_and_reads_back_equal(tmp_path: Path) -> None:
    out = save(tmp_path, "coco", "cvat", "label-studio", "yolo", "voc", "labelme", "geojson", "labels")
    expect_same(masks_of(from_labelme(json.loads((out / "labelme/b.json").read_text()))))
    expect_same(masks_of(read_geojson(json.loads((out / "geojson/b.geojson").read_text()))))
    expect_same(masks_of(read_yolo((out / "yolo/labels/b.txt").read_text(), (16, 24), NAMES)))
    tasks = json.loads((out / "label_studio.json").read_text())
    assert [Path(task["data"]["image"]).name for task in tasks] == ["a.png", "b.png"]
    for task in tasks:
        expect_same(masks_of(read_label_studio(task, (16, 24))))
    classes = np.asarray(Image.open(out / "voc/SegmentationClass/a.png"))
    objects = np.asarray(Image.open(out / "voc/SegmentationObject/a.png"))
    expect_same(masks_of(read_voc(classes, objects, NAMES)))
    labels = np.asarray(Image.open(out / "labels/a.png"))
    assert np.array_equal(labels == 1, dense()[0].numpy())
    assert np.array_equal(labels == 0, dense()[1].numpy())
    assert set(np.unique(labels)) == {0, 1, 255}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_cvat_gets_polygons_under_the_names_of_its_task(tmp_path: Path) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    path = save(tmp_path, "cvat") / "cvat/annotations/instances_default.json"
    file = read_coco(path)
    assert [image.file_name for image in file.images.values()] == ["a.png", "b.png"]
    for record in json.loads(path.read_text())["annotations"]:
        assert record["iscrowd"] == 0
        runs = mask.merge(mask.frPyObjects(record["segmentation"], 16, 24))
        number = {2: 0, 1: 1}[record["category_id"]]
        assert np.array_equal(mask.decode(runs) != 0, dense()[number].numpy())


@pytest.mark.parametrize("form", ["yolo", "voc", "cvat"])
def test_what_was_written_is_training_data_beside_its_images(tmp_path: Path, form: Any) -> None:
    out = save(tmp_path, form) / form
    images = {"yolo": "images", "voc": "JPEGImages", "cvat": "images/default"}[form]
    shutil.copytree(tmp_path / "in", out / images)
    data = open_dataset(f"{out}:instance", "train")
    assert set(data.class_names) == set(NAMES)
    found = data[0].target
    assert isinstance(found, InstanceTarget)
    masks = dict(
        zip((data.class_names[label] for label in found.labels.tolist()), found.masks.dense(), strict=True)
    )
    expect_same(masks)


def test_yolo_and_voc_name_their_classes(tmp_path: Path) -> None:
    out = save(tmp_path, "yolo", "voc")
    assert (out / "yolo/data.yaml").read_text().endswith('names:\n  0: "cup"\n  1: "plate"\n')
    lines = (out / "voc/labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:0,0,0::", "cup:128,0,0::", "plate:0,128,0::"]
    with Image.open(out / "voc/SegmentationClass/a.png") as image:
        assert (image.mode, image.getpalette()[3:6]) == ("P", [128, 0, 0])


def test_label_maps_go_out_as_one_object_a_class(tmp_path: Path) -> None:
    out = save(tmp_path, "coco", "labels", model=Threshold())
    file = json.loads((out / "predictions.json").read_text())
    assert len(file["annotations"]) == 4
    assert {record["area"] for record in file["annotations"]} == {64, 16 * 24 - 64}


def test_formats_that_are_none_or_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"format: expected some of labels, coco, .* got 'xml'"):
        Output(("xml",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose one of them"):
        Output(("coco", "coco-results"))


def cut(out: Path, name: str) -> np.ndarray:
    with Image.open(out / "cutouts" / name) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def test_a_cutout_is_the_object_on_transparency_with_an_edge_of_one_pixel(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")
    predictor = Predictor(Two(), device="cpu")
    predictor.save([source], tmp_path / "out", Output(overlays=False, cutouts="image"))
    rgba = cut(tmp_path / "out", "a.png")
    with Image.open(source) as image:
        assert np.array_equal(rgba[..., :3], np.asarray(image))
    inside = dense()[0].numpy()  # the cup's score is below 0.5
    alpha = rgba[..., 3]
    assert not alpha[~inside].any()
    assert (alpha[inside] >= 127).all()
    everything = Predictor(Two(), device="cpu", min_score=0.0)
    everything.save([source], tmp_path / "all", Output(overlays=False, cutouts="image"))
    alpha = cut(tmp_path / "all", "a.png")[..., 3]
    assert alpha[12, 19] == 255  # more than a pixel from its edge
    assert 127 < alpha[10, 19] < 255  # on it
    assert alpha[15, 23] == 255  # the image's border is none


def test_a_cutout_keeps_the_colour_profile_of_its_image(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open(make_image(tmp_path / "plain.png")) as image:
        image.save(tmp_path / "a.png", icc_profile=profile)
        image.convert("L").save(tmp_path / "grey.png", icc_profile=profile)  # that is none of RGB any more
    predictor, output = Predictor(Two(), device="cpu"), Output(overlays=False, cutouts="image")
    predictor.save([tmp_path / f"{name}.png" for name in ("plain", "a", "grey")], tmp_path / "out", output)
    found = {}
    for path in (tmp_path / "out" / "cutouts").iterdir():
        with Image.open(path) as image:
            found[path.name] = image.info.get("icc_profile")
    assert found == {"plain.png": None, "a.png": profile, "grey.png": None}


def test_objects_are_cut_out_one_by_one(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")
    predictor = Predictor(Two(), device="cpu", min_score=0.0)
    predictor.save([source], tmp_path / "out", Output(overlays=False, cutouts="objects"))
    assert sorted(path.name for path in (tmp_path / "out/cutouts").iterdir()) == [
        "a-1-plate.png",
        "a-2-cup.png",
    ]
    assert cut(tmp_path / "out", "a-2-cup.png").shape == (6, 9, 4)


def test_of_a_label_map_the_background_is_cut_away_or_what_was_not_chosen(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")
    output = Output(overlays=False, cutouts="image")
    named = Predictor(Threshold(Config(class_names=("Background", "bright"))), device="cpu")
    chosen = Predictor(Threshold(), device="cpu", classes=["bright"])
    for number, predictor in enumerate((named, chosen)):
        predictor.save([source], tmp_path / str(number), output)
        assert (cut(tmp_path / str(number), "a.png")[..., 3] > 0).sum() == 64
    neither = Threshold()
    neither.task = "semantic"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"choose what to cut out by --classes \(classes=\): dark, bright"):
        Predictor(neither, device="cpu").save([source], tmp_path / "neither", output)
    assert not (tmp_path / "neither").exists()


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300)])
def test_tiny_and_thin_images_are_cut_out_too(tmp_path: Path, size: tuple[int, int]) -> None:
    class All(Threshold):
        def predict(self, images: Sequence[Tensor]) -> list[SemanticResult]:
            labels = [torch.ones(tuple(image.shape[1:]), dtype=torch.uint8) for image in images]
            return [SemanticResult(one, ("background", "all")) for one in labels]

    Image.new("L", size, 200).save(tmp_path / "a.png")
    predictor = Predictor(All(Config(class_names=("background", "all"))), device="cpu")
    for cutouts in ("image", "objects"):
        predictor.save([tmp_path / "a.png"], tmp_path / cutouts, Output(overlays=False, cutouts=cutouts))
        (path,) = (tmp_path / cutouts / "cutouts").iterdir()
        rgba = cut(tmp_path / cutouts, path.name)
        assert rgba.shape == (size[1], size[0], 4)
        assert (rgba == [200, 200, 200, 255]).all()
