"""PointRend on networks of other libraries: learns, predicts, is scored, explained, saved and loaded like our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import pointrend
from pointrend.checkpoints.native import build
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.models import require
from pointrend.models.attached import AttachedSegmenter, attach
from pointrend.models.families import NetworkSource, build_network
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic_heads import SemanticPointRendConfig
from pointrend.structures import SemanticTarget
from pointrend.train import prepare_finetuning
from pointrend.training.finetune import change_classes
from pointrend.training.options import TrainingOptions
from pointrend.training.recipe import Recipe, build_optimizer
from pointrend.visualize.explain import explain

CLASSES = ("sky", "road", "tree")


class Own(nn.Module):
    """A network of nobody's library: features at stride 4, logits at stride 8."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 3, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return features, self.head(features)


def lraspp() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)


def segformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=3, hidden_sizes=[8, 16, 20, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16
    )
    return transformers.SegformerForSemanticSegmentation(config)


def upernet() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=stages
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=3, auxiliary_in_channels=24
    )
    return transformers.UperNetForSemanticSegmentation(config)


def maskformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_features=stages
    )
    small = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    decoder = transformers.DetrConfig(
        d_model=16, num_queries=5, encoder_attention_heads=2, decoder_attention_heads=2, **small
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        num_labels=3,
        fpn_feature_size=32,
        mask_feature_size=32,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def mask2former() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_features=stages
    )
    widths = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 64)
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, **widths, encoder_layers=1, decoder_layers=2, num_queries=5, num_labels=3
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def unet() -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet("resnet18", encoder_weights=None, classes=3, decoder_channels=(32, 16, 16, 8, 8))


def smp_fpn() -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.FPN("tu-convnext_atto", encoder_weights=None, classes=3, decoder_pyramid_channels=32)


FAMILIES = [lraspp, segformer, upernet, maskformer, mask2former, unet, smp_fpn]
SMALL = SemanticPointRendConfig(features=(), width=16, residual=True, num_points=50)


def attached(make: Callable[[], nn.Module], **options: Any) -> AttachedSegmenter:
    torch.manual_seed(0)
    return attach(make(), **{"classes": CLASSES, "point_rend": SMALL, **options})


def images_and_targets() -> tuple[list[Tensor], list[SemanticTarget]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    labels = [torch.randint(0, 3, size, generator=generator) for size in SIZES]
    return images, [SemanticTarget(one) for one in labels]


SIZES = [(33, 51), (64, 70)]  # strides divide neither


@pytest.mark.parametrize("make", FAMILIES)
def test_it_learns_predicts_and_is_saved_as_one_file(
    make: Callable[[], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = attached(make)
    images, targets = images_and_targets()
    model.freeze_unused()
    sum(model.train().loss(images, targets).values()).backward()
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not without, "DistributedDataParallel waits for parameters that no loss reaches"
    model.eval()
    results = model.predict(images)
    assert [tuple(result.labels.shape) for result in results] == SIZES
    pointrend.save(model, tmp_path / "model.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = pointrend.load(tmp_path / "model.safetensors")
    assert again.config == model.config
    for one, other in zip(again.predict(images), results, strict=True):
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("make", [lraspp, unet, segformer])
def test_points_change_the_prediction_once_the_head_does(make: Callable[[], nn.Module]) -> None:
    model = attached(make).eval()
    (image, _), _ = images_and_targets()
    untrained = model(image).labels
    agree = (untrained == model(image, refine=False).labels).float().mean()
    assert agree > 0.95  # a residual head starts at zero, and the logits are enlarged in other steps
    nn.init.normal_(model.point_rend.head.predictor.weight)
    assert not torch.equal(model(image).labels, untrained)


def test_it_is_scored_explained_and_optimized() -> None:
    model = attached(Own).eval()
    images, targets = images_and_targets()
    samples = [
        type("S", (), {"image": one, "target": target, "image_id": i})()
        for i, (one, target) in enumerate(zip(images, targets, strict=True))
    ]

    class Samples(list):
        def image_id(self, index: int) -> int:
            return index

    (row,) = evaluate_semantic(model, Samples(samples), metrics=("miou",))
    assert 0 <= row.numbers["mIoU"] <= 1
    explanation = explain(model, images[0])
    assert set(explanation.features) == {"features"}
    assert len(explanation.steps) > 0
    assert torch.equal(explanation.result.labels, model(images[0]).labels)
    assert torch.equal(model.optimize()(images[0]).labels, model(images[0]).labels)


def test_frozen_networks_get_no_gradient_and_keep_their_statistics() -> None:
    model = attached(Own, freeze=True).train()
    before = {name: one.clone() for name, one in model.network.state_dict().items()}
    losses = model.loss(*images_and_targets())
    sum(losses.values()).backward()
    assert all(one.grad is None for one in model.network.parameters())
    assert model.point_rend.head.predictor.weight.grad.abs().sum() > 0
    assert all(torch.equal(one, before[name]) for name, one in model.network.state_dict().items())
    groups = build_optimizer(model, Recipe(steps=1)).param_groups
    trained = {id(one) for group in groups for one in group["params"]}
    assert trained == {id(one) for one in model.point_rend.parameters()}


def test_gradients_reach_a_network_that_is_not_frozen() -> None:
    model = attached(Own).train()
    model.loss(*images_and_targets())["points"].backward()
    assert model.network.module.body[0].weight.grad.abs().sum() > 0


def test_a_network_of_ones_own_is_passed_again(tmp_path: Path) -> None:
    model = attached(Own, freeze=True).eval()
    file = tmp_path / "own.safetensors"
    pointrend.save(model, file)
    with pytest.raises(
        ValueError, match=r"cannot be built by name; pass it, pointrend.attach\(network, weights"
    ):
        pointrend.load(file)
    again = attach(Own(), weights=file)
    image = images_and_targets()[0][0]
    assert torch.equal(again(image).labels, model(image).labels)
    assert again.config.freeze
    with pytest.raises(ValueError, match="do not fit"):
        attach(Own(classes=4), weights=file)


def test_functions_and_other_outputs() -> None:
    network = Own()
    image = images_and_targets()[0][0]
    one = attach(network, classes=CLASSES).eval()
    two = attach(lambda images: network(images), classes=CLASSES).eval()
    three = attach(
        nn.Sequential(network),
        classes=CLASSES,
        forward=lambda module, images: (dict(zip("f", module(images)[:1], strict=True)), module(images)[1]),
    ).eval()
    assert three.config.channels == {"f": 8}
    assert torch.equal(one(image).labels, two(image).labels)
    assert torch.equal(one(image).labels, three(image).labels)


def test_maps_with_channels_last_are_understood() -> None:
    network = Own()

    def last(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = network(images)
        return features.permute(0, 2, 3, 1), logits

    model = attach(last, classes=CLASSES).eval()
    assert model.config.channels_last
    assert model.features(torch.zeros(1, 3, 32, 64))["features"].shape == (1, 8, 8, 16)


def test_one_channel_is_the_second_of_two_classes() -> None:
    model = attach(Own(classes=1), classes=("background", "person")).eval()
    logits = model.coarse(model.features(torch.randn(1, 3, 32, 64)))
    assert logits.shape == (1, 2, 4, 8)
    assert not logits[:, 0].any()


def test_classes_come_from_transformers_own_configuration() -> None:
    network = segformer()
    network.config.id2label = dict(enumerate(CLASSES))
    assert attach(network).config.class_names == CLASSES


def test_what_transformers_notes_of_a_session_is_not_kept() -> None:
    network = upernet()
    network.config._name_or_path = network.config.backbone_config._name_or_path = "/home/me/network"
    arguments = attach(network).config.network.arguments
    names = {*arguments, *arguments["backbone_config"]}
    assert "hidden_sizes" in names
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("make", [lraspp, segformer, unet])
def test_finetuning_changes_the_networks_own_classes(make: Callable[[], nn.Module]) -> None:
    model = attached(make)
    changed, transfer = change_classes(model, ("road", "person", "sky", "car"))
    assert transfer.known == ("road", "sky")
    assert not transfer.reinitialised
    assert changed.coarse(changed.eval().features(torch.zeros(1, 3, 64, 64))).shape[1] == 4


def test_finetuning_for_other_classes_thaws_the_network() -> None:
    model = attached(lraspp, freeze=True)
    assert change_classes(model, CLASSES)[0].config.freeze
    assert not change_classes(model, ("road", "person"))[0].config.freeze


def test_our_loop_trains_scores_and_saves_it(tmp_path: Path) -> None:
    options = TrainingOptions(
        data="shapes", steps=1, batch_size=2, crop=(64, 64), limit=1, out=tmp_path, device="cpu"
    )
    run, _ = prepare_finetuning(attached(lraspp), "lraspp", options)
    run.run()
    assert [row.name for row in run.validation.rows] == ["coarse, interpolated", "PointRend"]
    trained = pointrend.load(tmp_path / "model.safetensors")
    assert trained.config.network.name == "lraspp_mobilenet_v3_large"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda images: images, r"expected \(features, coarse logits\), got Tensor"),
        (lambda images: (images.flatten(2), images), r"got \{'features': \(1, 3, 6144\)\}; of tokens"),
        (lambda images: (images, images.mean((2, 3))), r"logits \(B, C, h, w\), got dict and \(1, 3\)"),
        (lambda images: (images[:, :, :7, :50], images), "maps that all cover an image of 64 x 96"),
    ],
    ids=["one tensor", "class tokens", "no map of logits", "another aspect"],
)
def test_what_is_no_pair_of_maps_and_logits_is_refused(network: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(network, classes=3)


def test_wrong_classes_and_features_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 names, as many as the network has logits"):
        attach(Own(), classes=("a", "b"))
    with pytest.raises(ValueError, match=r"expected some of \['features', 'image'\], got \('p2',\)"):
        attach(Own(), features="p2")
    assert attach(Own(), features=("features", "image")).point_rend.head.fine_channels == 8 + 3


def test_an_unknown_network_of_transformers_needs_its_preprocessing() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(depth_multiplier=0.35, image_size=64, num_labels=3)
    network = transformers.MobileNetV2ForSemanticSegmentation(config)
    with pytest.raises(ValueError, match="preprocessing: not known of MobileNetV2ForSemanticSegmentation"):
        attach(network)
    half = Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3)
    assert attach(network, preprocessing=half).config.network.name == ""


def test_the_file_says_what_it_holds_in_json(tmp_path: Path) -> None:
    pointrend.save(attached(lraspp), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config["network"] == {
        "family": "torchvision",
        "name": "lraspp_mobilenet_v3_large",
        "arguments": {},
        "binary": False,
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NetworkSource("torchvision", "resnet50"), "builds no resnet50"),
        (NetworkSource("torchvision", "fcn_resnet50", {"weights": "DEFAULT"}), "builds no fcn_resnet50"),
        (NetworkSource("transformers", "AutoModel", {}), "expected one of Segformer"),
        (
            NetworkSource("transformers", "UperNetForSemanticSegmentation", {"backbone": "a/b"}),
            "refused backbone",
        ),
        (NetworkSource("smp", "Unet", {"attn_implementation": "a/kernel"}), "refused attn_implementation"),
        (NetworkSource("smp", "Unet", {"encoder_name": "tu-hf-hub:a/b"}), "a place to fetch from"),
        (NetworkSource("smp", "Unet", {"decoder_channels": [2**40]}), "expected a number below"),
        (NetworkSource("smp", "load", {}), "expected one of DeepLabV3"),
    ],
    ids=lambda value: value.name if isinstance(value, NetworkSource) else "",
)
def test_a_file_cannot_name_anything_but_known_networks(source: NetworkSource, message: str) -> None:
    if source.family == "transformers":
        pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=message):
        build_network(source, 3)


def test_an_absent_library_is_one_line() -> None:
    with pytest.raises(
        ImportError, match=r"^no_such_library is not installed: pip install 'pointrend\[smp\]'$"
    ):
        require("no_such_library", "smp")


def test_a_configuration_with_other_classes_builds_the_network_for_them() -> None:
    config = attached(lraspp).config
    model = build(replace(config, class_names=("a", "b")))
    assert model.coarse(model.eval().features(torch.zeros(1, 3, 32, 32))).shape[1] == 2


def test_what_cannot_be_run_on_images_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="expected a module or a function of images, got str"):
        attach("deeplab")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"network: could not be run on images \(1, 3, "):
        attach(nn.Linear(3, 4))


class Patches(nn.Module):
    """As of a plain transformer: 14 pixels a side, and no image of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 14, 14), nn.Conv2d(16, 3, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.shape[-1] % 14 == 0, "input width should be divisible by 14"
        features = self.patches(images)
        return features, self.head(features)


def test_a_stride_that_divides_no_multiple_of_32_is_said_by_the_preprocessing() -> None:
    with pytest.raises(ValueError, match=r"pass preprocessing=Preprocessing\(divisor=14\)"):
        attach(Patches(), classes=3)
    images, targets = images_and_targets()
    model = attach(Patches(), classes=3, point_rend=SMALL, preprocessing=Preprocessing(divisor=14))
    sum(model.loss(images, targets).values()).backward()
    assert [tuple(result.labels.shape) for result in model.eval().predict(images)] == SIZES


def test_what_a_forward_without_gradients_runs_is_frozen() -> None:
    @torch.no_grad()
    def forward(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features, logits = network(images)
        return {"patches": features}, logits

    preprocessing = Preprocessing(divisor=14)
    model = attach(Patches(), classes=3, forward=forward, point_rend=SMALL, preprocessing=preprocessing)
    model.freeze_unused()
    assert not any(one.requires_grad for one in model.network.parameters())
    assert all(one.requires_grad for one in model.point_rend.parameters())
