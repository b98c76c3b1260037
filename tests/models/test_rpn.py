"""Anchors and region proposals, against Detectron2's and at their edges."""

from __future__ import annotations

import pytest
import torch

from pointrend.models.boxes import has_area, match, overlaps
from pointrend.models.rpn import (
    AnchorPredictions,
    ProposalConfig,
    ProposalNetwork,
    base_anchors,
    grid_anchors,
)

RATIOS = (0.5, 1.0, 2.0)
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
STRIDES = (4, 8, 16, 32, 64)


def half_stride_anchors(units):
    """The anchors of units.npz: centred half a stride into their cells, unlike those of the models."""
    sizes = units("matcher/feature_sizes").tolist()
    levels = zip(SIZES, STRIDES, sizes, strict=True)
    return torch.cat([grid_anchors(base_anchors(s, RATIOS), h, w, t, offset=0.5) for s, t, (h, w) in levels])


def features(batch=2, channels=8, height=64, width=96):
    return [torch.randn(batch, channels, -(-height // s), -(-width // s)) for s in STRIDES]


def network(**settings):
    return ProposalNetwork(8, STRIDES, ProposalConfig(**settings))


@pytest.mark.parametrize(("level", "size"), [("p2", 32), ("p3", 64), ("p4", 128), ("p5", 256), ("p6", 512)])
def test_base_anchors_are_detectron2s(units, level, size):
    assert torch.equal(base_anchors(size, RATIOS), units(f"anchors/cell_{level}"))


@pytest.mark.parametrize(("level", "size", "stride"), [("p2", 32, 4), ("p5", 256, 32)])
def test_anchors_cover_a_grid_in_detectron2s_order(units, level, size, stride):
    anchors = grid_anchors(base_anchors(size, RATIOS), 2, 3, stride, offset=0.5)
    assert torch.equal(anchors, units(f"anchors/{level}_grid2x3"))


def test_anchors_start_at_the_corner_of_their_cell_by_default():
    anchors = grid_anchors(base_anchors(32, (1.0,)), 1, 2, 4)
    assert anchors.tolist() == [[-16, -16, 16, 16], [-12, -16, 20, 16]]


def test_anchors_match_objects_as_in_detectron2(units):
    index, kind = match(
        overlaps(units("matcher/gt"), half_stride_anchors(units)), 0.3, 0.7, keep_best_of_each=True
    )
    counts = [int((kind == value).sum()) for value in (-1, 0, 1)]
    assert counts == units("matcher/rpn_counts_ignore_neg_pos").tolist()
    positive = torch.nonzero(kind == 1).squeeze(1)
    assert torch.equal(positive, units("matcher/rpn_positive_indices"))
    assert torch.equal(index[positive], units("matcher/rpn_positive_matches"))


def test_the_losses_are_detectron2s(units):
    # All 106 anchors are drawn: fewer than 256, fewer than half of them positive.
    chosen = half_stride_anchors(units)[units("rpn_loss/anchor_indices")]
    predictions = AnchorPredictions(
        [units("rpn_loss/logits")[None]], [units("rpn_loss/deltas")[None]], [chosen]
    )
    losses = network().loss(predictions, [units("matcher/gt")])
    torch.testing.assert_close(losses["rpn_objectness"], units("rpn_loss/loss_rpn_cls"))
    torch.testing.assert_close(losses["rpn_box"], units("rpn_loss/loss_rpn_loc"))


def test_predictions_are_in_the_order_of_the_anchors():
    rpn = network()
    maps = features()
    predictions = rpn(maps)
    hidden = torch.relu(rpn.conv(maps[1]))
    row, column, shape = 3, 5, 2
    flat = (row * maps[1].shape[3] + column) * len(RATIOS) + shape
    assert torch.equal(predictions.logits[1][0, flat], rpn.objectness(hidden)[0, shape, row, column])
    expected = rpn.deltas(hidden)[0, 4 * shape : 4 * shape + 4, row, column]
    assert torch.equal(predictions.deltas[1][0, flat], expected)
    centre = predictions.anchors[1][flat].view(2, 2).mean(0)
    assert centre.tolist() == pytest.approx([column * 8, row * 8])


def test_proposals_lie_in_the_unpadded_image_best_first():
    proposals = network(after_nms=20).propose(network()(features()), [(50, 90), (64, 33)])
    for found, (height, width) in zip(proposals, [(50, 90), (64, 33)], strict=True):
        assert 0 < len(found.boxes) <= 20
        assert has_area(found.boxes).all()
        assert found.boxes.min() >= 0
        assert found.boxes[:, 2].max() <= width
        assert found.boxes[:, 3].max() <= height
        assert torch.equal(found.logits, found.logits.sort(descending=True).values)


def test_an_image_of_one_pixel_has_proposals():
    proposals = network().propose(network()(features(1, height=1, width=1)), [(1, 1)])
    assert proposals[0].boxes.tolist() == [[0, 0, 1, 1]] * len(proposals[0].boxes)
    assert len(proposals[0].boxes) >= 1


def test_proposals_that_are_not_finite_are_dropped_at_test_and_refused_in_training():
    predictions = network()(features(1))
    predictions.deltas[0][0, 7] = float("nan")
    predictions.logits[0][0, 7] = 100.0
    (found,) = network().propose(predictions, [(64, 96)])
    assert torch.isfinite(found.boxes).all()
    assert len(found.boxes) > 0
    with pytest.raises(FloatingPointError, match="region proposals: 1 of"):
        network().propose(predictions, [(64, 96)], training=True)


def test_an_image_without_objects_is_all_background():
    rpn = network()
    losses = rpn.loss(rpn(features(1)), [torch.zeros(0, 4)])
    assert losses["rpn_box"].item() == 0
    assert losses["rpn_objectness"].item() == pytest.approx(0.69, abs=0.1)
    sum(losses.values()).backward()
    assert rpn.conv.weight.grad is not None
    assert rpn.deltas.weight.grad is not None


def test_a_generator_makes_losses_repeat():
    rpn = network(samples=8)
    predictions, objects = rpn(features(1)), [torch.tensor([[10.0, 10, 40, 40]])]
    first, second = (
        rpn.loss(predictions, objects, generator=torch.Generator().manual_seed(3))["rpn_objectness"]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_every_level_needs_an_anchor_size():
    with pytest.raises(ValueError, match="one for each of the 2 levels"):
        ProposalNetwork(8, (4, 8), ProposalConfig())
