"""Backbones of timm and torchvision by name, in both of our models: maps, sizes, freezing, weights from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pointrend
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import with_backbone
from pointrend.models.feature_maps import build_backbone
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
from pointrend.structures import SemanticTarget
from pointrend.training.finetune import change_classes
from pointrend.zoo import fill_backbone

TORCHVISION = ["swin_t", "efficientnet_b0", "regnet_y_400mf", "mobilenet_v3_small"]
TIMM = [
    "convnext_atto",
    "swin_tiny_patch4_window7_224",  # channels-last maps, windows
    "vit_tiny_patch16_224",  # class token, one map
    "vit_small_patch14_reg4_dinov2",  # patches of 14 pixels, registers
    "efficientnet_b0",
    "resnet10t",
    "mobilevit_xxs",
]


def backbone(name: str, **changes):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return build_backbone(BackboneConfig(name, **changes))


@pytest.mark.parametrize("name", [*(f"torchvision/{n}" for n in TORCHVISION), *(f"timm/{n}" for n in TIMM)])
def test_maps_have_their_channels_and_strides_for_any_size(name: str) -> None:
    network = backbone(name).eval()
    assert {"res2", "res3", "res4", "res5"} <= set(network.channels)
    for size in [(64, 96), (33, 51), (1, 1)]:
        with torch.no_grad():
            maps = network(torch.randn(1, 3, *size))
        assert set(maps) == set(network.channels)
        for stage, one in maps.items():
            stride = network.strides[stage]
            assert one.shape == (1, network.channels[stage], -(-size[0] // stride), -(-size[1] // stride))
    assert [network.strides[stage] for stage in ("res2", "res3", "res4", "res5")] == [4, 8, 16, 32]


def test_torchvisions_maps_are_those_of_its_classifier() -> None:
    network = backbone("torchvision/efficientnet_b0", norm="batch").eval()
    from torchvision.models import efficientnet_b0

    original = efficientnet_b0(weights=None).eval()
    weights = dict(zip(original.features.state_dict(), network.network.state_dict().values(), strict=False))
    original.features.load_state_dict(weights, strict=False)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network(x)["res5"], original.features[:-1](x))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/convnext_atto"])
def test_frozen_stages_are_the_first_ones(name: str) -> None:
    network = backbone(name, norm="batch")
    for stages in (0, 2, 3, 5):
        network.freeze(stages)
        network.train()
        reached = {}
        maps = network(torch.randn(1, 3, 64, 64))
        for stage, one in maps.items():
            reached[stage] = one.requires_grad
        frozen = ("stem", "res2", "res3", "res4", "res5")[:stages]
        assert reached == {stage: stage not in frozen for stage in maps}
        maps_sum = sum(one.sum() for one in maps.values())
        if stages < 5:
            maps_sum.backward()
    with pytest.raises(ValueError, match="expected 0"):
        network.freeze(6)


def test_a_plain_transformer_is_frozen_whole_or_not_at_all() -> None:
    network = backbone("timm/vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="none to freeze one by one"):
        network.freeze(2)
    network.freeze(5)
    assert not any(one.requires_grad for one in network.parameters())


def test_norm_frozen_keeps_the_statistics_of_batch_norms() -> None:
    network = backbone("torchvision/efficientnet_b0").train()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    network(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    network.freeze(0)
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(one.weight.requires_grad or one.training for one in norms)


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/resnet10t", "timm/convnext_atto"])
def test_weights_come_from_a_file_of_the_whole_network(name: str, tmp_path: Path) -> None:
    library, _, network = name.partition("/")
    if library == "timm":
        original = pytest.importorskip("timm").create_model(network, pretrained=False)
    else:
        import torchvision

        original = torchvision.models.get_model(network, weights=None)
    save_file(original.state_dict(), tmp_path / "weights.safetensors")
    ours = backbone(name)
    fill_backbone(ours, tmp_path / "weights.safetensors")
    theirs = {
        one.sum().item()
        for one in original.state_dict().values()
        if one.is_floating_point() and one.ndim == 4
    }
    filled = [one for one in ours.network.state_dict().values() if one.is_floating_point() and one.ndim == 4]
    assert filled
    assert all(one.sum().item() in theirs for one in filled)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        fill_backbone(ours, tmp_path / "other.safetensors")


def test_pixels_are_normalised_as_the_library_has_it() -> None:
    pytest.importorskip("timm")
    config = with_backbone(SemanticConfig(("a", "b")), BackboneConfig("timm/vit_tiny_patch16_224"))
    assert config.preprocessing.mean == (127.5, 127.5, 127.5)
    config = with_backbone(SemanticConfig(("a", "b")), BackboneConfig("torchvision/swin_t"))
    assert config.preprocessing.std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/convnext_atto"])
def test_a_semantic_model_learns_is_saved_optimized_and_changes_classes(name: str, tmp_path: Path) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    config = SemanticConfig(("a", "b"), fpn_channels=16, decoder_channels=16)
    config = with_backbone(config, BackboneConfig(name, norm="batch"))
    model = SemanticSegmenter(config)
    image = torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8)
    losses = model.train().loss([image], [SemanticTarget(torch.zeros(40, 70, dtype=torch.int64))])
    sum(losses.values()).backward()
    assert all(one.grad is not None for one in model.backbone.parameters() if one.requires_grad)
    model.eval()
    labels = model(image).labels
    model.save_pretrained(tmp_path)
    assert torch.equal(pointrend.load(tmp_path)(image).labels, labels)
    assert (model.optimize()(image).labels == labels).float().mean() > 0.99
    _, transfer = change_classes(model, ("b", "c", "d"))
    assert transfer.known == ("b",)
    assert not transfer.reinitialised


def test_an_instance_model_on_a_library_backbone(tiny_config, target, tmp_path: Path) -> None:
    config = replace(tiny_config(), backbone=BackboneConfig("torchvision/mobilenet_v3_small", "batch"))
    model = pointrend.InstanceSegmenter(config)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    losses = model.train().loss([image], [target((64, 96), [(5, 5, 40, 40)])])
    assert all(torch.isfinite(one) for one in losses.values())
    model.eval()
    before = model(image)
    pointrend.save(model, tmp_path / "model.safetensors")
    assert torch.equal(pointrend.load(tmp_path / "model.safetensors")(image).boxes, before.boxes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("torchvision/nothing", {}, "torchvision has no network nothing"),
        ("torchvision/vit_b_16", {}, "no sequence of features"),
        ("torchvision/vgg11", {}, "expected maps of strides 4, 8, 16 and 32"),
        ("timm/nothing", {}, "timm has no network nothing"),
        ("timm/hf-hub:someone/net", {}, "timm has no network"),
        ("keras/resnet50", {}, "timm/NAME or torchvision/NAME"),
        ("timm/convnext_atto", {"deep_stem": True}, "deep_stem: not for timm/convnext_atto"),
        ("torchvision/swin_t", {"output_stride": 16}, "output_stride: not for torchvision/swin_t"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(name: str, changes, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        build_backbone(BackboneConfig(name, **changes))


def test_dilated_convolutions_of_timm() -> None:
    network = backbone("timm/resnet10t", output_stride=16).eval()
    assert network.strides["res5"] == 16
    assert network(torch.zeros(1, 3, 64, 64))["res5"].shape[-2:] == (4, 4)
