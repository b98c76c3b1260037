from __future__ import annotations

import pytest
import torch

from pointrend.core.sampling import point_sample, points_in_boxes, points_in_image
from pointrend.core.selection import PointSampling, sample_labelled_points
from pointrend.models.mask_heads.base import MaskConfig


def test_labelled_points_are_centres_of_labelled_pixels_each_once():
    labels = torch.full((2, 6, 8), 255)
    labels[0, 1, 2], labels[0, 5, 7], labels[1, 0, 0] = 1, 0, 2
    points = sample_labelled_points(labels, 100)
    assert points.shape == (2, 2, 2)  # as many as the map with most of them has
    truth = point_sample(labels[:, None].float(), points, mode="nearest")[:, 0]
    assert sorted(truth[0].tolist()) == [0, 1]
    assert sorted(truth[1].tolist()) == [2, 255]  # filled up with one that does not count
    assert {(round(8 * x, 4), round(6 * y, 4)) for x, y in points[0].tolist()} == {(2.5, 1.5), (7.5, 5.5)}


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5)])
def test_labelled_points_of_a_map_without_labels_count_nowhere(shape):
    points = sample_labelled_points(torch.full(shape, 255), 7)
    assert points.shape == (shape[0], 1, 2)


def test_of_many_labelled_pixels_others_are_drawn_each_time_and_for_each_generator():
    labels = torch.zeros(2, 20, 20, dtype=torch.int64)
    seeds = [[torch.Generator().manual_seed(seed) for seed in pair] for pair in ((1, 2), (3, 2))]
    first, second = (sample_labelled_points(labels, 50, generator=pair) for pair in seeds)
    assert len(torch.unique(first[0], dim=0)) == 50
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    with pytest.raises(ValueError, match="one for each of 2"):
        sample_labelled_points(labels, 50, generator=seeds[0][:1])


def test_a_mask_head_has_no_label_map_to_choose_points_by():
    with pytest.raises(ValueError, match="semantic models"):
        MaskConfig(sampling=PointSampling(9, strategy="labelled"))


def test_points_go_to_boxes_and_back():
    boxes = torch.tensor([[4.0, 8, 40, 60], [-10, -5, 30, 20]])
    points = torch.rand(2, 9, 2)
    torch.testing.assert_close(points_in_boxes(points_in_image(points, boxes), boxes), points)
