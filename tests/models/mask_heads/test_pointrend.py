"""Mask heads: PointRend, its coarse prediction, the 4x conv baseline."""

from __future__ import annotations

import pytest
import torch

from pointrend.core import PointSampling, binary_uncertainty, regular_grid, subdivide
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.coarse import CoarseHead, CoarseMaskHead
from pointrend.models.mask_heads.conv import ConvMaskHead
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.mask_heads.targets import TrueMasks
from pointrend.structures import InstanceMasks

LEVELS = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
CHANNELS = dict.fromkeys(LEVELS, 6)


def config(**settings):
    return MaskConfig(**{"width": 12, "coarse_width": 16, "mask_size": 56, **settings})


def build(kind=PointRendMaskHead, classes=4, **settings):
    head = kind(CHANNELS, LEVELS, classes, config(**settings))
    for name, parameter in head.named_parameters():  # untrained heads predict next to nothing
        if name.endswith(("predictor.weight", "prediction.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    return head


def maps(images=2, height=64, width=96):
    return {
        name: torch.randn(images, 6, height // stride, width // stride) for name, stride in LEVELS.items()
    }


def some_regions(labels=(3, 0, 1)):
    boxes = torch.tensor([[4.0, 8, 40, 60], [-10, -5, 30, 20], [50.5, 20, 51.5, 21]])
    return Regions(boxes, torch.tensor([0, 0, 1]), torch.tensor(labels))


def no_regions():
    return Regions(torch.zeros(0, 4), *(torch.zeros(0, dtype=torch.int64) for _ in range(2)))


KINDS = [PointRendMaskHead, CoarseMaskHead, ConvMaskHead]


@pytest.mark.parametrize(
    ("num_points", "mask_size", "start"),
    [
        (784, 224, 28),
        (784, 14, 14),
        (783, 224, 14),
        (4 * 49, 224, 14),
        (1, 224, 7),
        (784, 5, 5),
        (10**6, 100, 56),
    ],
)
def test_subdivision_starts_from_the_coarse_side_doubled_while_the_points_cover_it(
    num_points, mask_size, start
):
    assert MaskConfig(num_points=num_points, mask_size=mask_size).start_size == start


def test_the_published_head_takes_three_steps_from_28_to_224():
    head = build(mask_size=224, num_points=784)
    _, trace = head.trace(maps(), some_regions())
    assert trace.start.shape == (3, 1, 28, 28)
    assert [step.size for step in trace.steps] == [(56, 56), (112, 112), (224, 224)]
    assert [step.index.shape[1] for step in trace.steps] == [784] * 3


@pytest.mark.parametrize("side", [5, 28, 56, 100])
def test_masks_have_any_resolution(side):
    assert build(mask_size=side).predict(maps(), some_regions()).shape == (3, side, side)


def test_pooling_samples_once_a_bin_and_sees_zeros_outside():
    head = CoarseHead(1, 49, MaskConfig())
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    regions = Regions(
        torch.tensor([[8.0, 8, 36, 36], [-100, 0, -44, 56]]), torch.zeros(2).long(), torch.zeros(2).long()
    )
    pooled = head.pool(ramp, 4, regions)
    expected = (8 + 28 * (torch.arange(14) + 0.5) / 14) / 4 - 0.5
    assert torch.allclose(pooled[0, 0], expected.expand(14, 14), atol=1e-5)
    assert pooled[1].abs().max() == 0


def test_channels_are_reduced_only_where_there_are_more_than_the_head_has():
    assert CoarseHead(256, 49, MaskConfig()).reduce_channels is None
    head = CoarseHead(300, 49, MaskConfig())
    assert head.reduce_channels is not None
    assert head(torch.randn(1, 300, 14, 14)).shape == (1, 49)
    assert CoarseHead(8, 49, MaskConfig())(torch.randn(1, 8, 14, 14)).shape == (1, 49)


def test_the_coarse_loss_is_detectron2s(units):
    logits = units("coarse_loss/logits").requires_grad_()
    regions = Regions(units("labels/boxes"), torch.zeros(3, dtype=torch.int64), units("labels/classes"))
    masks = [InstanceMasks.from_dense(units("labels/masks"))]
    loss = TrueMasks(regions, torch.arange(3), masks).grid_loss(regions.own(logits))
    torch.testing.assert_close(loss, units("coarse_loss/loss"))
    loss.backward()
    torch.testing.assert_close(logits.grad, units("coarse_loss/grad"))


def test_carrying_only_the_boxs_class_along_is_exact():
    head, features, regions = build(num_points=100, mask_size=56), maps(), some_regions()
    rows = torch.arange(3)
    with torch.no_grad():
        logits, trace = head.trace(features, regions)

        def every_class(points):
            fine_of = head.predictor(features, trace.coarse, regions)
            parts = []
            for label in range(4):
                same = Regions(regions.boxes, regions.image_index, torch.full((3,), label))
                parts.append(head.predictor(features, trace.coarse, same)(points))
            assert torch.allclose(torch.cat(parts, 1)[rows, regions.labels], fine_of(points)[:, 0])
            return torch.cat(parts, 1)

        side = head.config.start_size
        start = every_class(regular_grid(side, side, regions=3)).unflatten(2, (side, side))
        full = subdivide(
            start,
            every_class,
            sizes=[step.size for step in trace.steps],
            num_points=100,
            uncertainty=lambda all_logits: binary_uncertainty(all_logits[rows, regions.labels][:, None]),
        )
    assert torch.allclose(full[rows, regions.labels], logits, atol=1e-6)


def test_enough_points_predict_every_cell():
    head, features, regions = build(num_points=56**2, mask_size=56), maps(), some_regions()
    with torch.no_grad():
        logits, trace = head.trace(features, regions)
        everywhere = head.predictor(features, trace.coarse, regions)(regular_grid(56, 56, regions=3))
    assert torch.allclose(logits.flatten(1), everywhere[:, 0], atol=1e-5)


def test_predicting_in_pieces_changes_nothing(monkeypatch):
    head, features, regions = build(), maps(), some_regions()
    whole = head.predict(features, regions)
    monkeypatch.setattr(PointRendMaskHead, "boxes_at_once", 1)
    assert torch.allclose(head.predict(features, regions), whole, atol=1e-5)


def test_a_residual_head_starts_from_the_interpolated_coarse_mask():
    head = PointRendMaskHead(CHANNELS, LEVELS, 4, config(residual=True, mask_size=28))
    features, regions = maps(), some_regions()
    with torch.no_grad():
        logits, trace = head.trace(features, regions)
    own = trace.coarse[torch.arange(3), regions.labels][:, None]
    upsampled = torch.nn.functional.interpolate(own, (28, 28), mode="bilinear")
    assert torch.allclose(logits, upsampled[:, 0], atol=1e-6)


def test_fine_features_may_come_from_several_maps():
    head = build(features=("p2", "p4"))
    assert head.point_head.fine_channels == 12
    assert head.predict(maps(), some_regions()).shape == (3, 56, 56)
    with pytest.raises(ValueError, match=r"expected some of \['p2'"):
        build(features=("p7",))


@pytest.mark.parametrize("kind", KINDS)
def test_one_mask_for_all_classes(kind):
    head = build(kind, classes=80, class_agnostic=True)
    assert head.masks == 1
    features = maps()
    first = head.predict(features, some_regions((79, 3, 1)))
    assert torch.equal(first, head.predict(features, some_regions((0, 0, 0))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 1203])
def test_few_and_many_classes_have_masks(kind, classes):
    head = build(kind, classes=classes, mask_size=28)
    logits = head.predict(maps(), some_regions((0, classes - 1, classes // 2)))
    assert torch.isfinite(logits).all()
    assert len(logits) == 3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_have_no_masks_and_a_connected_loss_of_zero(kind, memory_format, target):
    head = build(kind)
    given = {name: level.contiguous(memory_format=memory_format) for name, level in maps().items()}
    with torch.no_grad():
        predicted = head.predict(given, no_regions())
    assert predicted.shape[0] == 0
    assert predicted.shape[1] == predicted.shape[2] >= 7
    masks = [target((64, 96), []).masks] * 2
    losses = head.loss(maps(), TrueMasks(no_regions(), torch.zeros(0, dtype=torch.int64), masks))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_losses_reach_every_parameter_and_the_features(kind, target):
    head, features = build(kind), {name: level.requires_grad_() for name, level in maps().items()}
    masks = [
        target((64, 96), [(4, 8, 40, 60), (0, 0, 30, 20)]).masks,
        target((64, 96), [(50, 20, 52, 22)]).masks,
    ]
    losses = head.loss(features, TrueMasks(some_regions(), torch.tensor([0, 1, 0]), masks))
    sum(losses.values()).backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in head.parameters())
    assert features["p2"].grad.abs().sum() > 0


def test_training_points_repeat_with_a_generator(target):
    head, features = build(sampling=PointSampling(9)), maps()
    masks = [target((64, 96), [(4, 8, 40, 60)] * 2).masks, target((64, 96), [(50, 20, 52, 22)]).masks]
    targets = TrueMasks(some_regions(), torch.tensor([0, 1, 0]), masks)
    first, second = (
        head.loss(features, targets, generator=torch.Generator().manual_seed(4))["mask_points"]
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("side", [28, 224])
def test_the_baseline_pools_half_its_resolution(side):
    head = ConvMaskHead(CHANNELS, LEVELS, 4, config(), mask_size=side)
    features, regions = maps(), some_regions()
    with torch.no_grad():
        pooled = head.pool(features, regions)
        assert pooled.shape == (3, 6, side // 2, side // 2)
        every_class = head(pooled)
    assert every_class.shape == (3, 4, side, side)
    own = every_class[torch.arange(3), regions.labels]
    assert torch.allclose(head.predict(features, regions), own, atol=1e-6)


def test_the_baseline_needs_an_even_side():
    with pytest.raises(ValueError, match="even number of cells"):
        ConvMaskHead(CHANNELS, LEVELS, 4, config(), mask_size=27)


def test_points_stay_in_place_under_autocast():
    # Far from the corner, bfloat16 pixels are 4 apart: a head that rounded them would sample another place.
    head = PointRendMaskHead(CHANNELS, LEVELS, 2, config(residual=True, mask_size=28))
    features = {name: level.expand(1, 6, *level.shape[2:]) for name, level in maps(1, 32, 2048).items()}
    ramp = torch.arange(512.0) / 512
    features["p2"] = ramp.expand(1, 6, 8, 512).contiguous()
    regions = Regions(torch.tensor([[1501.0, 3, 1519, 21]]), torch.tensor([0]), torch.tensor([0]))
    exact = head.coarse_head.pool(features["p2"], 4, regions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.coarse_head.pool(features["p2"], 4, regions), exact)
        assert head.predict(features, regions).dtype == torch.float32
