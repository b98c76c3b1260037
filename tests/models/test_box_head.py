"""The box branch, against Detectron2's and at its edges."""

from __future__ import annotations

import pytest
import torch

from pointrend.models.box_head import (
    BoxHead,
    BoxHeadConfig,
    SampledProposals,
    pool_regions,
    select_detections,
)

STRIDES = (4, 8, 16, 32)


def head(classes=5, **settings):
    return BoxHead(3, classes, STRIDES, BoxHeadConfig(width=16, **settings))


def test_pooling_is_detectron2s(units):
    features = [units(f"roi_pool/p{level}") for level in (2, 3, 4, 5)]
    boxes = [units("roi_pool/boxes0"), units("roi_pool/boxes1")]
    torch.testing.assert_close(head().pool(features, boxes), units("roi_pool/out"), rtol=1e-5, atol=1e-5)


def test_pooling_no_boxes_gives_no_features():
    features = [torch.zeros(1, 3, 64 // s, 64 // s) for s in STRIDES]
    assert head().pool(features, [torch.zeros(0, 4)]).shape == (0, 3, 7, 7)


def test_boxes_outside_of_the_image_pool_finite_numbers():
    features = [torch.ones(1, 3, 64 // s, 64 // s) for s in STRIDES]
    boxes = torch.tensor([[-500.0, -500, -400, -400], [-10, -10, 30, 30], [63, 63, 64, 64]])
    pooled = pool_regions(features, STRIDES, boxes, torch.zeros(3, dtype=torch.int64), 7)
    assert torch.isfinite(pooled).all()
    assert pooled[0].abs().max() == 0
    assert torch.allclose(pooled[2], torch.ones(()))


def test_coordinates_stay_float32_when_features_are_bfloat16():
    # A ramp tells where it was sampled; 1001.3 is 1000 or 1004 in bfloat16, a whole cell away.
    ramp = torch.arange(512.0).expand(1, 1, 8, 512)
    box, index = torch.tensor([[1001.3, 4, 1015.3, 18]]), torch.zeros(1, dtype=torch.int64)
    exact = pool_regions([ramp], [4], box, index, 7)
    half = pool_regions([ramp.bfloat16()], [4], box, index, 7)
    assert half.dtype == torch.float32
    assert (
        half - exact
    ).abs().max() <= 0.5 + 1e-3  # bfloat16 integers between 128 and 256 are exact, above rounded
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pool_regions([ramp], [4], box, index, 7), exact)


def sampled(boxes, labels, truth):
    return [SampledProposals(boxes, labels, torch.zeros_like(labels), truth)]


def test_the_losses_are_detectron2s(units):
    given = sampled(units("box_loss/proposals"), units("box_loss/gt_classes"), units("box_loss/gt_boxes"))
    losses = head().loss(units("box_loss/cls_logits"), units("box_loss/deltas"), given)
    torch.testing.assert_close(losses["box_class"], units("box_loss/loss_cls"))
    torch.testing.assert_close(losses["box_regression"], units("box_loss/loss_box_reg"))


def test_background_alone_has_a_connected_box_loss_of_zero():
    branch = head()
    logits, deltas = branch(torch.randn(4, 3, 7, 7))
    losses = branch.loss(logits, deltas, sampled(torch.rand(4, 4), torch.full((4,), 5), torch.zeros(4, 4)))
    assert losses["box_regression"].item() == 0
    sum(losses.values()).backward()
    assert branch.deltas.weight.grad is not None


def test_no_proposals_have_losses_of_zero():
    branch = head()
    logits, deltas = branch(torch.zeros(0, 3, 7, 7))
    empty = torch.zeros(0, 4)
    losses = branch.loss(logits, deltas, sampled(empty, torch.zeros(0, dtype=torch.int64), empty))
    assert [value.item() for value in losses.values()] == [0, 0]


def test_detections_are_detectron2s(units):
    threshold, nms, limit = units("detect/thresholds").tolist()
    config = BoxHeadConfig(score_threshold=threshold, nms_threshold=nms, max_detections=int(limit))
    boxes = units("detect/boxes").unflatten(1, (-1, 4))
    found = select_detections(
        boxes, units("detect/probs")[:, :-1], tuple(units("detect/image_size").tolist()), config
    )
    assert torch.equal(found.labels, units("detect/out_classes"))
    torch.testing.assert_close(found.boxes, units("detect/out_boxes"))
    torch.testing.assert_close(found.scores, units("detect/out_scores"))


def test_detections_that_are_not_finite_are_dropped():
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0, 0, float("nan"), 10]], [[20, 20, 30, 30]]])
    scores = torch.tensor([[0.9], [0.9], [float("inf")]])
    found = select_detections(boxes, scores, (40, 40), BoxHeadConfig())
    assert found.boxes.tolist() == [[0, 0, 10, 10]]


def test_nothing_above_the_threshold_is_no_detection():
    found = select_detections(torch.zeros(3, 2, 4), torch.full((3, 2), 0.05), (40, 40), BoxHeadConfig())
    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0


def test_one_proposal_may_be_two_classes():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10]]])
    found = select_detections(boxes, torch.tensor([[0.4, 0.5]]), (40, 40), BoxHeadConfig())
    assert found.labels.tolist() == [1, 0]


@pytest.mark.parametrize("classes", [1, 1203])
def test_few_and_many_classes_detect(classes):
    branch = head(classes, score_threshold=0.0, max_detections=7)
    proposals = [torch.tensor([[0.0, 0, 30, 30], [20, 10, 60, 50]]), torch.zeros(0, 4)]
    with torch.no_grad():
        logits, deltas = branch(torch.randn(2, 3, 7, 7))
    first, second = branch.detect(logits, deltas, proposals, [(64, 64), (64, 64)])
    assert len(first.boxes) == min(7, 2 * classes)
    assert len(second.boxes) == 0
    assert first.labels.max() < classes


def test_true_boxes_join_the_proposals():
    truth, classes = [torch.tensor([[5.0, 5, 25, 25]])], [torch.tensor([3])]
    (found,) = head().sample([torch.tensor([[40.0, 40, 60, 60]])], truth, classes)
    assert found.boxes.tolist() == [[5, 5, 25, 25], [40, 40, 60, 60]]
    assert found.labels.tolist() == [3, 5]  # 5 is background
    assert found.matched[0] == 0


def test_at_most_a_quarter_of_the_samples_are_positive():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(100, 1)
    boxes[50:] += 50
    (found,) = head(samples=32).sample([boxes], [boxes[:1]], [torch.tensor([0])])
    assert (found.labels == 0).sum() == 8
    assert len(found.labels) == 32


def test_without_objects_all_samples_are_background():
    (found,) = head(samples=4).sample(
        [torch.rand(9, 4)], [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]
    )
    assert found.labels.tolist() == [5] * 4


def test_the_box_of_a_class_is_neither_clipped_nor_differentiated():
    branch = head(2)
    deltas = torch.zeros(1, 8, requires_grad=True) + torch.tensor([[0.0] * 4 + [-100.0, 0, 0, 0]])
    box = branch.boxes_of_class(deltas, torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]))
    assert box.tolist() == [[-100, 0, -90, 10]]
    assert not box.requires_grad
