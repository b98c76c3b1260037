"""Detectron2's checkpoints load strictly, in all their name variants, and are written as Detectron2 wants
them.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointrend.checkpoints.detectron2 import ALIASES, _rows, from_detectron2, infer_config, to_detectron2
from pointrend.checkpoints.key_mapping import reverse, translate
from pointrend.core import PointSampling
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.zoo import ZOO

PREPROCESSING = Preprocessing(std=(1.0, 1.0, 1.0), channel_order="BGR", short_edge=800, long_edge=1333)
INSTANCE = InstanceConfig(
    ("class 0", "class 1", "class 2"),
    BackboneConfig("resnet18"),
    PREPROCESSING,
    fpn_channels=8,
    freeze_stages=2,
    boxes=BoxHeadConfig(width=8),
    masks=MaskConfig(width=8, coarse_width=8),
)
SEMANTIC = SemanticConfig(
    ("class 0", "class 1", "class 2"),
    (),
    BackboneConfig("resnet18"),
    replace(PREPROCESSING, short_edge=1024, long_edge=2048),
    fpn_channels=8,
    decoder_channels=16,
    point_rend=SemanticPointRendConfig(width=8, depth=2, coarse_each_layer=False, subdivision_steps=2),
)
CONFIGS = {
    "pointrend": INSTANCE,
    "agnostic": replace(INSTANCE, masks=replace(INSTANCE.masks, class_agnostic=True, depth=1)),
    "coarse": replace(INSTANCE, mask_head="coarse"),
    "conv28": replace(
        INSTANCE, mask_head="conv28", masks=MaskConfig(width=8, train_on_predicted_boxes=False)
    ),
    "implicit": replace(
        INSTANCE,
        mask_head="implicit",
        masks=replace(INSTANCE.masks, sampling=PointSampling.uniform(196), train_on_predicted_boxes=False),
    ),
    "semantic": SEMANTIC,
}


def model_of(config):
    return (InstanceSegmenter if isinstance(config, InstanceConfig) else SemanticSegmenter)(config)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "x.pkl"
    to_detectron2(model_of(INSTANCE), path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, written):
    (tmp_path / "x.pkl").write_bytes(written)
    return tmp_path / "x.pkl"


def content(path):
    return pickle.loads(path.read_bytes())["model"]


def rewrite(path, arrays):
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_what_is_written_for_detectron2_comes_back_exactly(kind, tmp_path):
    model = model_of(CONFIGS[kind])
    to_detectron2(model, tmp_path / "x.pkl")
    loaded = from_detectron2(tmp_path / "x.pkl")
    assert loaded.config == CONFIGS[kind]
    assert not loaded.training
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_the_names_written_are_detectron2s(reference, path):
    shapes = json.loads((reference / "detectron2/shapes/pointrend_rcnn_R_50_FPN_3x_coco.json").read_text())
    small = content(path)
    heads = {name for name in shapes if not name.startswith("backbone.bottom_up")}
    assert {name for name in small if not name.startswith("backbone.bottom_up")} == heads
    # ResNet-18 has two convolutions in a block and no shortcut in res2.
    assert {n for n in small if ".conv3." not in n} <= set(shapes) | {
        "backbone.bottom_up.res2.0.conv1.weight"
    }


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.project == "Detectron2"])
def test_the_published_architectures_are_read_off_their_shapes(reference, name):
    """Shapes only: the tensors are on the meta device."""
    file = reference / "detectron2" / "shapes" / f"{name}.json"
    if not file.exists():
        pytest.skip("its shapes are not in the reference")
    shapes = json.loads(file.read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    published = ZOO[name].config()
    found = infer_config(tensors, published.class_names)
    if name.endswith("cityscapes"):  # its test size and colours leave no trace
        found = replace(found, preprocessing=published.preprocessing)
    if isinstance(published, SemanticConfig):
        found = replace(found, palette=published.palette)
    assert found == published
    assert infer_config(tensors).class_names[:2] == ("class 0", "class 1")
    with pytest.raises(
        ValueError, match=rf"class names: expected {published.num_classes}, one a class, got 1"
    ):
        infer_config(tensors, ("cat",))


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.project == "Detectron2"])
def test_the_names_and_shapes_written_are_detectron2s_for_every_published_model(reference, name):
    file = reference / "detectron2" / "shapes" / f"{name}.json"
    if not file.exists():
        pytest.skip("its shapes are not in the reference")
    shapes = {key: tuple(shape) for key, shape in json.loads(file.read_text()).items()}
    with torch.device("meta"):
        state = model_of(ZOO[name].config()).state_dict()
    rows = reverse(_rows(ZOO[name].config()))
    assert {translate(ours, rows): tuple(tensor.shape) for ours, tensor in state.items()} == shapes


def test_names_of_2020_load(path):
    """Three variants at once: heads beside each other, other layer names, and buffers that are gone today."""
    arrays = content(path)
    expected = from_detectron2(path).state_dict()
    old = {}
    for name, array in arrays.items():
        name = name.replace("mask_head.coarse_head.fc", "mask_head.coarse_head.coarse_mask_fc")
        name = name.replace("mask_head.coarse_head", "mask_coarse_head")
        old[name.replace("mask_head.point_head", "mask_point_head")] = array
    for level in range(5):
        old[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = np.zeros((3, 4), np.float32)
    old["pixel_mean"] = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    old["pixel_std"] = np.ones((3, 1, 1), np.float32)
    rewrite(path, old)
    model = from_detectron2(path)
    assert model.config == INSTANCE
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())
    assert len(ALIASES) == 3


def test_stored_pixel_statistics_win_over_the_published(path):
    arrays = content(path)
    arrays["pixel_mean"] = np.array([1.0, 2.0, 3.0], np.float32)
    arrays["pixel_std"] = np.array([4.0, 5.0, 6.0], np.float32)
    rewrite(path, arrays)
    preprocessing = from_detectron2(path).config.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((3.0, 2.0, 1.0), (6.0, 5.0, 4.0))


def test_a_checkpoint_of_ones_own_training_loads(path):
    state = {name: torch.from_numpy(array.copy()) for name, array in content(path).items()}
    torch.save({"model": state, "optimizer": {"state": {}}, "iteration": 89999}, path.with_suffix(".pth"))
    assert from_detectron2(path.with_suffix(".pth")).config == INSTANCE


def test_unknown_missing_and_misshaped_tensors_are_errors(path):
    good = content(path)
    rewrite(path, good | {"roi_heads.keypoint_head.conv1.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"unknown: roi_heads.keypoint_head.conv1.weight \(2, 2\)"):
        from_detectron2(path)
    rewrite(path, {name: array for name, array in good.items() if "anchor_deltas" not in name})
    with pytest.raises(ValueError, match=r"missing: rpn.deltas.weight \(12, 8, 1, 1\)"):
        from_detectron2(path)
    rewrite(path, good | {"roi_heads.box_predictor.bbox_pred.bias": np.zeros(7, np.float32)})
    with pytest.raises(ValueError, match=r"box_head.deltas.bias: expected \(12,\), got \(7,\)"):
        from_detectron2(path)


def test_other_architectures_are_errors(path):
    good = content(path)
    rewrite(path, {"conv1_w": np.zeros((64, 3, 7, 7), np.float32)})
    with pytest.raises(ValueError, match="not a PointRend or Mask R-CNN"):
        from_detectron2(path)
    rewrite(path, {name: array for name, array in good.items() if ".res4.1." not in name})
    with pytest.raises(ValueError, match=r"\[2, 2, 1, 2\] blocks"):
        from_detectron2(path)


def test_a_configuration_may_be_given_instead_of_inferred(path):
    changed = replace(
        INSTANCE, class_names=("cat", "dog", "cow"), masks=replace(INSTANCE.masks, num_points=100)
    )
    assert from_detectron2(path, config=changed).config == changed


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (replace(INSTANCE, backbone=BackboneConfig("mobilenet_v2")), "MobileNetV2"),
        (replace(INSTANCE, backbone=BackboneConfig("resnet10_w16")), "a narrow ResNet"),
        (replace(INSTANCE, backbone=BackboneConfig("resnet18", "batch")), "trained batch norm"),
        (replace(INSTANCE, masks=replace(INSTANCE.masks, residual=True)), "a residual point head"),
        (replace(SEMANTIC, point_rend=None), "without point head"),
        (
            replace(SEMANTIC, decoder="deeplab", point_rend=SemanticPointRendConfig(("res2",), width=8)),
            "DeepLabV3",
        ),
        (replace(SEMANTIC, decoder_norm="BN"), "batch norm in the semantic head"),
        (replace(SEMANTIC, coarse_stride=8), "a coarse stride of its own"),
    ],
)
def test_models_that_detectron2_does_not_have_are_not_written(config, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        to_detectron2(model_of(config), tmp_path / "x.pkl")
    assert not list(tmp_path.iterdir())
