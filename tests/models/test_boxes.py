"""The arithmetic of boxes, against Detectron2's and at its edges."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from pointrend.models.boxes import (
    BoxCoder,
    Regions,
    balanced_sample,
    clip_boxes,
    grouped_nms,
    has_area,
    match,
    overlaps,
    pyramid_level,
)

ROI_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count, seed=0, size=100.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * size / 2], dim=1)


@pytest.mark.parametrize(("name", "coder"), [("rpn", BoxCoder()), ("roi", BoxCoder(ROI_WEIGHTS))])
def test_boxes_are_coded_as_in_detectron2(units, name, coder):
    source, target = units("box_transform/src"), units("box_transform/dst")
    torch.testing.assert_close(coder.encode(source, target), units(f"box_transform/{name}_deltas"))
    applied = coder.decode(source, units(f"box_transform/{name}_big_deltas"))
    torch.testing.assert_close(applied, units(f"box_transform/{name}_applied"), rtol=1e-6, atol=1e-4)


def test_decoding_undoes_encoding():
    source, target = random_boxes(20, 1), random_boxes(20, 2)
    coder = BoxCoder(ROI_WEIGHTS)
    torch.testing.assert_close(coder.decode(source, coder.encode(source, target)), target)


def test_a_box_grows_at_most_62_times_in_one_step():
    grown = BoxCoder().decode(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1e9, 1e9]]))
    assert torch.allclose(grown[0, 2:] - grown[0, :2], torch.tensor(62.5))


def test_boxes_stay_float32_when_deltas_are_not():
    deltas = torch.zeros(1, 4, dtype=torch.bfloat16)
    box = torch.tensor([[1001.25, 3, 1333.75, 800]])
    assert torch.equal(BoxCoder().decode(box, deltas), box)


def test_a_one_pixel_box_is_coded_exactly():
    pixel, anchor = torch.tensor([[7.0, 9, 8, 10]]), torch.tensor([[0.0, 0, 32, 32]])
    assert torch.allclose(BoxCoder().decode(anchor, BoxCoder().encode(anchor, pixel)), pixel, atol=1e-5)


def test_clipping_keeps_both_borders():
    boxes = torch.tensor([[-5.0, -1, 330, 240], [320, 10, 400, 20], [1, 2, 3, 4]])
    clipped = clip_boxes(boxes, (240, 320))
    assert clipped.tolist() == [[0, 0, 320, 240], [320, 10, 320, 20], [1, 2, 3, 4]]
    assert has_area(clipped).tolist() == [True, False, True]


def test_matching_has_a_band_that_counts_as_neither():
    iou = torch.tensor([[0.1, 0.5, 0.7], [0.2, 0.3, 0.1]])
    index, kind = match(iou, 0.3, 0.7)
    assert index.tolist() == [1, 0, 0]
    assert kind.tolist() == [0, -1, 1]


def test_each_objects_best_candidates_become_positive_but_keep_their_own_match():
    iou = torch.tensor([[0.6, 0.1, 0.0], [0.4, 0.0, 0.0]])
    index, kind = match(iou, 0.3, 0.7, keep_best_of_each=True)
    assert kind.tolist() == [1, 0, 0]
    assert index.tolist()[0] == 0  # best of object 1 too, yet it stays with object 0


def test_ties_for_the_best_candidate_are_all_positive():
    _, kind = match(torch.tensor([[0.2, 0.2, 0.1]]), 0.3, 0.7, keep_best_of_each=True)
    assert kind.tolist() == [1, 1, 0]


def test_an_object_that_nothing_touches_makes_nothing_positive():
    _, kind = match(torch.zeros(1, 4), 0.3, 0.7, keep_best_of_each=True)
    assert kind.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_matching_nothing_is_background(shape):
    index, kind = match(torch.zeros(shape), 0.3, 0.7, keep_best_of_each=True)
    assert index.tolist() == kind.tolist() == [0] * shape[1]


def test_overlaps_are_the_same_in_blocks():
    objects, candidates = random_boxes(37, 3), random_boxes(11, 4)
    assert torch.equal(overlaps(objects, candidates), box_iou(objects, candidates))


def test_sampling_limits_positives_and_fills_up_with_background():
    kind = torch.tensor([1] * 10 + [0] * 50 + [-1] * 40)
    positive, negative = balanced_sample(kind, 16, 0.25)
    assert len(positive) == 4
    assert len(negative) == 12
    assert (kind[positive] == 1).all()
    assert (kind[negative] == 0).all()
    few, many = balanced_sample(kind[9:], 16, 0.25)
    assert len(few) == 1
    assert len(many) == 15


def test_a_generator_makes_sampling_repeat():
    kind = torch.tensor([1, 0] * 50)
    draws = [balanced_sample(kind, 20, 0.5, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][1], draws[2][1])


@pytest.mark.parametrize("limit", [3, 20, 1000])
def test_grouped_nms_is_nms_in_every_group(limit):
    boxes, generator = random_boxes(300), torch.Generator().manual_seed(1)
    scores, group = torch.rand(300, generator=generator), torch.randint(0, 5, (300,), generator=generator)
    assert torch.equal(
        grouped_nms(boxes, scores, group, 0.3, limit), batched_nms(boxes, scores, group, 0.3)[:limit]
    )


def test_nms_is_exact_with_1203_groups():
    # The pair overlaps by 0.5 + 1e-6; shifted by 1.6 million pixels, float32 would lose that.
    pair = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 20 - 4e-5]])
    boxes = torch.cat([pair, torch.tensor([[0.0, 0, 1333, 1333]])])
    kept = grouped_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1202, 1202, 0]), 0.5, 10)
    assert kept.tolist() == [0, 2]


def test_nms_ranks_by_logits_where_sigmoids_are_all_one():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10]])
    kept = grouped_nms(boxes, torch.tensor([40.0, 41.0]), torch.zeros(2, dtype=torch.int64), 0.5, 10)
    assert kept.tolist() == [1]


def test_nms_of_nothing_keeps_nothing():
    empty = torch.zeros(0, dtype=torch.int64)
    assert grouped_nms(torch.zeros(0, 4), torch.zeros(0), empty, 0.5, 10).tolist() == []


@pytest.mark.parametrize(
    ("side", "level"), [(1, 2), (111, 2), (112, 3), (223, 3), (224, 4), (448, 5), (4000, 5), (0, 2)]
)
def test_larger_boxes_belong_to_coarser_levels(side, level):
    assert pyramid_level(torch.tensor([[3.0, 3, 3 + side, 3 + side]]), 2, 5).tolist() == [level]


def test_levels_go_by_area():
    assert pyramid_level(torch.tensor([[0.0, 0, 448, 112]]), 2, 5).tolist() == [4]
    assert math.sqrt(448 * 112) == 224


def test_regions_join_and_split_with_images_that_have_none():
    boxes = [torch.zeros(0, 4), random_boxes(2), torch.zeros(0, 4), random_boxes(1)]
    regions = Regions.from_lists(boxes, [torch.zeros(len(b), dtype=torch.int64) for b in boxes])
    assert regions.image_index.tolist() == [1, 1, 3]
    assert [len(part) for part in regions.split(regions.boxes, 4)] == [0, 2, 0, 1]
    assert [len(part) for part in regions.chunks(2)] == [2, 1]


def test_regions_of_nothing_are_one_empty_chunk():
    empty = Regions.from_lists([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])
    assert [len(part) for part in empty.chunks(8)] == [0]


def test_boxes_without_their_labels_are_refused():
    with pytest.raises(ValueError, match=r"image 0: expected boxes \(R, 4\) and labels"):
        Regions.from_lists([torch.zeros(2, 4)], [torch.zeros(3, dtype=torch.int64)])
