"""Scores of label maps against pixel-by-pixel loops written from the definitions, and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor

from pointrend.evaluation.semantic_metrics import (
    BoundaryIoU,
    LabelMapEvaluator,
    MeanIoU,
    TrimapIoU,
    boundary_region,
    boundary_width,
)

IGNORED = 255


def random_maps(seed: int, height: int = 23, width: int = 31, classes: int = 4) -> tuple[Tensor, Tensor]:
    """A blocky target with ignored specks and a prediction that disagrees along the edges and in spots."""
    random = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, classes, (height // 6 + 1, width // 7 + 1), generator=random)
    target = blocks.repeat_interleave(6, 0).repeat_interleave(7, 1)[:height, :width].clone()
    prediction = torch.roll(target, (1, 2), (0, 1))
    spots = torch.rand(height, width, generator=random) < 0.05
    prediction[spots] = torch.randint(0, classes, (int(spots.sum()),), generator=random)
    target[torch.rand(height, width, generator=random) < 0.04] = IGNORED
    return prediction, target.to(torch.uint8)


def both_evaluators(classes: int) -> list[LabelMapEvaluator]:
    return [MeanIoU(classes), TrimapIoU(classes), BoundaryIoU(classes, dilation_ratio=0.05)]


def near_another_label(labels: list[list[int]], distance: int, *, image_edge: bool) -> list[list[bool]]:
    """The definition, pixel by pixel and neighbour by neighbour."""
    height, width = len(labels), len(labels[0])

    def near(i: int, j: int) -> bool:
        for di in range(-distance, distance + 1):
            for dj in range(-distance, distance + 1):
                inside = 0 <= i + di < height and 0 <= j + dj < width
                if not inside and image_edge:
                    return True
                if inside and labels[i + di][j + dj] not in (IGNORED, labels[i][j]):
                    return True
        return False

    return [[labels[i][j] != IGNORED and near(i, j) for j in range(width)] for i in range(height)]


def loop_iou(
    prediction: list[list[int]], target: list[list[int]], where: list[list[bool]], label: int
) -> float:
    intersection = union = 0
    for i, row in enumerate(target):
        for j, true in enumerate(row):
            if where[i][j] and true != IGNORED:
                intersection += true == label and prediction[i][j] == label
                union += true == label or prediction[i][j] == label
    return intersection / union if union else math.nan


def loop_boundary_iou(
    prediction: list[list[int]], target: list[list[int]], distance: int, label: int
) -> float:
    ignored_in_both = [
        [IGNORED if t == IGNORED else p for p, t in zip(*rows, strict=True)]
        for rows in zip(prediction, target, strict=True)
    ]
    predicted = near_another_label(ignored_in_both, distance, image_edge=True)
    true = near_another_label(target, distance, image_edge=True)
    intersection = union = 0
    for i, row in enumerate(target):
        for j in range(len(row)):
            a, b = predicted[i][j] and prediction[i][j] == label, true[i][j] and row[j] == label
            intersection, union = intersection + (a and b), union + (a or b)
    return intersection / union if union else math.nan


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matrix_is_that_of_scikit_learn(seed: int) -> None:
    prediction, target = random_maps(seed)
    evaluator = MeanIoU(4)
    evaluator.update(prediction, target)
    valid = target != IGNORED
    expected = confusion_matrix(target[valid].numpy(), prediction[valid].numpy(), labels=range(4))
    assert evaluator.counts.tolist() == expected.tolist()


def test_mean_iou_of_an_image_counted_by_hand() -> None:
    evaluator = MeanIoU(3, class_names=("road", "sky", "tree"))
    evaluator.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    scores = evaluator.compute()
    assert scores["mIoU"] == pytest.approx((1 / 2 + 1 / 2) / 2)  # tree is absent and takes no part
    assert scores["pixel accuracy"] == pytest.approx(2 / 3)
    assert scores["mean accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert evaluator.per_class()["IoU"] == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)


def test_a_class_that_is_predicted_but_never_there_lowers_the_mean() -> None:
    evaluator = MeanIoU(3)
    evaluator.update(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]]))
    assert evaluator.compute()["mIoU"] == pytest.approx((1 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_trimap_iou_equals_a_loop_over_pixels_and_neighbours(seed: int) -> None:
    prediction, target = random_maps(seed)
    evaluator = TrimapIoU(4, widths=(1, 2, 5))
    evaluator.update(prediction, target)
    for width in (1, 2, 5):
        band = near_another_label(target.tolist(), width, image_edge=False)
        expected = [loop_iou(prediction.tolist(), target.tolist(), band, label) for label in range(4)]
        assert evaluator.per_class()[f"IoU@{width}px"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_boundary_iou_equals_a_loop_over_pixels_and_neighbours(seed: int) -> None:
    prediction, target = random_maps(seed)
    evaluator = BoundaryIoU(4, dilation_ratio=0.05)
    evaluator.update(prediction, target)
    distance = boundary_width(*target.shape, dilation_ratio=0.05)
    assert distance == 2
    expected = [
        loop_boundary_iou(prediction.tolist(), target.tolist(), distance, label) for label in range(4)
    ]
    assert evaluator.per_class()["boundary IoU"] == pytest.approx(expected, nan_ok=True)


def test_boundary_counts_are_summed_over_images_before_dividing() -> None:
    whole = BoundaryIoU(4)
    parts = []
    for seed in range(3):
        one = BoundaryIoU(4)
        for evaluator in (whole, one):
            evaluator.update(*random_maps(seed))
        parts.append(one.counts)
    intersection, predicted, true = torch.stack(parts).sum(0).double()
    expected = (intersection / (predicted + true - intersection)).nanmean()
    assert whole.compute()["boundary IoU"] == float(expected)


def test_one_pixel_band_is_the_pixels_on_either_side_of_a_straight_edge() -> None:
    labels = torch.tensor([[0, 0, 0, 1, 1, 1]]).repeat(4, 1)
    band = boundary_region(labels, 1, image_edge=False)
    assert band.tolist() == [[False, False, True, True, False, False]] * 4


def test_an_edge_to_ignored_pixels_is_no_boundary_but_a_narrow_ignored_strip_is_crossed() -> None:
    labels = torch.tensor([[0, 0, 0, -1, -1, 1, 1, 1]])
    assert not boundary_region(labels, 1, image_edge=False).any()
    assert not boundary_region(labels, 2, image_edge=False).any()
    assert boundary_region(labels, 3, image_edge=False).tolist() == [
        [False, False, True, False, False, True, False, False]
    ]


def test_a_region_as_wide_as_the_image_is_the_whole_image() -> None:
    assert boundary_region(torch.zeros(5, 7, dtype=torch.int16), 40).all()
    assert boundary_region(torch.zeros(5, 7, dtype=torch.int16), 3).all()
    assert not boundary_region(torch.zeros(5, 7, dtype=torch.int16), 2).all()


def test_boundary_width_is_two_percent_of_the_diagonal() -> None:
    assert boundary_width(360, 480) == 12
    assert boundary_width(1024, 2048) == 46
    assert boundary_width(1, 1) == 1


@pytest.mark.parametrize("evaluator", both_evaluators(4), ids=lambda e: type(e).__name__)
def test_a_perfect_prediction_scores_one_whatever_it_says_at_ignored_pixels(
    evaluator: LabelMapEvaluator,
) -> None:
    _, target = random_maps(7)
    prediction = torch.where(target == IGNORED, torch.randint(0, 256, target.shape), target.long())
    evaluator.update(prediction, target)
    assert all(score == 1.0 for score in evaluator.compute().values())


@pytest.mark.parametrize("index", range(3))
def test_shards_merge_to_exactly_the_whole(index: int) -> None:
    images = [random_maps(seed, height=10 + seed, width=9 + 2 * seed) for seed in range(6)]
    whole, left, right = (both_evaluators(4)[index] for _ in range(3))
    for number, image in enumerate(images):
        whole.update(*image)
        (left if number % 2 else right).update(*image)
    left.merge(right)
    assert left.compute() == whole.compute()
    assert left.per_class().keys() == whole.per_class().keys()
    assert torch.equal(left.counts, whole.counts)


def test_evaluators_with_other_settings_do_not_merge() -> None:
    with pytest.raises(ValueError, match="same settings"):
        TrimapIoU(3, widths=(1, 3)).merge(TrimapIoU(3, widths=(1, 5)))
    with pytest.raises(ValueError, match="same settings"):
        BoundaryIoU(3).merge(BoundaryIoU(3, dilation_ratio=0.01))
    with pytest.raises(ValueError, match="same settings"):
        MeanIoU(3).merge(BoundaryIoU(3))


@pytest.mark.parametrize("index", range(3))
def test_nothing_counted_gives_nan_and_no_warning(index: int) -> None:
    for images in ([], [torch.full((4, 5), IGNORED, dtype=torch.uint8)]):
        evaluator = both_evaluators(4)[index]
        for target in images:
            evaluator.update(torch.zeros_like(target), target)
        assert all(math.isnan(score) for score in evaluator.compute().values())


def test_one_pixel_images_and_a_single_class() -> None:
    one = torch.zeros(1, 1, dtype=torch.uint8)
    mean, trimap, boundary = MeanIoU(1), TrimapIoU(1), BoundaryIoU(1)
    for evaluator in (mean, trimap, boundary):
        evaluator.update(one, one)
    assert mean.compute()["mIoU"] == 1.0
    assert math.isnan(trimap.compute()["mIoU@1px"])  # one class has no inner boundary
    assert boundary.compute()["boundary IoU"] == 1.0  # the edge of the image is a contour


def test_thin_images_are_counted() -> None:
    target = torch.arange(2000).div(100, rounding_mode="floor").view(1, -1) % 3
    for evaluator in both_evaluators(3):
        evaluator.update(target, target)
        assert all(score == 1.0 for score in evaluator.compute().values())


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.long),
            torch.zeros(3, 2, dtype=torch.long),
            r"size \(3, 2\), got \(2, 3\)",
        ),
        (torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), r"\(H, W\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), "whole-number"),
        (torch.full((2, 3), 9), torch.zeros(2, 3, dtype=torch.long), r"prediction: expected labels 0\.\.3"),
        (torch.full((2, 3), -1), torch.zeros(2, 3, dtype=torch.long), "prediction"),
        (torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), 11), "target"),
    ],
)
def test_maps_that_do_not_fit_are_refused(prediction: Tensor, target: Tensor, message: str) -> None:
    for evaluator in both_evaluators(4):
        with pytest.raises(ValueError, match=message):
            evaluator.update(prediction, target)
        assert not evaluator.counts.any()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        MeanIoU(0)
    with pytest.raises(ValueError, match="num_classes: expected 1 to 255, since label 255 is ignored"):
        MeanIoU(256)
    with pytest.raises(ValueError, match="class_names"):
        MeanIoU(3, class_names=("a", "b"))
    with pytest.raises(ValueError, match="widths"):
        TrimapIoU(3, widths=(0,))
    with pytest.raises(ValueError, match="dilation_ratio"):
        BoundaryIoU(3, dilation_ratio=0)
