"""ImageNet weights fill a backbone under every publisher's names, completely or not at all."""

from __future__ import annotations

import pickle

import pytest
import torch

from pointrend.checkpoints.detectron2 import BACKBONE
from pointrend.checkpoints.imagenet import CAFFE2, load_imagenet, torchvision_name
from pointrend.checkpoints.key_mapping import reverse, translate
from pointrend.models.backbones import BackboneConfig
from pointrend.models.feature_maps import build_backbone

R50 = BackboneConfig("resnet50", stride_in_1x1=True)


@pytest.fixture(scope="module")
def source():
    """A backbone whose norms have scale and shift alone."""
    backbone = build_backbone(R50)
    for name, buffer in backbone.named_buffers():
        if name.endswith((".weight", ".bias")):
            buffer.uniform_(0.5, 1.5)
    return backbone


def assert_same(one, other):
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())


def test_caffe2_blobs_have_scale_and_shift_alone(source, tmp_path):
    blobs = {"fc1000_w": torch.zeros(2, 2).numpy(), "conv1_w_momentum": torch.zeros(1).numpy()}
    for name, tensor in source.state_dict().items():
        if "running" not in name:
            blobs[translate(name, reverse(CAFFE2))] = tensor.numpy()
    assert None not in blobs
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} <= set(blobs)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, 2))
    backbone = build_backbone(R50)
    load_imagenet(backbone, tmp_path / "R-50.pkl")
    assert_same(source, backbone)


def test_detectron2s_names(source, tmp_path):
    state = {
        translate(f"backbone.{name}", reverse(BACKBONE)).removeprefix("backbone.bottom_up."): tensor.numpy()
        for name, tensor in source.state_dict().items()
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": state}))
    backbone = build_backbone(R50)
    load_imagenet(backbone, tmp_path / "x.pkl")
    assert_same(source, backbone)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("deep", [False, True])
def test_torchvisions_and_openmmlabs_names(tmp_path, norm, deep):
    backbone = build_backbone(BackboneConfig("resnet18", "batch", deep_stem=deep))
    state = {torchvision_name(backbone.config, name): t for name, t in backbone.state_dict().items()}
    torch.save(state | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, tmp_path / "x.pth")
    other = build_backbone(BackboneConfig("resnet18", norm, deep_stem=deep))
    load_imagenet(other, tmp_path / "x.pth")
    assert_same(other, backbone)


def test_another_network_is_refused_and_nothing_is_changed(tmp_path):
    deep = build_backbone(BackboneConfig("resnet18", deep_stem=True))
    torch.save(
        {torchvision_name(deep.config, n): t for n, t in deep.state_dict().items()}, tmp_path / "x.pth"
    )
    plain = build_backbone(BackboneConfig("resnet18"))
    before = plain.res5[0].conv1.weight.clone()
    with pytest.raises(ValueError, match=r"stem.0.weight: expected \(64, 3, 7, 7\), got \(32, 3, 3, 3\)"):
        load_imagenet(plain, tmp_path / "x.pth")
    assert torch.equal(plain.res5[0].conv1.weight, before)
