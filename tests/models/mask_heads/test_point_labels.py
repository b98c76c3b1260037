"""PointSup's loss: mask logits read at labelled points in the proposals, a mean over all points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pointrend.models.boxes import Regions
from pointrend.models.inputs import points_to_learn
from pointrend.models.instance import HEADS, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.targets import PointsInBoxes
from pointrend.structures import InstanceMasks, InstanceTarget, LabelledPoints

LEVELS = ("p2", "p3", "p4", "p5")
CHANNELS, STRIDES = dict.fromkeys(LEVELS, 6), {level: 4 * 2**number for number, level in enumerate(LEVELS)}


def features():
    return {level: torch.randn(2, 6, 64 // stride, 96 // stride) for level, stride in STRIDES.items()}


def regions(count=3):
    boxes = torch.tensor([[4.0, 8, 40, 60], [-10, -5, 30, 20], [50, 10, 90, 50]])[:count]
    return Regions(boxes, torch.tensor([0, 0, 1])[:count], torch.tensor([2, 0, 1])[:count])


def head(name):
    return HEADS[name](CHANNELS, STRIDES, 3, MaskConfig(width=8, coarse_width=16, mask_size=56))


def points(count=3, each=10):
    labels = torch.randint(-1, 2, (count, each)).float()
    return PointsInBoxes(regions(count), torch.rand(count, each, 2), labels)


def target(size=(64, 96), boxes=((10, 10, 50, 40),), each=10, **changes):
    count = len(boxes)
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    spread = torch.rand(count, each, 2) * (corners[:, None, 2:] - corners[:, None, :2]) + corners[:, None, :2]
    masks = InstanceMasks(
        [torch.zeros(0, 0, dtype=torch.uint8)] * count, torch.zeros(count, 2, dtype=torch.int64), size
    )
    labels, crowd = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    known = LabelledPoints(spread, torch.randint(0, 2, (count, each)).float())
    return replace(InstanceTarget(corners, labels, masks, crowd, known), **changes)


def test_the_loss_is_a_mean_over_all_points_ignored_ones_included():
    torch.manual_seed(0)
    logits, given = torch.randn(3, 10), points()
    x, t = logits.double().numpy(), given.labels.numpy()
    each = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    assert 0 < (t < 0).sum() < 30
    expected = each[t >= 0].sum() / 30
    assert given.point_loss(lambda _: logits[:, None], None, None).item() == pytest.approx(expected, rel=1e-6)


def test_points_follow_their_object_into_each_proposal():
    truth = [
        LabelledPoints(torch.tensor([[[4.0, 8], [40, 60], [22, 34]], [[0.0, 0], [30, 20], [31, 0]]]), torch.ones(2, 3)),
        LabelledPoints(torch.tensor([[[50.0, 10], [90, 50], [70, 60]]]), torch.zeros(1, 3)),
    ]  # fmt: skip
    found = PointsInBoxes.of(truth, regions(), torch.tensor([0, 1, 0]))
    assert found.coords[0].tolist() == [[0, 0], [1, 1], [0.5, 0.5]]
    assert found.coords[1, 0].tolist() == [0.25, pytest.approx(0.2)]
    # On the border a point counts; strictly outside it does not.
    assert found.labels.tolist() == [[1, 1, 1], [1, 1, -1], [0, 0, -1]]


@pytest.mark.parametrize("name", HEADS)
def test_only_the_true_class_learns_and_every_layer_does(name):
    torch.manual_seed(0)
    mask_head = head(name) if name != "conv224" else head("conv56")
    losses = mask_head.loss(features(), points())
    expected = {"pointrend": {"mask_coarse", "mask_points"}, "coarse": {"mask_coarse"}}
    assert set(losses) == expected.get(
        name, {"mask_points", "mask_parameters"} if name == "implicit" else {"mask"}
    )
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in mask_head.parameters())
    if name == "conv28":  # of three classes the boxes are of all; without box 0, class 2 gets nothing
        mask_head.zero_grad()
        part = PointsInBoxes(regions()[torch.tensor([1, 2])], torch.rand(2, 4, 2), torch.ones(2, 4))
        mask_head.loss(features(), part)["mask"].backward()
        assert mask_head.predictor.weight.grad.flatten(1).abs().sum(1).ne(0).tolist() == [True, True, False]


@pytest.mark.parametrize("name", ["pointrend", "coarse", "conv28", "implicit"])
def test_without_a_proposal_the_loss_is_zero_and_keeps_the_graph(name):
    mask_head = head(name)
    losses = mask_head.loss(features(), points(0))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()


def test_the_4x_conv_head_reads_its_masks_bilinearly_with_zeros_beyond():
    mask_head = head("conv28").eval()
    given, maps = regions(1), features()
    logits = mask_head.predict(maps, given)[0]
    centre, edge = [[2.5 / 28, 3.5 / 28]], [[0.0, 3.5 / 28]]
    for coords, value in ((centre, logits[3, 2]), (edge, logits[3, 0] / 2)):
        loss = mask_head.loss(maps, PointsInBoxes(given, torch.tensor([coords]), torch.ones(1, 1)))
        expected = torch.nn.functional.softplus(-value)
        torch.testing.assert_close(loss["mask"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["pointrend", "conv28", "implicit"])
def test_a_model_learns_from_points_and_an_image_without_objects(tiny_config, name):
    torch.manual_seed(0)
    model = InstanceSegmenter(tiny_config(mask_head=name))
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    empty = replace(target(boxes=()), points=None)
    for targets in ([target(), empty], [empty, empty]):
        losses = model.loss(images, targets)
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()


def test_masks_are_trained_on_proposals_whatever_the_configuration_says(tiny_config, monkeypatch):
    model = InstanceSegmenter(tiny_config(masks={"train_on_predicted_boxes": True}))
    asked = []
    positives = model.box_head.positives

    def note(*arguments, predicted):
        asked.append(predicted)
        return positives(*arguments, predicted=predicted)

    monkeypatch.setattr(model.box_head, "positives", note)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    model.loss([image], [target()])
    assert asked == [False]


def test_objects_with_and_without_points_do_not_mix():
    device = torch.device("cpu")
    assert points_to_learn([replace(target(), points=None)], device) is None
    (kept,) = points_to_learn([target(crowd=torch.tensor([True]))], device) or [None]
    assert kept is None  # a crowd is no object to learn
    for other in (replace(target(), points=None), target(each=5)):
        with pytest.raises(ValueError, match="as many labelled points"):
            points_to_learn([target(), other], device)
