"""The whole instance segmenter: it trains, predicts, and meets the odd cases."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pointrend.models.backbones import BackboneConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.structures import InstanceMasks
from tests.helpers import random_image


@pytest.fixture
def model(tiny_config):
    return InstanceSegmenter(tiny_config()).eval()


@pytest.fixture
def batch(target):
    """An image with two objects and a crowd, one without any."""
    images = [random_image(64, 96), random_image(70, 50, seed=1)]
    boxes = [(10, 10, 50, 40), (60, 30, 61, 31), (0, 0, 96, 20)]
    return images, [target((64, 96), boxes, [0, 2, 1], [False, False, True]), target((70, 50), [])]


@pytest.mark.parametrize("head", ["pointrend", "coarse", "conv28", "conv224"])
def test_every_head_trains_and_predicts(tiny_config, batch, head):
    model = InstanceSegmenter(tiny_config(mask_head=head))
    losses = model.loss(*batch)
    assert {"rpn_objectness", "rpn_box", "box_class", "box_regression"} < set(losses)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    results = model.eval().predict(batch[0])
    assert [result.masks.image_size for result in results] == [(64, 96), (70, 50)]
    assert [len(result) for result in results] == [5, 5]


def test_a_few_steps_lower_the_loss(tiny_config, batch):
    model = InstanceSegmenter(tiny_config())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        total = sum(model.loss(*batch, generator=torch.Generator().manual_seed(0)).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert min(totals[-3:]) < 0.8 * totals[0]


@pytest.mark.parametrize("head", ["pointrend", "coarse", "conv28"])
def test_a_batch_without_objects_reaches_every_parameter(tiny_config, target, head):
    model = InstanceSegmenter(tiny_config(mask_head=head))
    losses = model.loss([random_image(64, 64)], [target((64, 64), [])])
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_crowds_are_no_targets(tiny_config, target):
    image, box = random_image(64, 96), [(10, 10, 50, 40)]
    model = InstanceSegmenter(tiny_config()).eval()
    losses = []
    for truth in (target((64, 96), box, crowd=[True]), target((64, 96), [])):
        losses.append(model.loss([image], [truth], generator=torch.Generator().manual_seed(0)))
    assert losses[0] == losses[1]


def test_boxes_without_area_are_no_targets(tiny_config, target):
    flat = target((64, 96), [(10, 10, 50, 10), (20, 20, 40, 50)])
    losses = InstanceSegmenter(tiny_config()).loss([random_image(64, 96)], [flat])
    assert all(torch.isfinite(value) for value in losses.values())


def test_boxes_partly_outside_are_fine(tiny_config, target):
    outside = dataclasses.replace(
        target((64, 96), [(60, 30, 96, 64)]), boxes=torch.tensor([[60.0, 30, 140, 90]])
    )
    losses = InstanceSegmenter(tiny_config()).loss([random_image(64, 96)], [outside])
    assert all(torch.isfinite(value) for value in losses.values())


def test_masks_train_on_the_predicted_boxes_unless_told_otherwise(tiny_config, batch, monkeypatch):
    for predicted in (True, False):
        model = InstanceSegmenter(tiny_config(masks={"train_on_predicted_boxes": predicted}))
        seen = {}
        coarse_logits = model.mask_head.coarse_logits

        def record(features, regions, seen=seen, coarse_logits=coarse_logits):
            seen["boxes"] = regions.boxes
            return coarse_logits(features, regions)

        monkeypatch.setattr(model.mask_head, "coarse_logits", record)
        monkeypatch.setattr(model.box_head, "boxes_of_class", lambda delta, box, label: box + 1000)
        model.loss(*batch)
        assert bool((seen["boxes"] >= 1000).all()) is predicted
        assert not seen["boxes"].requires_grad


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 1), (33, 51)])
def test_odd_images_are_predicted_in_their_own_pixels(model, size):
    (result,) = model.predict([random_image(*size)])
    assert result.masks.image_size == size
    assert len(result) > 0
    assert result.boxes.min() >= 0
    assert (result.boxes[:, 2:].max(0).values <= torch.tensor([size[1], size[0]])).all()
    assert result.masks.dense().shape == (len(result), *size)


def test_a_very_long_image_is_refused_or_shrunk_by_its_long_edge(tiny_config):
    config = tiny_config()
    unlimited = dataclasses.replace(config.preprocessing, short_edge=800, long_edge=None)
    with pytest.raises(ValueError, match="set long_edge"):
        InstanceSegmenter(dataclasses.replace(config, preprocessing=unlimited)).predict(
            [random_image(1, 2000)]
        )
    (result,) = InstanceSegmenter(config).eval().predict([random_image(1, 2000)])
    assert result.masks.image_size == (1, 2000)


def test_no_images_have_no_results(model):
    assert model.predict([]) == []


def test_images_without_detections_have_empty_results(tiny_config):
    config = tiny_config()
    boxes = dataclasses.replace(config.boxes, score_threshold=1.0)
    model = InstanceSegmenter(dataclasses.replace(config, boxes=boxes)).eval()
    for result in model.predict([random_image(64, 96), random_image(20, 30)], uncertainty=True):
        assert result.boxes.shape == (0, 4)
        assert len(result) == len(result.masks) == 0
        assert result.uncertainty.shape == (0, 56, 56)


@pytest.mark.parametrize("classes", [1, 1203])
def test_few_and_many_classes(tiny_config, target, classes):
    names = [f"class {number}" for number in range(classes)]
    model = InstanceSegmenter(tiny_config(names)).eval()
    losses = model.loss([random_image(64, 64)], [target((64, 64), [(5, 5, 60, 50)], [classes - 1])])
    assert all(torch.isfinite(value) for value in losses.values())
    (result,) = model.predict([random_image(64, 64)])
    assert result.class_names == tuple(names)
    assert result.labels.max() < classes


def test_uncertainty_is_given_where_asked_for(model):
    image = random_image(64, 96)
    assert model.predict([image])[0].uncertainty is None
    (result,) = model.predict([image], uncertainty=True)
    assert result.uncertainty.shape == (len(result), 56, 56)
    assert 0 <= result.uncertainty.min() <= result.uncertainty.max() <= 1


def test_a_trace_tells_how_the_prediction_came_about(model):
    images = [random_image(64, 96), random_image(70, 50, seed=1)]
    trace = model.trace(images)
    for traced, result in zip(trace.results, model.predict(images), strict=True):
        assert torch.equal(traced.boxes, result.boxes)
        assert torch.equal(traced.masks.dense(), result.masks.dense())
    assert len(trace.regions) == sum(len(found.boxes) for found in trace.detections) == len(trace.logits)
    assert trace.masks.coarse.shape == (10, 3, 7, 7)
    assert [step.size for step in trace.masks.steps] == [(56, 56)]


def test_masks_for_given_boxes_are_those_of_the_same_detections(model):
    trace = model.trace([random_image(64, 96)])
    found = trace.detections[0]
    (logits,) = model.masks_for_boxes(trace.features, [found.boxes], [found.labels])
    torch.testing.assert_close(logits, trace.logits)  # by the fast path and by the textbook one


def test_masks_for_given_boxes_may_be_none_for_an_image(model):
    features = model.features(model.prepare([random_image(64, 96), random_image(64, 96)]))
    empty, one = torch.zeros(0, 4), torch.tensor([[3.0, 3, 30, 30]])
    logits = model.masks_for_boxes(features, [empty, one], [torch.zeros(0).long(), torch.zeros(1).long()])
    assert [part.shape for part in logits] == [(0, 56, 56), (1, 56, 56)]


def test_boxes_that_vanish_in_the_original_image_are_dropped_with_their_masks(model):
    trace = model.trace([random_image(64, 96)])
    found = trace.detections[0]
    boxes = found.boxes.clone()
    boxes[1] = torch.tensor([5.0, 5, 5, 20])
    changed = dataclasses.replace(found, boxes=boxes)
    (result,) = model.finish([random_image(64, 96)], trace.batch, [changed], [trace.logits])
    assert len(result) == len(found.boxes) - 1
    assert torch.equal(result.scores, found.scores[[0, 2, 3, 4]])


def test_calling_the_model_predicts(model):
    image = random_image(64, 96)
    assert torch.equal(model([image])[0].boxes, model.predict([image])[0].boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([3])}, r"target 0: expected labels 0\.\.2, got \[3\]"),
        ({"labels": torch.tensor([-1])}, r"target 0: expected labels 0\.\.2, got \[-1\]"),
        ({"boxes": torch.tensor([[0.0, 0, float("nan"), 5]])}, "target 0: boxes are not finite"),
        (
            {"masks": InstanceMasks([torch.ones(2, 2)], torch.zeros(1, 2).long(), (32, 32))},
            "resize both together",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(model, target, change, message):
    wrong = dataclasses.replace(target((64, 96), [(5, 5, 30, 30)]), **change)
    with pytest.raises(ValueError, match=message):
        model.loss([random_image(64, 96)], [wrong])


def test_each_image_needs_a_target(model, target):
    with pytest.raises(ValueError, match="a target for each image, got 2 and 1"):
        model.loss([random_image(64, 96)] * 2, [target((64, 96), [])])


def test_images_must_be_uint8(model):
    with pytest.raises(ValueError, match="uint8"):
        model.predict([torch.rand(3, 64, 96)])


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("rpn.deltas.bias", "region proposals"),
        ("box_head.deltas.bias", "box"),
        ("mask_head.point_head.predictor.bias", "mask_points"),
        ("mask_head.coarse_head.fc1.bias", "mask_coarse"),
        ("backbone.stem.0.weight", "NaN or infinite"),
    ],
)
def test_training_stops_at_nan_and_says_where(tiny_config, batch, parameter, message):
    model = InstanceSegmenter(tiny_config())
    with torch.no_grad():
        model.get_parameter(parameter).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=message):
        model.loss(*batch)


def test_bfloat16_autocast_trains_and_keeps_boxes_float32(tiny_config, batch):
    model = InstanceSegmenter(tiny_config())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(*batch)
        assert all(value.dtype == torch.float32 for value in losses.values())
        trace = model.eval().trace(batch[0])
    sum(losses.values()).backward()
    assert trace.features["p2"].dtype == torch.bfloat16
    assert trace.regions.boxes.dtype == torch.float32


def test_frozen_stages_do_not_train(tiny_config, batch):
    model = InstanceSegmenter(tiny_config(freeze_stages=2))
    sum(model.loss(*batch).values()).backward()
    assert all(parameter.grad is None for parameter in model.backbone.res2.parameters())
    assert all(parameter.grad is not None for parameter in model.backbone.res3.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ()}, "at least one class"),
        ({"mask_head": "maskformer"}, "mask_head: expected 'pointrend'"),
        ({"backbone": BackboneConfig("resnet18", output_stride=16)}, "output_stride 32"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_config(), **changes)


def test_the_published_model_has_60_million_parameters():
    # 229.95 MB as published, of float32: 60.3 million numbers, FrozenBN's buffers among them.
    with torch.device("meta"):
        model = InstanceSegmenter(InstanceConfig(tuple(str(number) for number in range(80))))
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    assert round(count / 1e6) == 60


@pytest.mark.parametrize(
    ("box", "label"),
    [((0, 0, float("nan"), 9), 0), ((0, 0, float("inf"), 9), 0), ((0, 0, 9, 9), 99), ((0, 0, 9, 9), -1)],
)
def test_masks_for_boxes_that_cannot_be_are_refused(model, box, label) -> None:
    features = model.features(model.prepare([random_image(64, 96)]))
    with pytest.raises(ValueError, match=r"expected finite boxes and labels 0\.\..*leave it out"):
        model.masks_for_boxes(features, [torch.tensor([[1.0, 1, 5, 5], box])], [torch.tensor([0, label])])


def test_one_image_in_place_of_a_list_is_refused(model) -> None:
    with pytest.raises(ValueError, match="expected a uint8 tensor"):
        model.predict(random_image(64, 96))
