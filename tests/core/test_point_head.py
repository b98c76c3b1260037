from __future__ import annotations

import pytest
import torch

from pointrend.core.point_head import PointHead
from pointrend.core.point_rend import PointRend


def test_the_coarse_prediction_goes_to_every_layer_or_the_first_only() -> None:
    every, first = PointHead(8, 3, width=16), PointHead(8, 3, width=16, coarse_each_layer=False)
    assert [layer.weight.shape[1] for layer in (*every.layers, every.predictor)] == [11, 19, 19, 19]
    assert [layer.weight.shape[1] for layer in (*first.layers, first.predictor)] == [11, 16, 16, 16]


def test_the_papers_head_has_three_layers_of_256() -> None:
    head = PointHead(256, 80)
    assert [tuple(layer.weight.shape) for layer in head.layers] == [(256, 336, 1)] * 3
    assert tuple(head.predictor.weight.shape) == (80, 336, 1)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_any_depth_predicts_all_classes(depth: int) -> None:
    head = PointHead(4, 6, width=8, depth=depth)
    assert head(torch.randn(2, 4, 9), torch.randn(2, 6, 9)).shape == (2, 6, 9)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("classes", [1, 5, 1203])
def test_predicting_one_class_equals_that_row_of_all(residual: bool, classes: int) -> None:
    head = PointHead(4, classes, width=8, residual=residual).double()
    torch.nn.init.normal_(head.predictor.weight)
    torch.nn.init.normal_(head.predictor.bias)
    fine, coarse = torch.randn(3, 4, 7).double(), torch.randn(3, classes, 7).double()
    labels = torch.tensor([0, classes // 2, classes - 1])
    every = head(fine, coarse)
    torch.testing.assert_close(head(fine, coarse, labels)[:, 0], every[torch.arange(3), labels])


def test_a_fresh_residual_head_changes_nothing() -> None:
    head, coarse = PointHead(4, 3, residual=True), torch.randn(2, 3, 50)
    assert torch.equal(head(torch.randn(2, 4, 50), coarse), coarse)


def test_a_class_agnostic_head_has_one_output() -> None:
    head = PointHead(4, 5, 1, width=8)
    labels = torch.tensor([4, 0])
    assert head(torch.randn(2, 4, 6), torch.randn(2, 5, 6)).shape == (2, 1, 6)
    assert head(torch.randn(2, 4, 6), torch.randn(2, 5, 6), labels).shape == (2, 1, 6)


def test_a_class_agnostic_residual_head_corrects_the_regions_class() -> None:
    head = PointHead(4, 5, 1, width=8, residual=True)
    fine, coarse = torch.randn(2, 4, 6), torch.randn(2, 5, 6)
    assert torch.equal(
        head(fine, coarse, torch.tensor([4, 0]))[:, 0], torch.stack((coarse[0, 4], coarse[1, 0]))
    )
    with pytest.raises(ValueError, match="label"):
        head(fine, coarse)


def test_logits_are_float32_under_autocast() -> None:
    head = PointHead(4, 3, width=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(torch.randn(1, 4, 5), torch.randn(1, 3, 5)).dtype == torch.float32
        labels = torch.tensor([1])
        assert head(torch.randn(1, 4, 5), torch.randn(1, 3, 5), labels).dtype == torch.float32


def test_no_regions_and_no_points_are_fine() -> None:
    head = PointHead(4, 3, width=8)
    assert head(torch.randn(0, 4, 5), torch.randn(0, 3, 5)).shape == (0, 3, 5)
    assert head(torch.randn(2, 4, 0), torch.randn(2, 3, 0)).shape == (2, 3, 0)


def test_other_channels_and_impossible_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 4 fine and 3 coarse"):
        PointHead(4, 3)(torch.randn(1, 5, 6), torch.randn(1, 3, 6))
    with pytest.raises(ValueError, match="positive channels"):
        PointHead(0, 3)
    with pytest.raises(ValueError, match="class-agnostic"):
        PointHead(4, 3, 2)


def test_a_positional_encoding_tells_points_with_equal_features_apart() -> None:
    torch.manual_seed(0)
    coarse, fine = torch.zeros(1, 2, 4, 4), torch.ones(1, 8, 8, 8)
    for positions, differ in ((0, False), (16, True)):
        module = PointRend(8, 2, width=16, num_points=16, residual=False, positions=positions)
        torch.nn.init.normal_(module.head.predictor.weight)
        refined = module.refine(coarse, fine, 8)[0, 0]
        new = refined[refined != 0]
        assert bool(new.max() - new.min() > 1e-3) is differ
        module.loss(coarse, fine, torch.zeros(1, 8, 8, dtype=torch.int64)).backward()
        assert module.head.layers[0].weight.grad.shape[1] == 8 + 2 + 2 * positions
    assert "head.frequencies" in module.state_dict()
    with pytest.raises(ValueError, match="positions >= 0"):
        PointRend(8, 2, positions=-1)


def test_positions_are_those_within_each_box() -> None:
    torch.manual_seed(0)
    module = PointRend(8, 1, width=16, num_points=49, residual=False, positions=16)
    torch.nn.init.normal_(module.head.predictor.weight)
    boxes = torch.tensor([[0.0, 0, 16, 16], [8, 8, 32, 32]])
    one, other = module.refine(
        torch.zeros(2, 1, 7, 7), torch.zeros(1, 8, 8, 8), 14, boxes=boxes, image_size=(32, 32)
    )
    torch.testing.assert_close(one, other)  # the features say nothing, and each box begins at its own corner
