"""Preprocessing: the sizes, resizing and batches of the two projects whose numbers we reproduce."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.models.inputs import (
    Preprocessing,
    batch_images,
    prepare_images,
    resize_image,
    resize_to,
    resized_size,
)
from tests.helpers import random_image


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((640, 427), (1199, 800)),
        ((333, 500), (800, 1201)),
        ((1024, 2048), (667, 1333)),
        ((100, 1000), (133, 1333)),
        ((799, 801), (800, 802)),
    ],
)
def test_detectron2_sizes(size, expected):
    assert resized_size(*size, Preprocessing(short_edge=800, long_edge=1333)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((128, 160), (1024, 1280)),
        ((1024, 2048), (1024, 2048)),
        ((101, 157), (1024, 1592)),
        ((10, 500), (41, 2048)),
    ],
)
def test_mmsegmentation_sizes(size, expected):
    assert resized_size(*size, Preprocessing(short_edge=1024, long_edge=2048, resize="cv2")) == expected


def test_no_edge_means_no_resizing_and_a_lone_long_edge_only_shrinks():
    image = random_image(40, 100)
    assert resize_image(image, Preprocessing()) is image
    assert resize_image(image, Preprocessing(long_edge=200)) is image
    assert resize_image(image, Preprocessing(long_edge=50)).shape == (3, 20, 50)


@pytest.mark.parametrize("method", ["pil", "cv2"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (7, 5)])
def test_tiny_images_become_at_least_one_pixel(method, size):
    preprocessing = Preprocessing(short_edge=80, long_edge=133, resize=method)
    resized = resize_image(torch.full((3, *size), 77, dtype=torch.uint8), preprocessing)
    assert min(resized.shape[1:]) >= 1
    assert max(resized.shape[1:]) <= 133
    assert (resized == 77).all()


def test_a_result_too_large_for_memory_is_refused():
    with pytest.raises(ValueError, match=r"1x2000 pixels would become 800x1600000.*long_edge"):
        resize_image(random_image(1, 2000), Preprocessing(short_edge=800))


def test_pil_resizing_is_pillows_antialiased_bilinear():
    image = random_image(40, 60)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((20, 13), Image.Resampling.BILINEAR)
    resized = resize_to(image, (13, 20), "pil")
    assert torch.equal(resized, torch.from_numpy(np.array(expected)).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(31, 47), (20, 30), (7, 9), (80, 120), (40, 61), (1, 1)])
def test_cv2_resizing_is_unantialiased_bilinear_to_within_rounding(size):
    image = random_image(40, 60)
    expected = torch.nn.functional.interpolate(image[None].double(), size, mode="bilinear")[0]
    assert (resize_to(image, size, "cv2").double() - expected).abs().max() <= 1.0


def test_cv2_resizing_rounds_as_opencv_does():
    """Values of cv2.resize(..., INTER_LINEAR), OpenCV 5.0: 11-bit weights, 16-bit intermediate rows."""
    row = torch.tensor([[0, 100, 255]], dtype=torch.uint8).expand(3, 1, 3)
    assert resize_to(row, (1, 6), "cv2")[0].tolist() == [[0, 25, 75, 139, 216, 255]]
    half = torch.tensor([[1, 2], [4, 8]], dtype=torch.uint8).expand(3, 2, 2)
    assert resize_to(half, (1, 1), "cv2")[0].item() == (1 + 2 + 4 + 8 + 2) // 4


def test_flipping_commutes_with_resizing():
    image = random_image(21, 34)
    for method in ("pil", "cv2"):
        one = resize_to(image.flip(-1), (40, 50), method)
        other = resize_to(image, (40, 50), method).flip(-1)
        assert (one.int() - other.int()).abs().max() <= 1


def test_a_batch_is_normalised_padded_with_zeros_and_remembers_sizes():
    preprocessing = Preprocessing(mean=(10, 20, 30), std=(1, 2, 4))
    images = [random_image(33, 20), random_image(5, 70)]
    batch = batch_images(images, preprocessing)
    assert batch.tensor.shape == (2, 3, 64, 96)
    assert batch.tensor.dtype == torch.float32
    assert batch.sizes == [(33, 20), (5, 70)]
    assert batch.padded_size == (64, 96)
    assert len(batch) == 2
    torch.testing.assert_close(batch.tensor[0, 1, :33, :20], (images[0][1].float() - 20) / 2)
    assert batch.tensor[0, :, 33:].abs().sum() == 0
    assert batch.tensor[1, :, :, 70:].abs().sum() == 0


def test_bgr_networks_see_the_same_normalisation_in_the_other_order():
    image = random_image(4, 4)
    rgb = batch_images([image], Preprocessing(divisor=1)).tensor
    bgr = batch_images([image], Preprocessing(divisor=1, channel_order="BGR")).tensor
    assert torch.equal(bgr, rgb.flip(1))


def test_floating_images_are_taken_in_0_255():
    image = random_image(4, 4)
    exact = batch_images([image], Preprocessing()).tensor
    assert torch.equal(batch_images([image.float()], Preprocessing()).tensor, exact)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"uint8 tensor \(3, H, W\).*float32 \(3, 4, 4\)"):
        resize_image(torch.zeros(3, 4, 4), Preprocessing())
    with pytest.raises(ValueError, match=r"\(4, 4, 3\)"):
        resize_image(random_image(4, 4).permute(1, 2, 0), Preprocessing())
    with pytest.raises(ValueError, match=r"\(3, 0, 4\)"):
        resize_image(random_image(0, 4), Preprocessing())
    with pytest.raises(ValueError, match="empty list"):
        batch_images([], Preprocessing())
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        batch_images([random_image(4, 4)[:1]], Preprocessing())


@pytest.mark.parametrize(
    "settings",
    [{"std": (0, 1, 1)}, {"channel_order": "GRB"}, {"resize": "lanczos"}, {"short_edge": 0}, {"divisor": 0}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Preprocessing(**settings)


def test_images_of_several_sizes_are_prepared_as_one_by_one_and_padded():
    preprocessing = Preprocessing(short_edge=8, long_edge=16, divisor=4)
    images = [random_image(9, 12), random_image(16, 10), random_image(1, 1)]
    together = prepare_images(images, preprocessing)
    assert len(together) == 3
    for one, slot, size in zip(images, together.tensor, together.sizes, strict=True):
        alone = prepare_images([one], preprocessing)
        assert alone.sizes == [size]
        assert torch.equal(alone.tensor[0, :, : size[0], : size[1]], slot[:, : size[0], : size[1]])
        assert not slot[:, size[0] :].any()
        assert not slot[:, :, size[1] :].any()
    with pytest.raises(ValueError, match="expected a uint8 tensor"):
        prepare_images([images[0].float()], preprocessing)
