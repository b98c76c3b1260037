"""Cropping true masks and pasting predicted ones, against Detectron2's and at their edges."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.targets import TrueMasks
from pointrend.models.paste_masks import (
    _mean_of_bins,
    crop_masks,
    paste_inside,
    paste_masks,
    paste_window,
)
from pointrend.structures import InstanceMasks


def full_crop(masks, boxes, side):
    """Detectron2's way: RoIAlign on full-image masks."""
    rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], dim=1)
    return roi_align(masks.float()[:, None], rois, side, sampling_ratio=0, aligned=True)[:, 0] >= 0.5


@pytest.mark.parametrize("side", [7, 28])
def test_cropped_targets_are_detectron2s(units, side):
    masks = InstanceMasks.from_dense(units("labels/masks"))
    cropped = crop_masks(masks, torch.arange(3), units("labels/boxes"), side)
    assert torch.equal(cropped.bool(), units(f"coarse_loss/target{side}"))


def test_soft_labels_are_detectron2s(units):
    masks, boxes = InstanceMasks.from_dense(units("labels/masks")), units("labels/boxes")
    points = boxes[:, None, :2] + units("labels/coords") * (boxes[:, None, 2:] - boxes[:, None, :2])
    regions = Regions(boxes, torch.zeros(3, dtype=torch.int64), units("labels/classes"))
    torch.testing.assert_close(
        TrueMasks(regions, torch.arange(3), [masks]).sampled(points),
        units("labels/out"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_cropping_a_window_is_cropping_the_whole_image():
    torch.manual_seed(3)
    masks = torch.zeros(6, 40, 50, dtype=torch.bool)
    masks[0, 5:20, 7:30] = masks[1, :10, :10] = masks[2, 30:, 40:] = masks[3] = masks[4, 17:18, 21:22] = True
    # mask 5 is empty; boxes reach over every border of window and image
    for _ in range(20):
        corner = torch.rand(6, 2) * 50 - 10
        boxes = torch.cat([corner, corner + 1 + torch.rand(6, 2) * 40], dim=1)
        cropped = crop_masks(InstanceMasks.from_dense(masks), torch.arange(6), boxes, 7)
        assert torch.equal(cropped.bool(), full_crop(masks, boxes, 7))


def test_batches_are_cropped_image_by_image(target):
    first = target((30, 30), [(0, 0, 10, 10), (10, 10, 30, 30)]).masks
    second = target((20, 40), []).masks
    third = target((20, 40), [(20, 0, 40, 20)]).masks
    boxes = torch.tensor([[10.0, 10, 30, 30], [0, 0, 10, 10], [20, 0, 40, 20]])
    regions = Regions(boxes, torch.tensor([0, 0, 2]), torch.zeros(3, dtype=torch.int64))
    assert TrueMasks(regions, torch.tensor([1, 0, 0]), [first, second, third]).cropped(7).min() == 1


def test_cropping_for_no_boxes_gives_no_targets(target):
    masks = target((30, 30), []).masks
    assert crop_masks(masks, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 7).shape == (0, 7, 7)


def test_pasted_masks_are_detectron2s(units):
    size = tuple(units("paste/image_size").tolist())
    masks, boxes = units("paste/masks"), units("paste/boxes")
    pasted = paste_masks(masks, boxes, size)
    assert torch.equal(pasted.dense(), units("paste/out"))
    for mask, box, expected in zip(masks, boxes, units("paste/out_soft255"), strict=True):
        window, (x, y) = paste_window(mask, box, size)
        soft = torch.zeros(size)
        soft[y : y + window.shape[0], x : x + window.shape[1]] = window * 255
        difference = (soft.to(torch.uint8).int() - expected.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("side", [1, 2, 7, 19])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_looking_along_the_outline_alone_gives_every_bit_of_the_whole_window(side, threshold):
    torch.manual_seed(side)
    for trial in range(30):
        corner, size = torch.rand(2) * 120 - 40, 2 + torch.rand(2) * 150
        box = torch.cat([corner, corner + size])
        blob = torch.nn.functional.interpolate(torch.randn(1, 1, 3, 3), (side, side), mode="bicubic")[0, 0]
        mask = (4 * blob).sigmoid() if trial % 3 else (torch.rand(side, side) * 4).round() / 4  # many at 0.5
        window, offset = paste_inside(mask, box, (100, 130), threshold)
        soft, same = paste_window(mask, box, (100, 130))
        assert offset == same
        assert torch.equal(window, soft >= threshold)


def test_a_large_box_is_interpolated_at_its_outline_only(monkeypatch):
    points = []
    sample = torch.nn.functional.grid_sample

    def counting(image, grid, **options):
        points.append(grid[..., 0].numel())
        return sample(image, grid, **options)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", counting)
    mask = torch.zeros(28, 28)
    mask[8:20, 8:20] = 1
    window, _ = paste_inside(mask, torch.tensor([0.0, 0, 1000, 1000]), (1000, 1000), 0.5)
    assert window.sum() == pytest.approx((1000 * 12 / 28) ** 2, rel=0.01)
    assert sum(points) < 0.1 * window.numel()


def test_a_window_is_its_box_and_a_pixel_around():
    window, offset = paste_window(torch.ones(7, 7), torch.tensor([3.2, 5.5, 8.9, 9.0]), (100, 100))
    assert offset == (2, 4)
    assert window.shape == (10 - 4, 10 - 2)


def test_a_one_pixel_box_fills_its_pixel():
    pasted = paste_masks(torch.ones(1, 28, 28), torch.tensor([[4.0, 6, 5, 7]]), (10, 10)).dense()[0]
    assert pasted.sum() == 1
    assert pasted[6, 4]


def test_a_box_beyond_the_image_is_cut():
    pasted = paste_masks(
        torch.ones(2, 7, 7), torch.tensor([[-50.0, -5, 6, 4], [200, 200, 210, 210]]), (10, 12)
    )
    assert pasted.dense()[0].sum() == 6 * 4
    assert pasted.windows[1].numel() == 0
    assert pasted.dense()[1].sum() == 0


def test_small_masks_stay_small_in_a_huge_image():
    pasted = paste_masks(
        torch.ones(1, 28, 28), torch.tensor([[1e5, 1e5, 1e5 + 20, 1e5 + 10]]), (200_000, 200_000)
    )
    assert pasted.windows[0].shape == (12, 22)


def test_pasting_nothing_gives_no_masks():
    assert len(paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 10))) == 0


def test_a_box_far_larger_than_the_image_is_cropped_in_little_memory() -> None:
    """At one sample a pixel the first would take 100 GB; an untrained box head predicts such boxes."""
    masks = InstanceMasks.from_dense(torch.ones(1, 30, 40, dtype=torch.uint8))
    boxes = torch.tensor([[-3e4, -3e4, 3e4, 3e4], [0.0, 0, 40, 30], [-2e4, 0, 6e4, 30]])
    targets = crop_masks(masks, torch.zeros(3, dtype=torch.int64), boxes, 7)
    assert targets.sum((1, 2)).tolist() == [0, 49, 0]


@pytest.mark.parametrize("side", [1, 7, 28])
def test_large_boxes_get_what_a_sample_a_pixel_gives(side, monkeypatch) -> None:
    torch.manual_seed(side)
    masks = InstanceMasks.from_dense(torch.rand(5, 90, 120) > 0.5)  # noise: means near 0.5
    corner = torch.rand(200, 2) * 160 - 60
    boxes = torch.cat([corner, corner + torch.rand(200, 2) * 150], dim=1)
    index = torch.arange(200) % 5
    exact = crop_masks(masks, index, boxes, side)
    monkeypatch.setattr("pointrend.models.paste_masks.LARGE", 0)
    # Bins of one or two pixels have a mean of one half up to rounding now and then.
    assert int((crop_masks(masks, index, boxes, side) != exact).sum()) <= 3
    for place in range(20):  # the means themselves, of which the targets are a bit each
        roi = torch.cat([torch.zeros(1), boxes[place]])[None].double()
        window = masks.windows[index[place]]
        mean = roi_align(window.double()[None, None], roi, side, sampling_ratio=0, aligned=True)[0, 0]
        torch.testing.assert_close(_mean_of_bins(window, boxes[place].double().tolist(), side), mean)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_box_that_is_not_finite_is_refused(wrong: float) -> None:
    masks = InstanceMasks.from_dense(torch.ones(1, 30, 40, dtype=torch.uint8))
    boxes = torch.tensor([[0.0, 0, 5, 5], [0, 0, wrong, 9]])
    with pytest.raises(ValueError, match="expected finite numbers, got"):
        crop_masks(masks, torch.zeros(2, dtype=torch.int64), boxes, 7)
