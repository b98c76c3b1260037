"""The published trainings, against the numbers of the originals' configurations (Detectron2's yaml files merged
with their bases, MMSegmentation's, the paper's appendix B)."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
import torch
import tyro

from pointrend.checkpoints.native import build
from pointrend.cli.evaluate import Evaluate
from pointrend.core.selection import PointSampling
from pointrend.data.transforms import ColorJitter, RandomCrop, RandomFit, RandomFlip, ResizeShortEdge
from pointrend.models.backbones import STAGES, BackboneConfig
from pointrend.models.feature_maps import build_backbone
from pointrend.models.instance import InstanceConfig
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
from pointrend.structures import Sample, SemanticTarget
from pointrend.training.paper import ROWS, TRAININGS, find_recipe
from pointrend.training.published import RECIPES
from pointrend.training.recipe import build_optimizer

COCO_1X = ("pointrend_rcnn_R_50_FPN_1x_coco", "implicit_pointrend_R_50_FPN_1x_coco")
COCO_3X = (
    "pointrend_rcnn_R_50_FPN_3x_coco",
    "pointrend_rcnn_R_101_FPN_3x_coco",
    "pointrend_rcnn_X_101_32x8d_FPN_3x_coco",
    "implicit_pointrend_R_50_FPN_3x_coco",
)
CITYSCAPES_INSTANCE = "pointrend_rcnn_R_50_FPN_1x_cityscapes"
SEMANTIC_FPN = "pointrend_semantic_R_101_FPN_1x_cityscapes"
DEEPLAB = "pointrend_deeplabv3_R_103_cityscapes"
INSTANCE = (*COCO_1X, *COCO_3X, CITYSCAPES_INSTANCE)
MMSEG = tuple(name for name in RECIPES if "k_" in name)

# name: batch, updates, {update: learning rate}
SCHEDULES = {
    **dict.fromkeys(
        COCO_1X,
        (
            16,
            90_000,
            {0: 2e-5, 500: 0.01001, 1000: 0.02, 59_999: 0.02, 60_000: 0.002, 79_999: 0.002, 80_000: 2e-4},
        ),
    ),
    **dict.fromkeys(
        COCO_3X, (16, 270_000, {0: 2e-5, 209_999: 0.02, 210_000: 0.002, 249_999: 0.002, 250_000: 2e-4})
    ),
    CITYSCAPES_INSTANCE: (8, 24_000, {0: 1e-5, 1000: 0.01, 17_999: 0.01, 18_000: 0.001, 23_999: 0.001}),
    SEMANTIC_FPN: (32, 65_000, {0: 1e-5, 39_999: 0.01, 40_000: 0.001, 55_000: 1e-4, 64_999: 1e-4}),
    DEEPLAB: (16, 90_000, {0: 1e-5, 500: 0.005005 * (1 - 5 / 900) ** 0.9, 45_000: 0.01 * 0.5**0.9}),
    **{
        name: (
            8 if "cityscapes" in name else 16,
            80_000 if "cityscapes" in name else 160_000,
            {0: 0.001, 100: 0.0055, 200: 0.01},
        )
        for name in MMSEG
    },
}


def test_every_published_model_has_its_recipe() -> None:
    assert set(SCHEDULES) == set(RECIPES)
    assert len(MMSEG) == 4
    with pytest.raises(ValueError, match=r"no recipe 'pointrend'.*\n.*pointrend_rcnn_R_50_FPN_1x_coco"):
        find_recipe("pointrend")


@pytest.mark.parametrize("name", RECIPES)
def test_batch_length_and_learning_rates_are_the_published_ones(name: str) -> None:
    recipe = RECIPES[name].recipe
    batch, steps, rates = SCHEDULES[name]
    assert (recipe.batch_size, recipe.steps, recipe.optimizer, recipe.momentum) == (batch, steps, "sgd", 0.9)
    assert {step: recipe.learning_rate * recipe.factor(step) for step in rates} == pytest.approx(rates)
    assert recipe.clip_gradient is None
    assert recipe.average == 0
    decay = (5e-4, 5e-4) if name in MMSEG else (1e-4, 0.0)
    assert (recipe.weight_decay, recipe.norm_weight_decay) == decay


@pytest.mark.parametrize("name", MMSEG)
def test_mmsegmentation_falls_to_its_floor(name: str) -> None:
    recipe = RECIPES[name].recipe
    middle = 200 + (recipe.steps - 200) // 2
    expected = (0.01 - 1e-4) * 0.5**0.9 + 1e-4
    assert recipe.learning_rate * recipe.factor(middle) == pytest.approx(expected, rel=1e-4)
    assert recipe.learning_rate * recipe.factor(recipe.steps - 1) == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].task == "semantic"])
def test_the_coarse_classifier_starts_as_the_published_one(name: str) -> None:
    """MMSegmentation 0.x and Detectron2's DeepLab: N(0, 0.01); Detectron2's SemanticFPN: He's over the classes."""
    config = RECIPES[name].network
    assert isinstance(config, SemanticConfig)
    tiny = replace(config, backbone=BackboneConfig("resnet18"), fpn_channels=8, decoder_channels=512)
    std = float(SemanticSegmenter(replace(tiny, point_rend=None)).decoder.predictor.weight.detach().std())
    he = (2 / config.num_classes) ** 0.5
    assert std == pytest.approx(0.01 if name in MMSEG or name == DEEPLAB else he, rel=0.05)


@pytest.mark.parametrize("name", RECIPES)
def test_the_augmentation_has_the_published_order_and_sizes(name: str) -> None:
    street = "cityscapes" in name
    crop = RandomCrop(512, 1024 if street else 512, 0.75, 10)
    if name == CITYSCAPES_INSTANCE:
        expected = (ResizeShortEdge((800, 832, 864, 896, 928, 960, 992, 1024), 2048), RandomFlip(0.5))
    elif name in INSTANCE:
        expected = (ResizeShortEdge((640, 672, 704, 736, 768, 800), 1333), RandomFlip(0.5))
    elif name in MMSEG:
        expected = (RandomFit(2048, 1024 if street else 512, 0.5, 2.0), crop, RandomFlip(0.5), ColorJitter())
    else:
        edges = (512, 768, 1024, 1280, 1536, 1792, 2048)
        expected = (ResizeShortEdge(edges, 4096), crop, ColorJitter(), RandomFlip(0.5))
        if name == DEEPLAB:  # the paper's appendix: steps of 32 pixels, no colours
            edges = tuple(range(512, 2049, 32))
            expected = (ResizeShortEdge(edges, 4096), RandomCrop(768, 768, 1.0, 10), RandomFlip(0.5))
    assert RECIPES[name].augmentation == expected
    assert RECIPES[name].recipe.group_by_aspect == (name in INSTANCE)


@pytest.mark.parametrize("name", RECIPES)
def test_points_are_the_published_ones(name: str) -> None:
    network = RECIPES[name].network
    if isinstance(network, InstanceConfig):
        ratios = (1.0, 0.0) if name.startswith("implicit") else (3.0, 0.75)
        assert network.masks.sampling == PointSampling(196, *ratios)
        # "start 7, 5 steps" in the file; 28 and 3 is what runs.
        assert (network.masks.num_points, network.masks.start_size, network.masks.mask_size) == (784, 28, 224)
        assert network.mask_head == ("implicit" if name.startswith("implicit") else "pointrend")
        assert network.masks.train_on_predicted_boxes == (not name.startswith("implicit"))
    else:
        rend = network.point_rend
        assert rend is not None
        # 48² cells of a 768 crop at stride 16; N = 8096 in the paper, 8192 in Detectron2, 8196 in MMSegmentation
        assert rend.sampling == PointSampling(2304 if name == DEEPLAB else 2048, 3.0, 0.75)
        assert rend.num_points == {DEEPLAB: 8096, SEMANTIC_FPN: 8192}.get(name, 8196)
        assert rend.subdivision_steps == (4 if name == DEEPLAB else 2)
        assert rend.coarse_each_layer == (name != SEMANTIC_FPN)
        assert rend.features == (("res2",) if name == DEEPLAB else ("p2",))


@pytest.mark.parametrize("name", RECIPES)
def test_frozen_stages_norms_and_test_sizes_are_the_published_ones(name: str) -> None:
    network = RECIPES[name].network
    assert network.freeze_stages == (2 if name in INSTANCE else 0)
    assert network.backbone.norm == ("batch" if name in MMSEG or name == DEEPLAB else "frozen")
    edges = {"coco": (800, 1333), "ade20k": (512, 2048)}.get(RECIPES[name].data, (1024, 2048))
    assert (network.preprocessing.short_edge, network.preprocessing.long_edge) == edges
    assert network.backbone.stride_in_1x1 == (network.backbone.norm == "frozen" and "X_101" not in name)
    assert network.preprocessing.channel_order == ("RGB" if network.backbone.norm == "batch" else "BGR")
    # Channels in the order RGB here, BGR in Detectron2's file (57.375, 57.12, 58.395).
    plain = network.preprocessing.channel_order == "BGR" and "X_101" not in name
    assert network.preprocessing.std == ((1.0, 1.0, 1.0) if plain else (58.395, 57.12, 57.375))


@pytest.mark.parametrize("name", RECIPES)
def test_exactly_the_published_parameters_are_frozen(name: str) -> None:
    with torch.device("meta"):
        model = build(RECIPES[name].network)
    frozen = {".".join(n.split(".")[:2]) for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({"backbone.stem", "backbone.res2"} if name in INSTANCE else set())
    trained = sum(p.requires_grad for p in model.parameters())
    groups = build_optimizer(model, RECIPES[name].recipe).param_groups
    assert sum(len(group["params"]) for group in groups) == trained
    # Frozen norms have no parameters at all; those that are trained have their own weight decay.
    norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert bool([n for n in norms if n.startswith("backbone")]) == (name in MMSEG or name == DEEPLAB)
    decays = {group["weight_decay"] for group in groups}
    if name in MMSEG:
        assert decays == {5e-4}
    else:
        assert decays <= {1e-4, 0.0}


def test_freezing_two_stages_leaves_res3_to_res5_to_train() -> None:
    backbone = build_backbone(BackboneConfig("resnet18"))
    backbone.freeze(RECIPES[COCO_1X[0]].network.freeze_stages)
    trained = {name for name in STAGES if any(p.requires_grad for p in getattr(backbone, name).parameters())}
    assert trained == {"res3", "res4", "res5"}


def test_the_head_of_deeplab_learns_ten_times_faster() -> None:
    published = RECIPES[DEEPLAB]
    config = replace(
        published.config(("a", "b")),
        backbone=BackboneConfig("resnet18", norm="batch", output_stride=16),
        decoder_channels=8,
    )
    model = SemanticSegmenter(config)
    rates = {
        id(parameter): group["lr"]
        for group in build_optimizer(model, published.recipe).param_groups
        for parameter in group["params"]
    }
    found = {name.split(".")[0]: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {"backbone": 0.01, "decoder": pytest.approx(0.1), "point_rend": 0.01}


def test_classes_and_points_are_exchanged_without_touching_the_rest() -> None:
    published = RECIPES[COCO_1X[0]]
    config = published.config(("cat",))
    assert config.class_names == ("cat",)
    assert replace(config, class_names=published.network.class_names) == published.network
    changed = published.with_point_head(
        sampling=vars(PointSampling.heavily_biased()), num_points=196, subdivision_steps=4
    ).network
    assert isinstance(changed, InstanceConfig)
    assert changed.masks.sampling.oversample_ratio == 10
    assert (changed.masks.start_size, changed.masks.mask_size) == (14, 224)
    rend = RECIPES[SEMANTIC_FPN].with_point_head(num_points=100, subdivision_steps=1).network
    assert isinstance(rend, SemanticConfig)
    assert rend.point_rend is not None
    assert (rend.point_rend.num_points, rend.point_rend.subdivision_steps) == (100, 1)
    coarse = replace(RECIPES[SEMANTIC_FPN], network=replace(rend, point_rend=None))
    with pytest.raises(ValueError, match="no points"):
        coarse.with_point_head(num_points=1)


def test_every_row_of_the_tables_has_its_training() -> None:
    assert {row.table for row in ROWS} == {1, 2, 3, 4, 5, 6, 7}
    assert all(row.training in TRAININGS for row in ROWS)
    assert len({(row.table, row.what, row.options) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        options = shlex.split(row.options)
        assert tyro.cli(Evaluate, args=["MODEL", *options]).models == ("MODEL",)


@pytest.mark.parametrize("name", [name for name in TRAININGS if name not in RECIPES])
def test_a_training_of_the_tables_builds_and_differs_from_what_was_published(name: str) -> None:
    config = TRAININGS[name]
    assert config.name == name
    with torch.device("meta"):
        build(config.network)
    twins = [other for other in TRAININGS.values() if replace(other, name=name) == config]
    expected = 2 if name.endswith("mildly_biased") else 1  # which is how the published models were trained
    assert len(twins) == expected, [twin.name for twin in twins]


def test_the_rows_differ_in_what_their_tables_are_about() -> None:
    conv = [TRAININGS[f"mask_rcnn_R_50_FPN_1x_coco{size}"].network for size in ("", "_56x56", "_224x224")]
    assert [network.mask_head for network in conv] == ["conv28", "conv56", "conv224"]
    assert not any(network.masks.train_on_predicted_boxes for network in conv)
    strategies = {
        "regular_grid": PointSampling.regular(196),
        "uniform": PointSampling(196, 1, 0),
        "mildly_biased": PointSampling(196, 3, 0.75),
        "heavily_biased": PointSampling(196, 10, 1),
    }
    for data in ("coco", "cityscapes"):
        for strategy, sampling in strategies.items():
            name = f"pointrend_rcnn_R_50_FPN_1x_{data}_{strategy}"
            assert TRAININGS[name].network.masks.sampling == sampling
    assert TRAININGS["deeplabv3_R_103_cityscapes"].network.point_rend is None
    backbone = TRAININGS[DEEPLAB].network.backbone
    assert (backbone.stem_width, backbone.multi_grid, backbone.output_stride) == (64, (1, 2, 4), 16)
    for levels, stride, steps in (("P2P5", 4, 2), ("P3P5", 8, 3)):
        full = TRAININGS[f"pointrend_semantic_R_101_{levels}_cityscapes"]
        assert TRAININGS[f"semantic_R_101_{levels}_cityscapes"].network.point_rend is None
        assert full.network.levels[0] == f"p{2 if stride == 4 else 3}"
        assert full.network.point_rend.subdivision_steps == steps
        assert full.augmentation[0] == ResizeShortEdge(tuple(range(512, 2049, 32)), 4096)


@pytest.mark.parametrize("size", [(30, 40), (45, 20)])
def test_a_training_crop_of_any_image_has_the_published_size(size: tuple[int, int]) -> None:
    labels = torch.arange(size[0] * size[1]).reshape(size).remainder(3).to(torch.uint8)
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), SemanticTarget(labels), "a", None)
    for name in ("pointrend_r50_4xb4-160k_ade20k-512x512",):
        changed = RECIPES[name].transforms(sample)
        assert changed.image.shape == (3, 512, 512)
        assert changed.target.labels.shape == (512, 512)


def test_a_shortened_training_has_the_same_shape() -> None:
    recipe = RECIPES[COCO_1X[0]].shortened(900).recipe
    assert (recipe.steps, recipe.milestones, recipe.warmup_steps) == (900, (600, 800), 10)
    tiny = RECIPES[DEEPLAB].shortened(3).recipe
    assert [tiny.factor(step) for step in range(3)] == pytest.approx([1, (2 / 3) ** 0.9, (1 / 3) ** 0.9])
