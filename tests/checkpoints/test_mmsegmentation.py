"""MMSegmentation's checkpoints of both generations load strictly and bring their class names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointrend.checkpoints.key_mapping import reverse, translate
from pointrend.checkpoints.openmmlab import SEMANTIC, from_mmsegmentation, infer_semantic
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.zoo import ZOO

CONFIG = SemanticConfig(
    ("class 0", "class 1", "class 2"),
    (),
    BackboneConfig("resnet18", "batch", deep_stem=True),
    Preprocessing(short_edge=1024, long_edge=2048, resize="cv2", divisor=1),
    fpn_channels=8,
    decoder_channels=16,
    decoder_norm="BN",
    predictor_std=0.01,
    loss_normalize="all",
    point_rend=SemanticPointRendConfig(width=8, num_points=8196, subdivision_steps=2),
)
NAMES, PALETTE = ("sky", "sea", "land"), ((0, 0, 255), (0, 255, 255), (0, 255, 0))


@pytest.fixture(scope="module")
def model():
    return SemanticSegmenter(CONFIG)


@pytest.fixture
def state(model):
    """The model's tensors under MMSegmentation's names."""
    return {translate(name, reverse(SEMANTIC)): tensor.clone() for name, tensor in model.state_dict().items()}


def write(tmp_path, state, meta=None, **options):
    torch.save({"meta": meta or {}, "state_dict": state}, tmp_path / "x.pth", **options)
    return tmp_path / "x.pth"


@pytest.mark.parametrize("new", [True, False])
def test_both_serialisations_load_exactly(tmp_path, state, model, new):
    loaded = from_mmsegmentation(write(tmp_path, state, _use_new_zipfile_serialization=new))
    assert loaded.config == CONFIG
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": NAMES, "PALETTE": [list(colour) for colour in PALETTE], "mmseg_version": "0.5.1"},
        {"dataset_meta": {"classes": list(NAMES), "palette": PALETTE}},
    ],
)
def test_class_names_and_palette_of_both_generations(tmp_path, state, meta):
    config = from_mmsegmentation(write(tmp_path, state, meta)).config
    assert config == replace(CONFIG, class_names=NAMES, palette=PALETTE)


@pytest.mark.parametrize(
    "meta", [{"CLASSES": ("too", "few")}, {"PALETTE": [[1, 2]] * 3}, {"dataset_meta": 3}, {"CLASSES": None}]
)
def test_odd_metadata_is_passed_over(tmp_path, state, meta):
    assert from_mmsegmentation(write(tmp_path, state, meta)).config == CONFIG


def test_numpy_in_the_metadata_is_passed_over(tmp_path, state):
    meta = {"CLASSES": NAMES, "hook": {"best": np.float32(0.5)}}
    assert from_mmsegmentation(write(tmp_path, state, meta)).config.class_names == NAMES


def test_a_bare_state_dict_of_a_distributed_training_loads(tmp_path, state):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "x.pth")
    assert from_mmsegmentation(tmp_path / "x.pth").config == CONFIG


def test_a_plain_stem_loads(tmp_path):
    config = replace(CONFIG, backbone=BackboneConfig("resnet18", "batch"))
    plain = {}
    for name, tensor in SemanticSegmenter(config).state_dict().items():
        name = name.replace("backbone.stem.0.", "backbone.conv1.").replace(
            "backbone.stem.1.", "backbone.bn1."
        )
        plain[translate(name, reverse(SEMANTIC)) or name] = tensor
    assert from_mmsegmentation(write(tmp_path, plain)).config == config


def test_unknown_missing_and_misshaped_tensors_are_errors(tmp_path, state):
    with pytest.raises(ValueError, match=r"unknown: auxiliary_head.conv_seg.weight"):
        from_mmsegmentation(write(tmp_path, state | {"auxiliary_head.conv_seg.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"decode_head\.1\.fcs\.0\.conv\.weight"):
        from_mmsegmentation(write(tmp_path, {k: v for k, v in state.items() if "decode_head.1" not in k}))
    with pytest.raises(ValueError, match=r"decoder.predictor.bias: expected \(3,\), got \(4,\)"):
        from_mmsegmentation(write(tmp_path, state | {"decode_head.0.conv_seg.bias": torch.zeros(4)}))


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.project == "MMSegmentation"])
def test_the_published_architectures_are_read_off_their_shapes(reference, name):
    depth = name.split("_")[1]
    stem = f"{depth}_{name.split('_')[3].partition('-')[0]}"
    found = sorted((reference / "mmsegmentation").rglob(f"shapes_{stem}.json"))
    if not found:
        pytest.skip("its shapes are not in the reference")
    shapes = json.loads(found[0].read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    published = ZOO[name].config()
    found = infer_semantic(tensors, {"PALETTE": published.palette}, published.class_names)
    # ADE20K's test size leaves no trace.
    assert replace(found, preprocessing=published.preprocessing) == published
    assert infer_semantic(tensors).class_names[:2] == ("class 0", "class 1")
