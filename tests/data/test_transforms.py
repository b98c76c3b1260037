from __future__ import annotations

import colorsys
import pickle

import pytest
import torch

from pointrend.data.transforms import (
    ColorJitter,
    RandomCrop,
    RandomFit,
    RandomFlip,
    RandomScale,
    ResizeShortEdge,
    _saturated,
    training_transforms,
)
from pointrend.structures import Sample, SemanticTarget


def painted(height: int, width: int, classes: int = 3) -> Sample:
    """Vertical stripes in the grey of 50 times their label: the image tells what the labels should be."""
    labels = (torch.arange(width) * classes // width).to(torch.uint8).expand(height, width).contiguous()
    return Sample((labels * 50).expand(3, height, width).contiguous(), SemanticTarget(labels), "stripes")


def agreement(sample: Sample) -> float:
    """Share of pixels whose colour tells their label."""
    labels = sample.target.labels
    return float((sample.image[0].float() / 50 - labels.float()).abs().lt(0.5)[labels != 255].float().mean())


def test_image_and_labels_stay_together_through_the_whole_recipe() -> None:
    torch.manual_seed(0)
    recipe = training_transforms((40, 48), color=False)
    for _ in range(20):
        sample = recipe(painted(60, 90))
        assert sample.image.shape == (3, 40, 48)
        assert sample.target.labels.shape == (40, 48)
        assert agreement(sample) > 0.99


def test_torch_seed_alone_decides() -> None:
    recipe = training_transforms((40, 48))

    def run(seed: int) -> Sample:
        torch.manual_seed(seed)
        return recipe(painted(60, 90))

    assert torch.equal(run(1).image, run(1).image)
    assert not torch.equal(run(1).image, run(2).image)


def test_transforms_travel_to_worker_processes() -> None:
    assert pickle.loads(pickle.dumps(training_transforms((8, 8)))) == training_transforms((8, 8))


def test_the_recipe_leaves_its_input_alone() -> None:
    sample = painted(30, 30)
    before = sample.image.clone(), sample.target.labels.clone()
    for _ in range(5):
        training_transforms((16, 16))(sample)
    assert torch.equal(sample.image, before[0])
    assert torch.equal(sample.target.labels, before[1])


def test_labels_are_resized_about_pixel_centres() -> None:
    sample = Sample(
        torch.zeros(3, 1, 4, dtype=torch.uint8), SemanticTarget(torch.tensor([[0, 1, 2, 3]]).byte()), 0
    )
    halved = RandomScale(0.5, 0.5)(sample)
    # Output centres lie at 1 and 3: between two pixels, of which the right one is taken.
    assert halved.target.labels.tolist() == [[1, 3]]
    flipped = RandomFlip(1.0)(RandomScale(3.0, 3.0)(sample))
    assert flipped.target.labels[0].tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_a_small_image_is_padded_with_ignored_pixels() -> None:
    sample = RandomCrop(6, 10)(painted(4, 7))
    assert sample.image.shape == (3, 6, 10)
    labels = sample.target.labels
    assert (labels[4:] == 255).all()
    assert (labels[:, 7:] == 255).all()
    assert (labels[:4, :7] != 255).all()
    assert sample.image[:, 5, 9].tolist() == [124, 116, 104]


def test_a_one_pixel_image_goes_through() -> None:
    sample = training_transforms((2, 2))(painted(1, 1))
    assert sample.image.shape == (3, 2, 2)


def test_crops_avoid_windows_of_one_class() -> None:
    labels = torch.zeros(40, 400, dtype=torch.uint8)
    labels[:, 200:] = 1
    sample = Sample(torch.zeros(3, 40, 400, dtype=torch.uint8), SemanticTarget(labels), 0)
    torch.manual_seed(0)

    def share_of_mixed(crop: RandomCrop) -> float:
        windows = [crop(sample).target.labels for _ in range(60)]
        return sum(0.25 <= float(window.float().mean()) <= 0.75 for window in windows) / 60

    assert share_of_mixed(RandomCrop(40, 100, largest_share=1.0)) < 0.35
    assert share_of_mixed(RandomCrop(40, 100, tries=40)) > 0.95


def test_an_image_without_labels_is_still_cropped() -> None:
    sample = Sample(
        torch.zeros(3, 9, 9, dtype=torch.uint8), SemanticTarget(torch.full((9, 9), 255).byte()), 0
    )
    assert RandomCrop(4, 4)(sample).image.shape == (3, 4, 4)


def test_flipping_twice_changes_nothing() -> None:
    sample = painted(5, 8)
    twice = RandomFlip(1.0)(RandomFlip(1.0)(sample))
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.target.labels, sample.target.labels)
    assert RandomFlip(0.0)(sample) is sample


def test_saturation_is_that_of_hsv() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(3, 5, 5) * 255
    for factor in (0.5, 1.0, 1.5):
        changed = _saturated(pixels, factor)
        for y, x in ((0, 0), (2, 3), (4, 4)):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[:, y, x].tolist())
            expected = colorsys.hsv_to_rgb(hue, min(saturation * factor, 1.0), value)
            assert changed[:, y, x].tolist() == pytest.approx(expected, abs=1e-3)
    grey = torch.full((3, 2, 2), 90.0)
    assert torch.equal(_saturated(grey, 1.5), grey)


def test_colours_change_but_stay_in_range_and_labels_do_not() -> None:
    torch.manual_seed(0)
    sample = painted(8, 9)
    changed = [ColorJitter()(sample) for _ in range(20)]
    assert all(c.image.dtype == torch.uint8 and c.image.shape == sample.image.shape for c in changed)
    assert sum(not torch.equal(c.image, sample.image) for c in changed) > 10
    assert all(c.target is sample.target for c in changed)


def test_impossible_settings_and_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="0 < smallest <= largest"):
        RandomScale(2.0, 1.0)
    with pytest.raises(ValueError, match="at least 1x1"):
        RandomCrop(0, 5)
    with pytest.raises(ValueError, match="at least one length"):
        ResizeShortEdge(())
    with pytest.raises(ValueError, match="SemanticTarget, InstanceTarget"):
        RandomFlip(1.0)(Sample(torch.zeros(3, 2, 2, dtype=torch.uint8), None, 0))


def test_random_fit_brings_images_of_any_size_to_one_scale() -> None:
    fit = RandomFit(200, 100, 1.0, 1.0)
    for size, expected in (((50, 100), (100, 200)), ((100, 50), (200, 100)), ((80, 80), (100, 100))):
        labels = SemanticTarget(torch.zeros(size, dtype=torch.uint8))
        sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), labels, "a", None)
        assert tuple(fit(sample).image.shape[-2:]) == expected
    with pytest.raises(ValueError, match="short <= long"):
        RandomFit(100, 200)
