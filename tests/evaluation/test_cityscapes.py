"""Cityscapes scores against loops written from the rules, and against the official scripts where installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.cityscapes import semantic_target
from pointrend.evaluation.cityscapes import OVERLAPS, CityscapesAP, CityscapesIoU
from pointrend.metadata.cityscapes import INSTANCE_LABELS, LABELS, TRAIN_LABELS
from pointrend.structures import InstanceMasks

CAR, PERSON = 26, 24


class RGBImage(NamedTuple):
    """Annotated ids, and the detections: a mask, a label id and a score each."""

    ids: np.ndarray
    masks: np.ndarray
    labels: list[int]
    scores: list[float]


def random_image(seed: int, height: int = 60, width: int = 90) -> RGBImage:
    """Road with void, groups, small and large objects; detections shifted, doubled, mislabelled, on void, tied."""
    random = np.random.default_rng(seed)
    ids = np.full((height, width), 7, np.int32)
    ids[: int(random.integers(0, 12))] = random.choice([0, 3, 4, 9, 29])
    for number in range(int(random.integers(0, 9))):
        label = int(random.choice([CAR, PERSON, 33, 29]))
        h, w = (int(random.choice([8, 16, 25, 35])) for _ in range(2))
        y, x = int(random.integers(0, height - h)), int(random.integers(0, width - w))
        ids[y : y + h, x : x + w] = label if random.random() < 0.25 else label * 1000 + number
    masks, labels, scores = [], [], []
    for region in np.unique(ids):
        for _ in range(int(random.integers(0, 3)) if region >= 24 else int(random.random() < 0.3)):
            moved = np.roll(ids == region, random.integers(-2, 3, 2), (0, 1))
            masks.append(moved & (random.random(moved.shape) < random.choice([1.0, 0.9])))
            own = int(region) // 1000 if region >= 1000 else int(region)
            known = own in {label.id for label in INSTANCE_LABELS}
            labels.append(own if known and random.random() < 0.8 else CAR)
            scores.append(round(float(random.random()), 1))
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), bool)
    return RGBImage(ids, stacked, labels, scores)


def score(images: list[RGBImage]) -> CityscapesAP:
    evaluator = CityscapesAP()
    order = [label.id for label in INSTANCE_LABELS]
    for image in images:
        masks = InstanceMasks.from_dense(torch.from_numpy(image.masks))
        classes = [order.index(label) for label in image.labels]
        evaluator.update(masks, classes, image.scores, torch.from_numpy(image.ids))
    return evaluator


def naive_ap(images: list[RGBImage], label_id: int, threshold: float) -> float:
    """The rules, one pair of full-size masks at a time."""
    ignored = [label.id for label in LABELS if label.ignored]
    outcomes: list[tuple[float, bool]] = []
    objects = detections = 0
    for image in images:
        regions = [i for i in np.unique(image.ids) if i == label_id or i // 1000 == label_id]
        found = [
            (mask, confidence)
            for mask, label, confidence in zip(image.masks, image.labels, image.scores, strict=True)
            if label == label_id and mask.any()
        ]
        detections += len(found)

        def iou(mask: np.ndarray, region: int, ids: np.ndarray = image.ids) -> float:
            return float((mask & (ids == region)).sum() / (mask | (ids == region)).sum())

        for region in regions:
            if region >= 1000 and (image.ids == region).sum() >= 100:
                objects += 1
                hits = sorted(
                    (confidence for mask, confidence in found if iou(mask, region) > threshold), reverse=True
                )
                outcomes += [(confidence, number == 0) for number, confidence in enumerate(hits)]
        for mask, confidence in found:
            if any(iou(mask, region) > threshold for region in regions):
                continue
            excused = int((mask & np.isin(image.ids, ignored)).sum())
            for region in regions:
                shared = int((mask & (image.ids == region)).sum())
                excused += shared * (region < 1000) + shared * ((image.ids == region).sum() < 100)
            if excused / mask.sum() <= threshold:
                outcomes.append((confidence, False))
    if not objects:
        return math.nan
    if not detections or not outcomes:
        return 0.0
    points = []
    for cut in sorted({confidence for confidence, _ in outcomes}):
        kept = [right for confidence, right in outcomes if confidence >= cut]
        points.append((sum(kept) / objects, sum(kept) / len(kept)))
    points.append((0.0, 1.0))
    recalls = [points[0][0], *(recall for recall, _ in points), 0.0]
    return sum(
        precision * (recalls[number] - recalls[number + 2]) / 2
        for number, (_, precision) in enumerate(points)
    )


@pytest.mark.parametrize("seed", range(6))
def test_ap_equals_the_rules_written_as_loops(seed: int) -> None:
    images = [random_image(10 * seed + number) for number in range(4)]
    evaluator = score(images)
    expected = np.array([[naive_ap(images, label.id, t) for t in OVERLAPS] for label in INSTANCE_LABELS])
    assert evaluator.per_class()["Cityscapes AP"] == pytest.approx(
        expected.mean(1).tolist(), abs=1e-12, nan_ok=True
    )
    assert evaluator.per_class()["Cityscapes AP50"] == pytest.approx(
        expected[:, 0].tolist(), abs=1e-12, nan_ok=True
    )
    assert evaluator.compute()["Cityscapes AP"] == pytest.approx(np.nanmean(expected), abs=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ap_equals_the_official_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "cityscapesscripts", reason="opt-in: pip install pointrend[cityscapes] (non-commercial licence)"
    )
    if not hasattr(np, "in1d"):
        monkeypatch.setattr(
            np, "in1d", np.isin, raising=False
        )  # gone from NumPy 2.4, which the scripts do not know
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official

    images = [random_image(number) for number in range(12)]
    truths, predictions = [], []
    for number, image in enumerate(images):
        truths.append(str(tmp_path / f"aachen_{number:06d}_000019_gtFine_instanceIds.png"))
        Image.fromarray(image.ids.astype(np.uint16)).save(truths[-1])
        lines = []
        for mask_number, mask in enumerate(image.masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{number}_{mask_number}.png")
            lines.append(
                f"{number}_{mask_number}.png {image.labels[mask_number]} {image.scores[mask_number]}\n"
            )
        predictions.append(str(tmp_path / f"{number}.txt"))
        Path(predictions[-1]).write_text("".join(lines))
    args = official.args
    monkeypatch.setattr(args, "quiet", True)
    monkeypatch.setattr(args, "JSONOutput", False)
    monkeypatch.setattr(args, "gtInstancesFile", str(tmp_path / "gtInstances.json"))
    monkeypatch.setattr(args, "predictionPath", str(tmp_path))
    official.setInstanceLabels(args)
    truth = official.getGtInstances(truths, args)
    matches = official.matchGtWithPreds(predictions, truths, truth, args)
    expected = official.evaluateMatches(matches, args)[0]
    evaluator = score(images)
    assert [label.name for label in INSTANCE_LABELS] == args.instLabels
    assert evaluator.per_class()["Cityscapes AP"] == pytest.approx(
        expected.mean(1).tolist(), abs=1e-9, nan_ok=True
    )
    assert evaluator.compute()["Cityscapes AP"] == pytest.approx(np.nanmean(expected), abs=1e-9)
    assert evaluator.compute()["Cityscapes AP50"] == pytest.approx(np.nanmean(expected[:, 0]), abs=1e-9)


def test_the_label_table_is_the_official_one() -> None:
    scripts = pytest.importorskip(
        "cityscapesscripts.helpers.labels", reason="opt-in: pip install pointrend[cityscapes]"
    )
    theirs = [
        (x.name, x.id, x.trainId, x.category, x.hasInstances, x.color) for x in scripts.labels if x.id >= 0
    ]
    assert [tuple(label) for label in LABELS] == theirs
    assert [label.ignored for label in LABELS] == [x.ignoreInEval for x in scripts.labels if x.id >= 0]


def car_at(y: int, x: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((50, 80), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def street(**regions: np.ndarray) -> np.ndarray:
    """Road everywhere but on the masks, each named by "i" and its id."""
    ids = np.full((50, 80), 7, np.int32)
    for name, mask in regions.items():
        ids[mask] = int(name[1:])
    return ids


def car_ap(ids: np.ndarray, *found: tuple[np.ndarray, float]) -> float:
    masks = np.stack([mask for mask, _ in found]) if found else np.zeros((0, 50, 80), bool)
    image = RGBImage(ids, masks, [CAR] * len(found), [confidence for _, confidence in found])
    return score([image]).per_class()["Cityscapes AP"][2]


def test_an_exact_detection_is_right_and_a_second_one_on_the_same_car_is_not() -> None:
    ids = street(i26001=car_at(5, 5))
    assert car_ap(ids, (car_at(5, 5), 0.5)) == 1.0
    assert (
        car_ap(ids, (car_at(5, 5), 0.5), (car_at(5, 5), 0.5)) == 0.75
    )  # precision 1/2 at recall 1, then 1 at 0


def test_a_detection_on_void_a_group_or_a_small_car_is_no_mistake() -> None:
    found = (car_at(5, 5), 0.5)
    miss = (car_at(25, 50), 0.9)
    assert car_ap(street(i26001=car_at(5, 5)), found, miss) < 1.0
    for excuse in ({"i4": car_at(25, 50)}, {"i26": car_at(25, 50)}, {"i29": car_at(25, 50)}):
        assert car_ap(street(i26001=car_at(5, 5), **excuse), found, miss) == 1.0
    small = (car_at(30, 60, 9), 0.9)
    assert car_ap(street(i26001=car_at(5, 5), i26002=car_at(30, 60, 9)), found, small) == 1.0
    other = street(i26001=car_at(5, 5), i29003=car_at(25, 50))  # a single caravan is not void
    assert car_ap(other, found, miss) < 1.0


def test_no_cars_is_nan_and_no_detections_is_zero() -> None:
    assert math.isnan(car_ap(street(), (car_at(5, 5), 0.5)))
    assert car_ap(street(i26001=car_at(5, 5))) == 0.0
    assert car_ap(street(i26001=car_at(5, 5), i4=car_at(25, 50)), (car_at(25, 50), 0.5)) == 0.0
    assert math.isnan(car_ap(street(i26=car_at(5, 5))))  # a group is no object
    assert all(math.isnan(value) for value in CityscapesAP().compute().values())


def test_empty_detections_are_left_out() -> None:
    ids = street(i26001=car_at(5, 5))
    assert car_ap(ids, (car_at(5, 5), 0.5), (np.zeros((50, 80), bool), 0.9)) == 1.0


def test_shards_merge_to_exactly_the_whole() -> None:
    images = [random_image(number) for number in range(8)]
    left, right = score(images[1::2]), score(images[::2])
    left.merge(right)
    whole = score(images)
    assert left.compute() == whole.compute()
    for name, column in whole.per_class().items():
        assert left.per_class()[name] == pytest.approx(column, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ids": np.zeros((3, 3), np.int32)},
            r"truth: expected instance ids of the masks' image \(50, 80\)",
        ),
        ({"ids": np.zeros((50, 80), np.float32)}, "truth: .*float32"),
        ({"ids": np.full((50, 80), 34, np.int32)}, r"truth: expected label ids 0\.\.33"),
        ({"ids": np.full((50, 80), 65535, np.int32)}, "truth: expected label ids"),
        ({"scores": [math.nan]}, "scores: expected finite"),
        ({"scores": [0.5, 0.5]}, "a label and a score for each of 1 masks"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    image = RGBImage(street(), car_at(5, 5)[None], [CAR], [0.5])._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        score([image])
    masks = InstanceMasks.from_dense(torch.zeros(1, 50, 80))
    with pytest.raises(ValueError, match=r"labels: expected 0\.\.7, got \[8\]"):
        CityscapesAP().update(masks, [8], [0.5], torch.from_numpy(street()))


def test_confusion_within_a_category_is_no_mistake_of_the_category() -> None:
    car, bus, person, road = 13, 15, 11, 0
    evaluator = CityscapesIoU()
    evaluator.update(torch.tensor([[car, bus, car, road, 5]]), torch.tensor([[car, car, person, road, 255]]))
    categories = evaluator.per_category()
    assert categories["vehicle"] == pytest.approx(2 / 3)
    assert categories["human"] == 0.0
    assert categories["flat"] == 1.0
    assert math.isnan(categories["sky"])
    scores = evaluator.compute()
    assert scores["category mIoU"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert scores["mIoU"] == pytest.approx((1 / 3 + 0 + 0 + 1) / 4)  # car, bus, person, road


def test_category_scores_equal_a_confusion_matrix_of_categories() -> None:
    random = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(0, 19, (40, 50), generator=random) for _ in range(2))
    names = list(dict.fromkeys(label.category for label in TRAIN_LABELS))
    lookup = torch.tensor([names.index(label.category) for label in TRAIN_LABELS])
    evaluator = CityscapesIoU()
    evaluator.update(prediction, target)
    for number, name in enumerate(names):
        a, b = lookup[prediction] == number, lookup[target] == number
        assert evaluator.per_category()[name] == pytest.approx(float((a & b).sum() / (a | b).sum()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_iou_equals_the_official_scripts() -> None:
    pytest.importorskip(
        "cityscapesscripts", reason="opt-in: pip install pointrend[cityscapes] (non-commercial licence)"
    )
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    random = torch.Generator().manual_seed(1)
    target = torch.randint(0, 34, (50, 60), generator=random)  # label ids, void among them; no trains
    target[target == 31] = 7
    prediction = torch.randint(0, 15, (50, 60), generator=random)
    evaluator = CityscapesIoU()
    evaluator.update(prediction, semantic_target(target).labels)
    predicted_ids = torch.tensor([label.id for label in TRAIN_LABELS])[prediction]
    args = official.args
    args.evalLabels = [label.id for label in LABELS]
    matrix = np.zeros((34, 34), np.uint64)
    np.add.at(matrix, (target.numpy().ravel(), predicted_ids.numpy().ravel()), np.uint64(1))
    classes = [official.getIouScoreForLabel(label.id, matrix, args) for label in TRAIN_LABELS]
    assert evaluator.per_class()["IoU"] == pytest.approx(classes, abs=1e-12, nan_ok=True)
    for category, value in evaluator.per_category().items():
        expected = official.getIouScoreForCategory(category, matrix, args)
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)
