"""Implicit PointRend: point heads whose weights are predicted."""

from __future__ import annotations

import pytest
import torch

from pointrend.core.sampling import encode_positions
from pointrend.models.boxes import Regions
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.implicit import ImplicitMaskHead, ImplicitPointHead
from pointrend.models.mask_heads.targets import TrueMasks

CHANNELS, STRIDES = {"p2": 6}, {"p2": 4}


def head(classes=3, **settings):
    return ImplicitMaskHead(
        CHANNELS,
        STRIDES,
        classes,
        MaskConfig(**{"width": 8, "coarse_width": 16, "mask_size": 56, **settings}),
    )


def regions(count=2):
    boxes = torch.tensor([[4.0, 8, 40, 60], [-10, -5, 30, 20]])[:count]
    return Regions(boxes, torch.zeros(count, dtype=torch.int64), torch.tensor([2, 0])[:count])


def test_the_point_head_is_detectron2s(units):
    point_head = ImplicitPointHead(6, 3, width=8)
    point_head.frequencies.copy_(units("implicit/gaussian"))
    parameters, features = units("implicit/parameters"), units("implicit/features")
    assert point_head.num_parameters == parameters.shape[1]
    logits = point_head(parameters, features, units("implicit/coords"))
    torch.testing.assert_close(logits, units("implicit/out"), rtol=1e-4, atol=1e-4)
    labels = torch.tensor([1, 0, 2])
    own = point_head(parameters, features, units("implicit/coords"), labels)
    torch.testing.assert_close(own[:, 0], logits[torch.arange(3), labels])


def test_the_published_point_head_has_283472_parameters():
    assert ImplicitPointHead(256, 80).num_parameters == 283_472


def test_positions_stay_exact_under_autocast():
    points, frequencies = torch.rand(1, 9, 2), torch.randn(2, 128)
    exact = encode_positions(points, frequencies)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encode_positions(points, frequencies), exact)


@pytest.mark.parametrize("points", [784, 100, 10_000])
def test_masks_are_rendered_from_a_square_grid_of_the_points(points):
    features = {"p2": torch.randn(1, 6, 16, 24)}
    logits, trace = head(num_points=points).trace(features, regions())
    assert logits.shape == (2, 56, 56)
    assert trace.start.shape[-1] == min(int(points**0.5), 56)
    torch.testing.assert_close(head().predict(features, regions(0)).shape, torch.Size([0, 56, 56]))


def test_losses_reach_every_parameter(target):
    mask_head, features = head(), {"p2": torch.randn(1, 6, 16, 24)}
    masks = [target((64, 96), [(4, 8, 40, 60), (0, 0, 30, 20)]).masks]
    losses = mask_head.loss(features, TrueMasks(regions(), torch.tensor([0, 1]), masks))
    assert set(losses) == {"mask_points", "mask_parameters"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in mask_head.parameters())
    empty = mask_head.loss(features, TrueMasks(regions(0), torch.zeros(0, dtype=torch.int64), masks))
    assert all(value.item() == 0 for value in empty.values())


def test_the_parameter_loss_is_a_small_mean_square(target):
    mask_head, features = head(), {"p2": torch.randn(1, 6, 16, 24)}
    masks = [target((64, 96), [(4, 8, 40, 60), (0, 0, 30, 20)]).masks]
    loss = mask_head.loss(features, TrueMasks(regions(), torch.tensor([0, 1]), masks))["mask_parameters"]
    expected = 1e-5 * mask_head.parameters_of(features, regions()).square().mean()
    torch.testing.assert_close(loss, expected)


def test_the_whole_model_trains_and_predicts(tiny_config, target):
    model = InstanceSegmenter(tiny_config(mask_head="implicit", masks={"train_on_predicted_boxes": False}))
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    losses = model.loss([image], [target((64, 96), [(10, 10, 50, 40)])])
    sum(losses.values()).backward()
    (result,) = model.eval().predict([image], uncertainty=True)
    assert result.uncertainty.shape == (5, 56, 56)
    assert len(model.trace([image]).masks.steps) == 1
