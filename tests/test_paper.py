"""What docs/paper.md says of the text and of the released code."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields, replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from pointrend.cli.evaluate import Evaluate
from pointrend.cli.predict import Predict
from pointrend.cli.train import Train
from pointrend.cli.zoo import Convert
from pointrend.core import (
    PointRend,
    PointSampling,
    binary_uncertainty,
    margin_uncertainty,
    probability_margin_uncertainty,
    regular_grid,
    subdivide,
    subdivision_sizes,
)
from pointrend.core.fast_point_head import predict_in_images
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.training.paper import find_recipe
from pointrend.training.recipe import Recipe

PAGE = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")


def test_the_options_that_the_translation_of_train_net_names_are_there() -> None:
    page = (Path(__file__).parents[1] / "docs" / "detectron2.md").read_text(encoding="utf-8")
    ours = " ".join(
        line.split(" | ")[1] for line in page.splitlines() if line.startswith("| `") or " | `" in line
    )
    named = set(re.findall(r"--(?:no-)?([a-z][a-z0-9-]+)", ours))
    options = {field.name for kind in (Train, Evaluate, Predict, Convert) for field in fields(kind)}
    torchrun = {"nproc-per-node", "nnodes", "node-rank", "master-addr", "master-port"}
    assert len(named) > 20
    assert {name for name in named - torchrun if name.replace("-", "_") not in options} == set()


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:core|models|evaluation|training)(?:\.\w+)+)`", PAGE)))
)
def test_functions_that_the_page_names_are_there(name: str) -> None:
    module, attributes = "pointrend", name.split(".")
    while attributes and attributes[0].islower():
        try:
            importlib.import_module(f"{module}.{attributes[0]}")
        except ModuleNotFoundError:
            break
        module = f"{module}.{attributes.pop(0)}"
    found = importlib.import_module(module)
    for attribute in attributes:
        found = getattr(found, attribute)


@pytest.mark.parametrize(("num_points", "start"), [(14**2, 14), (28**2, 28), (56**2, 56), (112**2, 112)])
def test_five_steps_from_7x7_are_those_from_the_largest_grid_that_n_points_cover(
    num_points: int, start: int
) -> None:
    """The text has the first, Detectron2 runs the second: grids of at most N cells are predicted whole in both."""
    torch.manual_seed(0)
    weights = torch.randn(3, 2) * 9

    def predict_at(points: torch.Tensor) -> torch.Tensor:
        return torch.sin(points @ weights.T).sum(-1)[:, None]  # (N, 1, P)

    def subdivided(logits: torch.Tensor) -> torch.Tensor:
        side = logits.shape[-1]
        return subdivide(
            logits,
            predict_at,
            sizes=subdivision_sizes((side, side), (224, 224)),
            num_points=num_points,
            uncertainty=binary_uncertainty,
        )

    assert MaskConfig(num_points=num_points).start_size == start
    coarse = torch.randn(2, 1, 7, 7)
    dense = predict_at(regular_grid(start, start, regions=2)).view(2, 1, start, start)
    torch.testing.assert_close(subdivided(coarse), subdivided(dense))


@pytest.mark.parametrize(
    ("name", "updates", "rate", "batch"),
    [
        ("pointrend_rcnn_R_50_FPN_1x_coco", (60_000, 20_000, 10_000), 0.02, 16),
        ("mask_rcnn_X_101_32x8d_FPN_3x_coco", (210_000, 40_000, 20_000), 0.02, 16),
        ("pointrend_rcnn_R_50_FPN_1x_cityscapes", (18_000, 6_000), 0.01, 8),
        ("pointrend_semantic_R_101_P3P5_cityscapes", (40_000, 15_000, 10_000), 0.01, 32),
        ("deeplabv3_R_103_cityscapes", (90_000,), 0.01, 16),
    ],
)
def test_schedules_are_those_of_the_appendix(
    name: str, updates: tuple[int, ...], rate: float, batch: int
) -> None:
    """Updates at the rate, at a tenth of it, at a hundredth; DeepLabV3's falls by a polynomial."""
    recipe = find_recipe(name).recipe
    assert (*recipe.milestones, recipe.steps) == tuple(accumulate(updates))
    assert (recipe.learning_rate, recipe.batch_size, recipe.warmup_steps) == (rate, batch, 1000)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert recipe.schedule == ("milestones" if len(updates) > 1 else "poly")


def test_warm_up_starts_at_a_rate_in_the_text_and_from_a_factor_in_the_code() -> None:
    code = Recipe(learning_rate=0.02, warmup_steps=1000)
    text = Recipe(learning_rate=0.02, warmup_steps=1000, warmup_factor=0.001 / 0.02)
    assert code.learning_rate * code.factor(0) == 0.02 * 0.001
    assert text.learning_rate * text.factor(0) == 0.001
    assert text.factor(1000) == code.factor(1000)


def test_margins_of_logits_and_of_probabilities_choose_nearly_the_same_points() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 19, 1000)
    measures = (margin_uncertainty, probability_margin_uncertainty)
    chosen = [set(measure(logits)[0].topk(100).indices.tolist()) for measure in measures]
    assert 85 <= len(chosen[0] & chosen[1]) <= 95


@pytest.mark.parametrize("classes", [1, 3])
def test_the_point_head_may_see_probabilities(classes: int) -> None:
    torch.manual_seed(0)
    text = PointRend(4, classes, width=8, residual=False, coarse_probabilities=True)
    code = PointRend(4, classes, width=8, residual=False)
    code.load_state_dict(text.state_dict())
    maps, coarse, points = torch.randn(2, 4, 9, 9), torch.randn(2, classes, 5, 5), torch.rand(2, 30, 2)
    probabilities = coarse.sigmoid() if classes == 1 else coarse.softmax(1)
    expected = predict_in_images(code.head, [maps], probabilities)(points)
    assert torch.equal(predict_in_images(text.head, [maps], coarse)(points), expected)
    with torch.no_grad():  # the fast form
        torch.testing.assert_close(predict_in_images(text.head, [maps], coarse)(points), expected)


def test_a_residual_head_cannot_see_probabilities() -> None:
    with pytest.raises(ValueError, match="adds to coarse logits"):
        PointRend(4, 3, coarse_probabilities=True)


def test_label_maps_may_be_ranked_by_the_margin_of_probabilities() -> None:
    torch.manual_seed(0)
    rend = SemanticPointRendConfig(width=8, num_points=40, uncertainty="probabilities")
    config = SemanticConfig(
        tuple("abc"), backbone=BackboneConfig("resnet18"), fpn_channels=8, decoder_channels=8, point_rend=rend
    )
    model = SemanticSegmenter(config).eval()
    image, trace = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), []
    [traced] = model.predict([image], trace=trace)
    for step in trace:
        rank = probability_margin_uncertainty(step.upsampled)[0].flatten()
        assert set(step.index[0].tolist()) == set(rank.topk(40).indices.tolist())
    assert torch.equal(model.predict([image])[0].labels, traced.labels)


def test_the_loss_of_points_may_be_their_sum_in_each_box() -> None:
    """Summed over N = 16 points and averaged over the boxes: 16 times the mean over all points of all boxes."""

    def loss(weight: float) -> float:
        torch.manual_seed(0)
        masks = MaskConfig(width=8, coarse_width=8, sampling=PointSampling(16), point_loss_weight=weight)
        boxes = BoxHeadConfig(width=8, samples=8)
        config = InstanceConfig(("a",), BackboneConfig("resnet18"), fpn_channels=8, boxes=boxes, masks=masks)
        sample = ShapeScenes(1, "instance", size=(64, 64))[0]
        generator = torch.Generator().manual_seed(0)
        target = replace(sample.target, labels=torch.zeros_like(sample.target.labels))
        losses = InstanceSegmenter(config).train().loss([sample.image], [target], generator=generator)
        return losses["mask_points"].item()

    assert loss(16) == pytest.approx(16 * loss(1))
    assert loss(1) > 0
