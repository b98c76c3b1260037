"""Test-time augmentation and sliding windows, against the model's plain answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pointrend.core import lazy_grid
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing, batch_images
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.models.tta import AugmentedSemantic, SlidingSemantic, _windows
from tests.helpers import random_image


@pytest.fixture(scope="module")
def model():
    config = SemanticConfig(
        ("a", "b", "c"),
        backbone=BackboneConfig("mobilenet_v2"),
        preprocessing=Preprocessing(divisor=1, resize="cv2"),
        fpn_channels=8,
        decoder_channels=16,
        point_rend=SemanticPointRendConfig(width=8, num_points=50),
    )
    return SemanticSegmenter(config).eval()


@pytest.fixture(scope="module")
def image():
    return random_image(33, 50, seed=1)


def plain(model, image):
    with torch.no_grad():
        return model.logits(batch_images([image], model.config.preprocessing))


def whole(grid):
    return grid.rows(0, grid.shape[1])


def test_one_scale_without_flip_is_the_plain_answer(model, image):
    ours = whole(AugmentedSemantic(model, scales=(1.0,), flip=False).grid(image))
    torch.testing.assert_close(ours, plain(model, image).softmax(1)[0])


def test_probabilities_sum_to_one_and_mirror_with_the_image(model, image):
    ours = whole(AugmentedSemantic(model, scales=(0.5, 1.0)).grid(image))
    torch.testing.assert_close(ours.sum(0), torch.ones(33, 50))
    mirrored = whole(AugmentedSemantic(model, scales=(0.5, 1.0)).grid(image.flip(-1))).flip(-1)
    # Mirrored resizing in uint8 rounds by one step at some pixels.
    assert (ours - mirrored).abs().max() < 0.02


def test_one_window_is_the_plain_answer(model, image):
    ours = whole(SlidingSemantic(model, (64, 64), (32, 32)).grid(image))
    torch.testing.assert_close(ours, plain(model, image)[0])


def test_windows_are_averaged_where_they_overlap(model, image):
    """Each window is an image of its own."""
    total, counts = torch.zeros(3, 33, 50), torch.zeros(33, 50)
    for rows in (slice(0, 20), slice(13, 33)):  # the second would end at 40: shifted back inside
        for columns in (slice(0, 32), slice(18, 50)):
            total[:, rows, columns] += plain(model, image[:, rows, columns])[0]
            counts[rows, columns] += 1
    ours = whole(SlidingSemantic(model, (20, 32), (20, 30)).grid(image))
    torch.testing.assert_close(ours, total / counts)


@pytest.mark.parametrize("short_edge", [None, 20])
def test_labels_of_windows_are_read_in_row_chunks(model, image, short_edge, monkeypatch):
    """The whole grid of logits is never there."""
    config = replace(model.config, preprocessing=replace(model.config.preprocessing, short_edge=short_edge))
    monkeypatch.setattr(model, "config", config)
    logits = whole(SlidingSemantic(model, (16, 16), (10, 12)).grid(image))
    monkeypatch.setitem(lazy_grid.CHUNK_BYTES, "cpu", 1)
    grid = SlidingSemantic(model, (16, 16), (10, 12)).grid(image)
    read = []
    rows = grid.rows
    monkeypatch.setattr(grid, "rows", lambda first, last: read.append(last - first) or rows(first, last))
    assert torch.equal(grid.label_map().long(), logits.argmax(0))
    assert max(read) <= 4


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(1, 4, 2), (4, 4, 4), (5, 4, 4), (100, 32, 20), (96, 32, 32)]
)
def test_windows_cover_everything_and_stay_inside(length, window, stride):
    windows = _windows(length, window, stride)
    covered = {i for part in windows for i in range(part.start, part.stop)}
    assert covered == set(range(length))
    assert all(part.stop - part.start == min(window, length) for part in windows)


def test_wrong_settings_are_refused(model):
    for scales in ((), (1.0, 0.0), (float("inf"),), (float("nan"),)):
        with pytest.raises(ValueError, match="scales: expected one or more positive numbers"):
            AugmentedSemantic(model, scales=scales)
    with pytest.raises(ValueError, match=r"stride: expected 1 to the window's"):
        SlidingSemantic(model, (8, 8), (9, 8))


def test_an_image_of_one_pixel(model):
    image = torch.zeros(3, 1, 1, dtype=torch.uint8)
    assert whole(AugmentedSemantic(model, scales=(0.5, 2.0)).grid(image)).shape == (3, 1, 1)
    assert whole(SlidingSemantic(model, (8, 8), (8, 8)).grid(image)).shape == (3, 1, 1)
