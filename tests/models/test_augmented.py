"""Looking several times: the average of the views, and no preference for left or right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import batch_images
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.models.tta import (
    AugmentedSemantic,
    FlippedInstances,
    SlidingSemantic,
    _mirrored,
)
from tests.helpers import random_image


def make_image(height: int = 64, width: int = 96) -> Tensor:
    return random_image(height, width, seed=3)


@pytest.fixture
def detector(tiny_config) -> InstanceSegmenter:
    torch.manual_seed(0)
    return InstanceSegmenter(tiny_config()).eval()


@pytest.fixture
def segmenter() -> SemanticSegmenter:
    torch.manual_seed(0)
    config = SemanticConfig(
        ("a", "b", "c"),
        backbone=BackboneConfig("resnet18", "batch"),
        fpn_channels=16,
        decoder_channels=16,
        point_rend=SemanticPointRendConfig(width=16, num_points=64),
    )
    return SemanticSegmenter(config).eval()


def test_a_mirrored_image_gives_the_mirrored_objects(detector) -> None:
    image, model = make_image(), FlippedInstances(detector)
    plain, mirrored = model.predict([image, image.flip(-1)])
    assert len(plain) == 5
    torch.testing.assert_close(mirrored.scores, plain.scores)
    assert torch.equal(mirrored.labels, plain.labels)
    torch.testing.assert_close(_mirrored(mirrored.boxes, 96), plain.boxes, atol=1e-3, rtol=0)
    different = (mirrored.masks.dense().flip(-1) != plain.masks.dense()).float().mean()
    assert different < 2e-3  # a pixel at exactly one half may fall either way
    alone = detector.predict([image.flip(-1)])[0]
    assert not torch.allclose(_mirrored(alone.boxes, 96), detector.predict([image])[0].boxes, atol=1e-3)


def test_boxes_come_from_both_views_and_masks_are_the_mean_of_both(detector) -> None:
    image = make_image()
    found = FlippedInstances(detector).predict([image], uncertainty=True)[0]
    views = [detector.predict([image])[0], detector.predict([image.flip(-1)])[0]]
    boxes = torch.cat([views[0].boxes, _mirrored(views[1].boxes, 96)])
    distance = (found.boxes[:, None] - boxes).abs().amax(-1)
    assert float(distance.amin(1).max()) < 1e-3
    assert float(found.scores[0]) == pytest.approx(max(float(v.scores[0]) for v in views), abs=1e-6)
    probabilities = []
    for mirror in (False, True):
        batch = batch_images([image.flip(-1) if mirror else image], detector.config.preprocessing)
        own = _mirrored(found.boxes, 96) if mirror else found.boxes
        [logits] = detector.masks_for_boxes(detector.features(batch), [own], [found.labels])
        probabilities.append((logits.flip(-1) if mirror else logits).sigmoid())
    mean = sum(probabilities) / 2
    torch.testing.assert_close(found.uncertainty, 1 - (2 * mean - 1).abs(), atol=1e-4, rtol=0)


def test_an_image_in_which_nothing_is_found_stays_empty(tiny_config) -> None:
    from dataclasses import replace

    config = tiny_config()
    config = replace(config, boxes=replace(config.boxes, score_threshold=1.0))
    found = FlippedInstances(InstanceSegmenter(config).eval()).predict([make_image(41, 50)])[0]
    assert len(found) == 0
    assert found.masks.image_size == (41, 50)


def test_semantic_labels_are_the_best_of_the_mean(segmenter) -> None:
    image = make_image(33, 50)
    model = AugmentedSemantic(segmenter, scales=(0.5, 1.25))
    expected = model.grid(image).rows(0, 33).argmax(0)
    assert torch.equal(model.predict([image])[0].labels.long(), expected)
    [coarse] = model.predict([image], refine=False)
    rough = model.grid(image, refine=False).rows(0, 33).argmax(0)
    assert torch.equal(coarse.labels.long(), rough)
    assert not torch.equal(rough, expected)
    once = AugmentedSemantic(segmenter, scales=(1.0,), flip=False)
    assert torch.equal(once.predict([image])[0].labels, segmenter.predict([image])[0].labels)


def test_scales_must_be_positive(segmenter) -> None:
    with pytest.raises(ValueError, match="scales"):
        AugmentedSemantic(segmenter, scales=())


def test_the_stand_in_has_the_models_mode_and_configuration(segmenter) -> None:
    model = AugmentedSemantic(segmenter)
    assert model.config is segmenter.config
    assert model.train().training
    assert not model.eval().training
    assert not segmenter.training


def test_windows_that_hold_the_image_change_nothing(segmenter) -> None:
    image = make_image()
    [plain] = segmenter.predict([image])
    assert torch.equal(SlidingSemantic(segmenter, (64, 96)).predict([image])[0].labels, plain.labels)
    [seen, other] = SlidingSemantic(segmenter, (32, 48)).predict([image, image[:, :1, :1]])
    assert seen.labels.shape == (64, 96)
    assert other.labels.shape == (1, 1)
    assert seen.class_names == plain.class_names


@pytest.mark.parametrize(
    ("window", "stride", "what"),
    [((0, 4), None, "window"), ((4, 4), (5, 4), "stride"), ((4, 4), (4, 0), "stride")],
)
def test_windows_that_leave_gaps_are_refused(segmenter, window, stride, what) -> None:
    with pytest.raises(ValueError, match=f"{what}: expected"):
        SlidingSemantic(segmenter, window, stride)
