"""Published models cost what their authors say, as far as they say it."""

from __future__ import annotations

import pytest

from benchmarks import flops, zoo_flops
from benchmarks.zoo_flops import PUBLISHED, cost, table
from pointrend.zoo import ZOO
from pointrend.zoo.card import card
from pointrend.zoo.entries import MULTIPLY_ADDS


def test_a_cityscapes_image_costs_the_published_average() -> None:
    """All its images have one size, so only the number of detections differs from image to image."""
    name = "pointrend_rcnn_R_50_FPN_1x_cityscapes"
    assert cost(ZOO[name]).total / 1e9 == pytest.approx(PUBLISHED[name], abs=1)


def test_the_published_average_of_coco_lies_between_few_and_many_detections() -> None:
    name = "pointrend_rcnn_R_101_FPN_3x_coco"
    few, many = cost(ZOO[name], detections=10), cost(ZOO[name], detections=100)
    assert few.total < PUBLISHED[name] * 1e9 < many.total
    assert 10 * few.masks == many.masks == 100 * flops.pointrend_cost().macs


@pytest.mark.parametrize(
    "name", ["pointrend_r50_4xb4-160k_ade20k-512x512", "implicit_pointrend_R_50_FPN_1x_coco"]
)
def test_the_other_kinds_are_counted_too(name: str) -> None:
    one = cost(ZOO[name], (64, 96), detections=1)
    assert one.trunk > 0
    assert one.masks > 0
    assert f"| `{name}` | 64x96 |" in table([one])


@pytest.mark.parametrize(
    "name", ["pointrend_r50_4xb4-160k_ade20k-512x512", "pointrend_rcnn_R_50_FPN_1x_coco"]
)
def test_the_zoo_states_what_is_counted(name: str) -> None:
    assert MULTIPLY_ADDS.keys() == ZOO.keys()
    assert cost(ZOO[name]).total / 1e9 == pytest.approx(MULTIPLY_ADDS[name], abs=0.06)
    assert f"{MULTIPLY_ADDS[name]} G for an image of" in card(ZOO[name])


def test_larger_images_cost_more() -> None:
    entry = ZOO["pointrend_r50_4xb2-80k_cityscapes-512x1024"]
    assert cost(entry, (128, 128)).trunk == pytest.approx(4 * cost(entry, (64, 64)).trunk)


def test_padding_counts() -> None:
    assert tuple(zoo_flops.blank((800, 1199), 32).tensor.shape) == (1, 3, 800, 1216)
