"""Models made ready to predict: the same numbers from fewer operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pointrend.core.selection import PointSampling
from pointrend.models.backbones import BackboneConfig, FrozenBatchNorm2d
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.feature_maps import build_backbone
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.optimize import fold_norms
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter

NORMS = FrozenBatchNorm2d | nn.BatchNorm2d
SEMANTIC = SemanticConfig(
    class_names=("road", "sky", "tree"),
    backbone=BackboneConfig("resnet18"),
    fpn_channels=8,
    decoder_channels=8,
    decoder_norm="BN",
    point_rend=SemanticPointRendConfig(width=8, sampling=PointSampling(20), num_points=50),
)


def test_a_network_for_some_classes_in_one_line() -> None:
    semantic = SemanticSegmenter(classes=["a", "b"], backbone="resnet18")
    assert semantic.config == SemanticConfig(("a", "b"), backbone=BackboneConfig("resnet18"))
    instance = InstanceSegmenter(classes=2, backbone="resnet18")
    assert instance.config == InstanceConfig(("class 0", "class 1"), backbone=BackboneConfig("resnet18"))


@pytest.mark.parametrize("model", [SemanticSegmenter, InstanceSegmenter])
def test_one_line_and_a_configuration_exclude_each_other(model) -> None:
    config = SEMANTIC if model is SemanticSegmenter else InstanceConfig(("a",))
    for options in ({}, {"config": config, "classes": 2}, {"config": config, "backbone": "resnet18"}):
        with pytest.raises(ValueError, match="either a configuration, or classes"):
            model(**options)


def tiny(task: str):
    if task == "semantic":
        return SemanticSegmenter(SEMANTIC).eval()
    boxes, masks = (
        BoxHeadConfig(width=8, score_threshold=0.0),
        MaskConfig(width=8, coarse_width=8, mask_size=28),
    )
    config = InstanceConfig(("a", "b"), BackboneConfig("resnet18"), fpn_channels=8, boxes=boxes, masks=masks)
    return InstanceSegmenter(replace(config, preprocessing=Preprocessing(short_edge=64))).eval()


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_a_model_is_called_with_one_image_or_several(task) -> None:
    model, image = tiny(task), torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    expected = model.predict([image])[0]
    for found in (model(image), model([image])[0], model(image[None])[0]):
        assert type(found) is type(expected)
        if task == "semantic":
            assert torch.equal(found.labels, expected.labels)
        else:
            assert torch.equal(found.boxes, expected.boxes)


@pytest.mark.parametrize("task", ["semantic", "instance"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_predict_in_the_precision_of_their_weights(task, dtype) -> None:
    model, image = tiny(task), torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    expected = model.predict([image])[0]
    found = model.to(dtype).predict([image])[0]
    if task == "semantic":
        assert (found.labels != expected.labels).float().mean() < 0.1
    else:
        assert torch.isfinite(found.boxes).all()
        assert found.scores.dtype == expected.scores.dtype
        if dtype == torch.float64:
            torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-2, rtol=0)


def test_names_of_classes_are_not_one_word() -> None:
    with pytest.raises(ValueError, match="a list of names"):
        SemanticSegmenter(classes="road")


def test_a_pretrained_backbone_comes_from_the_zoo(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("pointrend.zoo.fill_backbone", lambda backbone, name: asked.append(name))
    SemanticSegmenter(classes=2, backbone="resnet18", pretrained=True)
    InstanceSegmenter(classes=2, backbone="resnet18", pretrained="mine.pth")
    assert asked == ["torchvision/resnet18", "mine.pth"]


def lively(model: nn.Module) -> nn.Module:
    """Norms that do something, as after training."""
    for module in model.modules():
        if isinstance(module, NORMS):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.2)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in model.modules())


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig("resnet18", "batch"),
        BackboneConfig("resnet50", stride_in_1x1=True),
        BackboneConfig("resnet50", deep_stem=True, output_stride=8),
        BackboneConfig("mobilenet_v2", "batch"),
    ],
    ids=lambda config: config.name,
)
@torch.no_grad()
def test_norms_fold_into_convolutions_up_to_rounding(config: BackboneConfig) -> None:
    backbone = lively(build_backbone(config)).double()
    image = torch.randn(1, 3, 33, 48, dtype=torch.float64)
    before, count = backbone(image), norms(backbone)
    assert fold_norms(backbone) == count > 0
    assert norms(backbone) == 0
    for name, level in backbone(image).items():
        torch.testing.assert_close(level, before[name], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_an_optimized_semantic_model_gives_the_same_logits_and_leaves_the_original_alone() -> None:
    model = lively(SemanticSegmenter(SEMANTIC))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    image = torch.randn(1, 3, 64, 96)
    before = model.coarse(model.features(image))
    fast = model.optimize()
    assert norms(fast) == 0
    torch.testing.assert_close(fast.coarse(fast.features(image)), before, atol=1e-4, rtol=1e-4)
    assert norms(model) > 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(model.coarse(model.features(image)), before)


def test_what_is_not_folded_is_shared_with_the_original() -> None:
    model = SemanticSegmenter(SEMANTIC).eval()
    fast = model.optimize()
    assert model.point_rend is not None
    assert fast.point_rend is not None
    ours, theirs = fast.point_rend.head.layers[0], model.point_rend.head.layers[0]
    assert ours is not theirs
    assert ours.weight is theirs.weight


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_optimized_detector_renders_nearly_the_same_masks(tiny_config, precision: str) -> None:
    model = lively(InstanceSegmenter(tiny_config()))
    fast = model.optimize(precision)
    batch = model.prepare([torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)])
    boxes, labels = [torch.tensor([[4.0, 5, 60, 50], [20, 2, 90, 60]])], [torch.tensor([2, 0])]
    exact = model.masks_for_boxes(model.features(batch), boxes, labels)[0]
    features = fast.features(batch)
    assert features["p2"].is_contiguous(memory_format=torch.channels_last)
    assert features["p2"].dtype == getattr(torch, precision)
    masks = fast.masks_for_boxes(features, boxes, labels)[0]
    assert masks.dtype == torch.float32
    close = 1e-3 if precision == "float32" else 0.1
    scale = exact.abs().mean()
    assert ((masks - exact).abs() < close * (scale + exact.abs())).float().mean() > 0.95


def test_half_precision_predicts_results_of_the_usual_types(tiny_config) -> None:
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    detector = lively(InstanceSegmenter(tiny_config())).optimize("bfloat16")
    result = detector.predict([image])[0]
    assert result.boxes.dtype == result.scores.dtype == torch.float32
    labels = SemanticSegmenter(SEMANTIC).eval().optimize("bfloat16").predict([image])[0].labels
    assert labels.shape == (50, 70)
    assert not torch.is_autocast_enabled("cpu")


def test_batched_images_get_what_they_get_alone(tiny_config) -> None:
    model = lively(InstanceSegmenter(tiny_config())).optimize()
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    together = model.predict(images)
    for one, result in zip(images, together, strict=True):
        alone = model.predict([one])[0]
        torch.testing.assert_close(result.boxes, alone.boxes, atol=1e-2, rtol=1e-3)


def test_what_only_predicts_is_neither_trained_nor_saved(tmp_path) -> None:
    from pointrend.checkpoints.native import save

    fast = SemanticSegmenter(replace(SEMANTIC)).optimize()
    with pytest.raises(ValueError, match="only predicts"):
        fast.train()
    with pytest.raises(ValueError, match="save the one"):
        save(fast, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="'auto' or 'float32' or 'bfloat16', got 'int8'"):
        SemanticSegmenter(SEMANTIC).optimize("int8")  # type: ignore[arg-type]


def test_a_norm_without_statistics_is_refused() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(ValueError, match="running statistics"):
        fold_norms(layers)


@torch.no_grad()
def test_coarse_masks_pool_the_same_from_any_layout(tiny_config) -> None:
    model = lively(InstanceSegmenter(tiny_config()))
    level = torch.randn(2, 16, 24, 32)
    regions = [torch.tensor([[-5.0, 3, 40, 99]]), torch.tensor([[1.0, 1, 2, 2], [50, 50, 200, 90]])]
    from pointrend.models.boxes import Regions

    boxes = Regions.from_lists(regions, [torch.zeros(1), torch.zeros(2)])
    pool = model.mask_head.coarse_head.pool
    plain: Tensor = pool(level, 4, boxes)
    table = pool(level.contiguous(memory_format=torch.channels_last), 4, boxes)
    torch.testing.assert_close(table, plain)
