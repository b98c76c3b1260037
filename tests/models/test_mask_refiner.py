"""A refiner corrects masks of any size, starts from the mask it is given, and goes through its file unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pointrend.checkpoints.mask_refiner import load_refiner, save_refiner
from pointrend.models.mask_refiner import MaskPair, MaskRefiner, MaskRefinerConfig, guided_filter
from tests.helpers import random_image

TINY = MaskRefinerConfig(widths=(8, 8, 8, 8), radii=(4,), point_width=8, training_points=64, num_points=200)


def refiner() -> MaskRefiner:
    torch.manual_seed(1)
    return MaskRefiner(TINY).eval()


def trained_a_little() -> MaskRefiner:
    model = refiner()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


SIZES = [(1, 1), (1, 300), (37, 53), (200, 60), (3, 1500), (1100, 700)]


@pytest.mark.parametrize("size", SIZES)
def test_before_training_a_mask_stays_as_it_is(size: tuple[int, int]) -> None:
    mask = torch.rand(size) > 0.5
    assert torch.equal(refiner().logits(random_image(*size), mask.float()) > 0, mask)


@pytest.mark.parametrize("size", SIZES)
def test_masks_of_any_size_are_corrected_at_the_images_size(size: tuple[int, int]) -> None:
    logits = trained_a_little().logits(random_image(*size), torch.rand(9, 5))
    assert logits.shape == size
    assert torch.isfinite(logits).all()


def test_every_layer_learns() -> None:
    model = trained_a_little().train()
    truth = torch.zeros(32, 64, dtype=torch.uint8)
    truth[8:20, 10:30] = 1
    truth[0] = 255
    losses = model.loss([random_image(32, 64)] * 2, [MaskPair(truth, torch.rand(32, 64))] * 2)
    assert set(losses) == {"coarse", "points"}
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_guided_filter_moves_an_outline_to_the_edge_of_the_image() -> None:
    colors = torch.full((1, 3, 40, 60), -0.8)
    colors[..., 30:] = 0.8
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., 33:] = 1  # three pixels beside it
    found = guided_filter(colors, mask, 12)
    assert ((found > 0.5) == (colors[:, :1] > 0)).all()
    half = (
        F.interpolate(colors, scale_factor=0.5, mode="area"),
        F.interpolate(mask, scale_factor=0.5, mode="area"),
    )
    assert ((guided_filter(*half, 6, at=colors) > 0.5) == (colors[:, :1] > 0)).all()


def test_where_the_image_is_flat_the_guided_filter_is_a_mean() -> None:
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 12:] = 1
    found = guided_filter(torch.zeros(1, 3, 24, 24), mask, 4)
    assert torch.isfinite(found).all()
    assert (found[..., 12:] > 0.5).all()
    assert (found[..., :12] < 0.5).all()


def test_a_refiner_goes_through_its_file(tmp_path: Path) -> None:
    model = trained_a_little()
    save_refiner(model, tmp_path / "refiner.safetensors")
    pixels, mask = random_image(30, 40), torch.rand(30, 40)
    assert torch.equal(
        load_refiner(tmp_path / "refiner.safetensors").logits(pixels, mask), model.logits(pixels, mask)
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="expected a mask refiner"):
        load_refiner(tmp_path / "text.safetensors")
    with pytest.raises(FileNotFoundError):
        load_refiner(tmp_path / "absent.safetensors")
