"""Backbones: shapes, both stride conventions, dilation, frozen norms, freezing, pretrained tensors."""

from __future__ import annotations

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from pointrend.checkpoints.imagenet import load_pretrained_backbone, torchvision_name
from pointrend.models.backbones import (
    STAGES,
    BackboneConfig,
    FrozenBatchNorm2d,
)
from pointrend.models.feature_maps import FeaturePyramid, build_backbone
from tests.helpers import DATA

NAMES = ["resnet18", "resnet50", "mobilenet_v2", "resnet10_w16"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_every_stage_has_its_channels_and_stride(name, output_stride):
    backbone = build_backbone(BackboneConfig(name, output_stride=output_stride)).eval()
    features = backbone(torch.randn(1, 3, 64, 96))
    assert list(features) == list(STAGES)
    assert backbone.strides["res5"] == output_stride
    for stage, map_ in features.items():
        stride = backbone.strides[stage]
        assert map_.shape == (1, backbone.channels[stage], 64 // stride, 96 // stride)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (33, 51)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet10_w16"])
def test_sizes_round_up_so_any_image_passes(name, size):
    backbone = build_backbone(BackboneConfig(name)).eval()
    for stage, map_ in backbone(torch.zeros(1, 3, *size)).items():
        assert map_.shape[-2:] == tuple(-(-s // backbone.strides[stage]) for s in size)


def test_it_is_torchvisions_network():
    backbone = build_backbone(BackboneConfig("resnet50", norm="batch")).eval()
    original = torchvision.models.resnet50(weights=None).eval()
    state = {torchvision_name(backbone.config, name): t for name, t in backbone.state_dict().items()}
    assert set(original.state_dict()) - set(state) == {"fc.weight", "fc.bias"}
    original.load_state_dict(state, strict=False)
    x = torch.randn(1, 3, 64, 64)
    expected = original.layer4(
        original.layer3(
            original.layer2(original.layer1(original.maxpool(original.relu(original.bn1(original.conv1(x))))))
        )
    )
    torch.testing.assert_close(backbone(x)["res5"], expected)


def test_stride_in_1x1_moves_the_stride_and_nothing_else():
    msra = build_backbone(BackboneConfig("resnet50", stride_in_1x1=True))
    other = build_backbone(BackboneConfig("resnet50"))
    for stage in ("res3", "res4", "res5"):
        block = getattr(msra, stage)[0]
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
        block = getattr(other, stage)[0]
        assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))
    assert {k: v.shape for k, v in msra.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
    assert msra.res2[0].conv1.stride == (1, 1)


def test_the_deep_stem_has_three_3x3_convolutions():
    stem = build_backbone(BackboneConfig("resnet18", deep_stem=True)).stem
    convs = [m for m in stem if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in convs] == [
        (3, 32, (2, 2)),
        (32, 32, (1, 1)),
        (32, 64, (1, 1)),
    ]


def test_a_dilated_stage_computes_the_strided_one_at_every_cell():
    """Every other cell of the dilated map is the plain map."""
    plain = build_backbone(BackboneConfig("resnet50")).eval()
    dilated = build_backbone(BackboneConfig("resnet50", output_stride=16)).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1024, 8, 8)
    torch.testing.assert_close(dilated.res5[0](x)[..., ::2, ::2], plain.res5[0](x))
    assert dilated.res5[0].conv2.dilation == (1, 1)
    assert dilated.res5[1].conv2.dilation == (2, 2)
    torch.testing.assert_close(dilated.res5(x)[..., ::2, ::2], plain.res5(x))


def test_frozen_norm_is_batch_norm_in_evaluation():
    frozen, batch = FrozenBatchNorm2d(5), nn.BatchNorm2d(5).eval()
    for tensor in frozen.buffers():
        tensor.copy_(torch.rand(5) + 0.5)
    batch.load_state_dict(frozen.state_dict(), strict=False)
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(frozen(x), batch(x))
    assert set(frozen.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    assert not list(frozen.parameters())


def test_a_fresh_frozen_norm_is_the_identity():
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(FrozenBatchNorm2d(3)(x), x, rtol=2e-7, atol=0)


def test_frozen_norm_stays_in_bfloat16_under_autocast():
    """torchvision's returns float32 here."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(1, 3, 4, 4)).dtype == torch.bfloat16
        reference = torchvision.ops.FrozenBatchNorm2d(4)
        assert reference(nn.Conv2d(3, 4, 1)(torch.randn(1, 3, 4, 4))).dtype == torch.float32


def test_freezing_stops_gradients_and_statistics_of_the_first_stages():
    backbone = build_backbone(BackboneConfig("resnet18", norm="batch"))
    backbone.freeze(2)
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))["res5"].sum().backward()
    for name, p in backbone.named_parameters():
        assert (p.grad is None) == name.startswith(("stem", "res2"))
    changed = {k.split(".")[0] for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"res3", "res4", "res5"}
    backbone.freeze(0)
    assert all(p.requires_grad for p in backbone.parameters())
    assert backbone.stem.training


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"expected one of .*resnet18.*vgg"):
        BackboneConfig("vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="output_stride"):
        BackboneConfig(output_stride=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no bottleneck"):
        BackboneConfig("resnet18", stride_in_1x1=True)
    with pytest.raises(ValueError, match="deep_stem"):
        BackboneConfig("mobilenet_v2", deep_stem=True)
    with pytest.raises(ValueError, match=r"0 \(nothing\) to 5"):
        build_backbone(BackboneConfig("resnet18")).freeze(6)


def test_the_pyramid_keeps_each_levels_size_even_if_odd():
    backbone = build_backbone(BackboneConfig("resnet18")).eval()
    features = backbone(torch.randn(1, 3, 70, 41))
    maps = FeaturePyramid(backbone.channels, channels=16, extra_level=True)(features)
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    for i in "2345":
        assert maps[f"p{i}"].shape == (1, 16, *features[f"res{i}"].shape[-2:])
    torch.testing.assert_close(maps["p6"], maps["p5"][..., ::2, ::2])


def test_the_pyramid_takes_consecutive_stages_only():
    channels = build_backbone(BackboneConfig("resnet18")).channels
    assert list(FeaturePyramid(channels, ("res3", "res4", "res5"))(_features(channels))) == ["p3", "p4", "p5"]
    for levels in [(), ("stem", "res2"), ("res2", "res4"), ("res3", "res2"), ("p2",)]:
        with pytest.raises(ValueError, match="consecutive stages"):
            FeaturePyramid(channels, levels)


def _features(channels):
    return {name: torch.randn(1, c, 2**i, 2**i) for i, (name, c) in enumerate(reversed(channels.items()))}


def _folded_file(backbone, path, stages=STAGES):
    """A random file of folded convolutions under torchvision's names, for the given stages."""
    tensors = {}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(tuple(stages)):
            key = torchvision_name(backbone.config, name)
            tensors[f"{key}.weight"] = torch.randn_like(module.weight).half()
            tensors[f"{key}.bias"] = torch.randn(module.out_channels).half()
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_folded_tensors_compute_convolution_plus_bias(name, norm, tmp_path):
    backbone = build_backbone(BackboneConfig(name, norm=norm)).eval()
    tensors = _folded_file(backbone, tmp_path / "w.safetensors")
    left = load_pretrained_backbone(backbone, tmp_path / "w.safetensors")
    assert [name for name in left if "num_batches_tracked" not in name] == []
    first = "features.0.0" if name == "mobilenet_v2" else "conv1"
    x = torch.randn(1, 3, 16, 16)
    conv = torch.nn.functional.conv2d(
        x,
        tensors[f"{first}.weight"].float(),
        tensors[f"{first}.bias"].float(),
        stride=2,
        padding=1 if name == "mobilenet_v2" else 3,
    )
    stem = backbone.stem[0] if name == "mobilenet_v2" else backbone.stem
    torch.testing.assert_close(stem(x), conv.clamp(0, 6) if name == "mobilenet_v2" else conv.relu())


def test_missing_stages_are_left_and_reported(tmp_path):
    backbone = build_backbone(BackboneConfig("resnet18"))
    before = backbone.res5[0].conv1.weight.clone()
    _folded_file(backbone, tmp_path / "w.safetensors", STAGES[:-1])
    left = load_pretrained_backbone(backbone, tmp_path / "w.safetensors")
    assert left == [name for name in backbone.state_dict() if name.startswith("res5.")]
    torch.testing.assert_close(backbone.res5[0].conv1.weight, before)


def test_another_networks_tensors_are_refused_by_name_and_shape(tmp_path):
    _folded_file(build_backbone(BackboneConfig("resnet18")), tmp_path / "w.safetensors")
    backbone = build_backbone(BackboneConfig("resnet50"))
    before = backbone.stem[0].weight.clone()
    with pytest.raises(ValueError, match=r"layer1.0.conv1: expected weight \(64, 64, 1, 1\)"):
        load_pretrained_backbone(backbone, tmp_path / "w.safetensors")
    torch.testing.assert_close(backbone.stem[0].weight, before)
    save_file({"unrelated.weight": torch.zeros(1)}, tmp_path / "u.safetensors")
    with pytest.raises(ValueError, match="unrelated: no such convolution"):
        load_pretrained_backbone(backbone, tmp_path / "u.safetensors")


@pytest.mark.parametrize(
    ("name", "file", "left"),
    [
        ("mobilenet_v2", "mobilenetv2_features_bnfolded_fp16.safetensors", ()),
        ("resnet18", "resnet18_conv1_to_layer3_bnfolded_fp16.safetensors", ("res5.",)),
    ],
)
def test_the_shared_imagenet_tensors_load(name, file, left):
    path = DATA / "weights" / file
    if not path.exists():
        pytest.skip(f"{path} is not there; set POINTREND_DATA")
    backbone = build_backbone(BackboneConfig(name)).eval()
    missing = load_pretrained_backbone(backbone, path)
    assert [n for n in missing if not n.startswith(left or "?")] == []
    assert bool(missing) == bool(left)
    total = sum(t.numel() for n, t in load_file(path).items() if not n.startswith("features.18.0"))
    filled = sum(
        t.numel()
        for n, t in backbone.state_dict().items()
        if n not in missing and (n.endswith("bias") or t.dim() == 4)
    )
    assert filled == total


def test_the_narrow_network_is_a_quarter_as_wide_and_small():
    backbone = build_backbone(BackboneConfig("resnet10_w16", norm="batch"))
    wide = build_backbone(BackboneConfig("resnet18"))
    assert backbone.channels == {name: count // 4 for name, count in wide.channels.items()}
    assert sum(p.numel() for p in backbone.parameters()) < 320_000
    with pytest.raises(ValueError, match="deep_stem=False"):
        BackboneConfig("resnet10_w16", deep_stem=True)
    with pytest.raises(ValueError, match="no bottleneck blocks"):
        BackboneConfig("resnet10_w16", stride_in_1x1=True)


def test_the_stem_of_r_103_is_wider_and_res2_takes_its_128_channels():
    backbone = build_backbone(BackboneConfig("resnet50", deep_stem=True, stem_width=64))
    assert [conv.out_channels for conv in backbone.stem if isinstance(conv, nn.Conv2d)] == [64, 64, 128]
    assert backbone.res2[0].conv1.in_channels == backbone.res2[0].downsample[0].in_channels == 128
    features = backbone(torch.zeros(1, 3, 33, 40))
    assert features["res2"].shape == (1, 256, 9, 10)


@pytest.mark.parametrize(("stride", "expected"), [(16, [2, 4, 8]), (8, [4, 8, 16])])
def test_multi_grid_dilates_the_blocks_of_res5_one_by_one(stride, expected):
    """As Detectron2's DeepLab: RES5_DILATION times RES5_MULTI_GRID."""
    backbone = build_backbone(BackboneConfig("resnet50", output_stride=stride, multi_grid=(1, 2, 4)))
    assert [block.conv2.dilation[0] for block in backbone.res5] == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"stem_width": 64},
        {"stem_width": 48, "deep_stem": True},
        {"name": "resnet18", "stem_width": 64, "deep_stem": True},
        {"multi_grid": (1, 2, 4)},
    ],
)
def test_stems_and_grids_that_no_network_has_are_refused(settings):
    with pytest.raises(ValueError, match=r"stem_width|multi_grid"):
        BackboneConfig(**settings)
