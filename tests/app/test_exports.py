"""Files to take away hold what was shown, and can be read by others."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks
from torch import Tensor

from pointrend.app.exports import Exportable, coco_json, exportable, label_png, outline_svg
from pointrend.app.instance_session import InstanceSession
from pointrend.app.types import Rendering, Settings
from pointrend.models.instance import InstanceSegmenter
from pointrend.results import InstanceResult, SemanticResult

# pycocotools is not yet made for NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SVG = "{http://www.w3.org/2000/svg}"


def filled(path: str, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The pixels inside an SVG path of closed rings, by the even-odd rule."""
    inside = np.zeros((height, width), dtype=bool)
    for ring in path.replace("Z", "").split("M")[1:]:
        corners = [tuple(float(v) - 0.5 for v in corner.split()) for corner in ring.split("L")]
        canvas = Image.new("1", (8 * width, 8 * height))
        ImageDraw.Draw(canvas).polygon([(8 * x + 4, 8 * y + 4) for x, y in corners], fill=1)
        inside ^= np.asarray(canvas)[4::8, 4::8]
    return inside


def test_the_label_png_gives_the_labels_back(labels: Rendering) -> None:
    image = Image.open(io.BytesIO(label_png(exportable(labels, "a.png"))))
    assert image.mode == "P"
    assert isinstance(labels.result, SemanticResult)
    assert (np.asarray(image) == labels.result.labels.numpy()).all()


def test_the_label_png_of_objects_numbers_them_best_on_top(objects: Rendering) -> None:
    numbers = np.asarray(Image.open(io.BytesIO(label_png(exportable(objects, "a.png")))))
    assert isinstance(objects.result, InstanceResult)
    dense = objects.result.masks.dense().numpy()
    assert (numbers == np.where(dense.any(0), dense.argmax(0) + 1, 0)).all()


def test_coco_json_gives_the_same_masks_by_its_own_decoder(objects: Rendering) -> None:
    content = json.loads(coco_json(exportable(objects, "crowd.png")))
    assert content["images"] == [{"id": 1, "file_name": "crowd.png", "height": 90, "width": 157}]
    assert isinstance(objects.result, InstanceResult)
    assert len(content["annotations"]) == len(objects.result)
    for annotation, mask in zip(content["annotations"], objects.result.masks, strict=True):
        decoded = coco_masks.decode(annotation["segmentation"])
        assert (decoded == mask.numpy()).all()
        assert annotation["area"] == decoded.sum()
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = [names[annotation["category_id"]] for annotation in content["annotations"]]
    assert found == [objects.result.class_names[i] for i in objects.result.labels.tolist()]


def test_classes_become_masks_with_their_mean_probability(labels: Rendering) -> None:
    content = json.loads(coco_json(exportable(labels, "a.png")))
    assert isinstance(labels.result, SemanticResult)
    assert labels.probability is not None
    total = np.zeros((90, 157), dtype=int)
    for annotation in content["annotations"]:
        mask = coco_masks.decode(annotation["segmentation"])
        total += mask
        assert (labels.result.labels.numpy()[mask == 1] == annotation["category_id"] - 1).all()
        assert annotation["score"] == pytest.approx(
            float(labels.probability[torch.from_numpy(mask == 1)].mean()), abs=1e-4
        )
    assert (total == 1).all()


def test_svg_outlines_enclose_exactly_the_masks(objects: Rendering) -> None:
    root = ElementTree.fromstring(outline_svg(exportable(objects, "a.png")))
    assert root.get("viewBox") == "0 0 157 90"
    paths = root.findall(f"{SVG}path")
    assert isinstance(objects.result, InstanceResult)
    masks = [mask.numpy() for mask in objects.result.masks if mask.any()]
    shapes = [path.get("d") or "" for path in paths]
    for shape, mask in list(zip([s for s in shapes if s], masks, strict=True))[:5]:
        assert (filled(shape, 157, 90) == mask).all()


def test_class_names_cannot_break_out_of_the_svg(objects: Rendering) -> None:
    evil = ('"><script>alert(1)</script>', "\x00&", *["plain"] * 3)
    assert isinstance(objects.result, InstanceResult)
    named = replace(objects.result, class_names=evil)
    content = outline_svg(exportable(replace(objects, result=named), "a.png"))
    root = ElementTree.fromstring(content)
    assert not root.findall(f".//{SVG}script")
    assert {path.get("data-class") for path in root} <= {evil[0], "&", "plain"}


def test_an_image_without_objects_gives_files_without_objects(
    instances: InstanceSegmenter, image: Tensor
) -> None:
    empty: Exportable = exportable(InstanceSession(instances, image).render(Settings(28, 98, 1.1)), "a.png")
    assert json.loads(coco_json(empty))["annotations"] == []
    assert not ElementTree.fromstring(outline_svg(empty)).findall(f"{SVG}path")
    assert not np.asarray(Image.open(io.BytesIO(label_png(empty)))).any()
