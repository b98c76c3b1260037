"""Running models over data sets: what is counted, compared and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.evaluation.evaluate_semantic import evaluate_semantic, semantic_evaluators
from pointrend.evaluation.ground_truth import ground_truth_of
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks, InstanceTarget, Sample, SemanticTarget

NAMES = ("background", "thing")


class Threshold(nn.Module):
    """A semantic "model": bright pixels are things; unrefined, it looks at every fourth pixel only."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(class_names=NAMES)
        self.modes: list[bool] = []

    def predict(self, images: Sequence[Tensor], *, refine: bool = True) -> list[SemanticResult]:
        self.modes.append(self.training)
        results = []
        for image in images:
            labels = (image[0] > 127).long()
            if not refine:
                coarse = labels[::4, ::4].repeat_interleave(4, 0).repeat_interleave(4, 1)
                labels = coarse[: image.shape[1], : image.shape[2]]
            results.append(SemanticResult(labels, NAMES))
        return results


class Copycat(nn.Module):
    """An instance "model" that finds what the image's first channel says: 255 object 1, 128 object 2."""

    def __init__(self, class_names: tuple[str, ...] = ("left", "right")) -> None:
        super().__init__()
        self.config = SimpleNamespace(class_names=class_names)

    def predict(self, images: Sequence[Tensor], *, shift: int = 0) -> list[InstanceResult]:
        results = []
        for image in images:
            found = [value for value in (255, 128) if (image[0] == value).any()]
            masks = torch.stack([image[0] == v for v in found]) if found else torch.zeros(0, *image.shape[1:])
            masks = InstanceMasks.from_dense(torch.roll(masks, shift, 2))
            labels = torch.tensor([(255, 128).index(value) for value in found], dtype=torch.int64)
            scores = torch.ones(len(found))
            results.append(InstanceResult(tight_boxes(masks), labels, scores, masks, self.config.class_names))
        return results


def tight_boxes(masks: InstanceMasks) -> Tensor:
    sizes = torch.tensor([[w.shape[1], w.shape[0]] for w in masks.windows], dtype=torch.int64).reshape(-1, 2)
    return torch.cat([masks.offsets, masks.offsets + sizes], 1).float()


def blobs(count: int = 3) -> list[Sample]:
    samples = []
    for number in range(count):
        labels = torch.zeros(22 + number, 30, dtype=torch.uint8)
        labels[5:14, 3 + 2 * number : 17] = 1
        image = (labels * 255)[None].repeat(3, 1, 1)
        labels[0, 0] = 255
        samples.append(Sample(image, SemanticTarget(labels), f"blob{number}"))
    return samples


def pairs(count: int = 3) -> list[Sample]:
    samples = []
    for number in range(count):
        image = torch.zeros(3, 40, 60 + number, dtype=torch.uint8)
        if number:  # the first image is empty
            image[0, 5:25, 4:20], image[0, 8:30, 30:58] = 255, 128
        found = Copycat().predict([image])[0]
        crowd = torch.zeros(len(found), dtype=torch.bool)
        target = InstanceTarget(found.boxes, found.labels, found.masks, crowd)
        samples.append(Sample(image, target, 100 + number))
    return samples


def test_a_perfect_semantic_model_scores_one_everywhere() -> None:
    scores = evaluate_semantic(Threshold(), blobs())[0]
    assert scores.numbers == dict.fromkeys(
        ("mIoU", "pixel accuracy", "mean accuracy", "mIoU@1px", "mIoU@3px", "mIoU@5px", "boundary IoU"), 1.0
    )
    assert scores.class_names == NAMES
    assert scores.per_class["IoU"] == [1.0, 1.0]
    assert scores.images == 3


def test_coarse_and_refined_are_compared_in_one_run() -> None:
    coarse, refined = evaluate_semantic(Threshold(), blobs(), {"coarse": {"refine": False}, "refined": {}})
    assert (coarse.name, refined.name) == ("coarse", "refined")
    assert coarse.numbers["mIoU"] < refined.numbers["mIoU"] == 1.0
    assert (
        coarse.numbers
        == evaluate_semantic(Threshold(), blobs(), variants={"model": {"refine": False}})[0].numbers
    )


def test_only_the_wanted_metrics_are_computed() -> None:
    assert list(evaluate_semantic(Threshold(), blobs(), metrics=("boundary",))[0].numbers) == ["boundary IoU"]
    with pytest.raises(ValueError, match=r"metrics: .*got 'dice'"):
        semantic_evaluators(NAMES, ("dice",))  # type: ignore[arg-type]


def test_a_model_in_training_is_put_into_evaluation_mode_and_back() -> None:
    model = Threshold().train()
    evaluate_semantic(model, blobs(1))
    assert model.modes == [False]
    assert model.training


def test_progress_is_told_after_each_image() -> None:
    told: list[tuple[int, int]] = []
    evaluate_semantic(Threshold(), blobs(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_data_set_gives_nan() -> None:
    assert all(math.isnan(value) for value in evaluate_semantic(Threshold(), [])[0].numbers.values())
    assert all(math.isnan(value) for value in evaluate_instances(Copycat(), [])[0].numbers.values())


def test_a_target_that_does_not_fit_is_refused_by_image() -> None:
    wrong = Sample(blobs(1)[0].image, SemanticTarget(torch.zeros(3, 3, dtype=torch.uint8)), 7, "street/7.png")
    with pytest.raises(ValueError, match=r"image street/7\.png: .*size \(3, 3\)"):
        evaluate_semantic(Threshold(), [wrong])
    with pytest.raises(ValueError, match="image 100: expected a label map"):
        evaluate_semantic(Threshold(), pairs(1))
    with pytest.raises(ValueError, match="image blob0: expected objects"):
        evaluate_instances(BoxesOnly(), blobs(1))


class BoxesOnly(Copycat):
    """Finds nothing, whatever the image."""

    def predict(self, images: Sequence[Tensor], *, shift: int = 0) -> list[InstanceResult]:
        return super().predict([torch.zeros_like(image) for image in images])


def test_a_perfect_instance_model_scores_one_against_the_samples_own_targets() -> None:
    scores = evaluate_instances(Copycat(), pairs())[0]
    assert [scores.numbers[f"{kind} AP"] for kind in ("box", "mask", "boundary")] == [1.0, 1.0, 1.0]
    assert scores.class_names == ("left", "right")
    assert scores.images == 3


def test_instance_variants_share_one_ground_truth() -> None:
    exact, shifted = evaluate_instances(
        Copycat(), pairs(), {"exact": {}, "shifted": {"shift": 2}}, metrics=("mask",)
    )
    assert exact.numbers["mask AP"] == 1.0
    assert 0 < shifted.numbers["mask AP75-95"] < shifted.numbers["mask AP"] < 1


def test_a_ground_truth_file_is_scored_with_its_own_category_ids_and_only_on_the_images_at_hand() -> None:
    truth = ground_truth_of(pairs(4), ("left", "right"))
    for record in (*truth["annotations"], *truth["categories"]):
        key = "category_id" if "category_id" in record else "id"
        record[key] = {0: 18, 1: 44}[record[key]]
    scores = evaluate_instances(Copycat(), pairs(3), ground_truth=truth, category_ids=(18, 44))[0]
    assert scores.numbers["mask AP"] == 1.0  # the fourth image's objects are not missed

    with pytest.raises(ValueError, match="category_id: 0 is not in"):
        evaluate_instances(Copycat(), pairs(3), ground_truth=truth)


def test_no_detections_at_all_score_zero() -> None:
    scores = evaluate_instances(BoxesOnly(), pairs())[0]
    assert scores.numbers["mask AP"] == 0.0


def test_targets_become_coco_ground_truth() -> None:
    truth: dict[str, Any] = ground_truth_of(pairs(2), ("left", "right"))
    assert truth["images"] == [{"id": 100, "height": 40, "width": 60}, {"id": 101, "height": 40, "width": 61}]
    first = truth["annotations"][0]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 101, 0, 0)
    assert first["bbox"] == [4, 5, 16, 20]
    assert first["area"] == 320


def test_widths_and_sizes_give_curves() -> None:
    rows = evaluate_semantic(
        Threshold(), blobs(), {"coarse": {"refine": False}, "refined": {}}, widths=(1, 4, 2)
    )
    assert [x for x, _ in rows[0].curves["trimap mIoU by width"]] == [1, 2, 4]
    assert [y for _, y in rows[1].curves["boundary IoU by width"]] == [1.0, 1.0, 1.0]
    assert rows[0].curves["boundary IoU by width"][0][1] == rows[0].numbers["boundary IoU@1px"] < 1
    scores = evaluate_instances(Copycat(), pairs(), metrics=("box", "mask"), size_edges=(0, 16, 20, 64))[0]
    by_size = dict(scores.curves["mask AP by size"])  # objects of 16x20 and 28x22 pixels
    assert math.isnan(by_size[8.0])
    assert (by_size[18.0], by_size[42.0]) == (1.0, 1.0)
    assert set(scores.curves) == {"box AP by size", "mask AP by size"}
    with pytest.raises(ValueError, match="size_edges: expected two or more rising"):
        evaluate_instances(Copycat(), pairs(), size_edges=(16, 4))


def test_ap_by_size_at_coco_sizes_is_coco_ap_by_size() -> None:
    numbers = evaluate_instances(Copycat(), pairs(), variants={"model": {"shift": 2}}, metrics=("mask",))[0]
    curve = evaluate_instances(
        Copycat(), pairs(), variants={"model": {"shift": 2}}, metrics=("mask",), size_edges=(0, 32, 96, 1e5)
    )[0].curves["mask AP by size"]
    assert curve[0][1] == numbers.numbers["mask APs"] > 0
