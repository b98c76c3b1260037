"""AP against the official tools: their stored numbers, and pycocotools itself on random images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as oracle_rle
from pycocotools.coco import COCO as OracleCOCO
from pycocotools.cocoeval import COCOeval as OracleEval

from pointrend.evaluation.coco_ap import CocoEvaluator
from pointrend.masks.rle import decompress, measure
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks
from tests.helpers import DATA

COCO_SAMPLE, LVIS_SAMPLE = DATA / "coco_eval_sample", DATA / "lvis_sample"
needs_data = pytest.mark.skipif(
    not COCO_SAMPLE.exists(), reason=f"no sample annotations in {DATA}; set POINTREND_DATA"
)
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def encode(mask: np.ndarray) -> dict[str, Any]:
    encoded = oracle_rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def random_data(seed: int, images: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rectangles of three sizes, some of them crowds; shifted or relabelled detections with tied scores."""
    random = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": c, "name": f"c{c}"} for c in (2, 3, 7)],
    }
    records = []
    for image_id in range(10, 10 + images):
        height, width = int(random.integers(90, 160)), int(random.integers(90, 160))
        truth["images"].append({"id": image_id, "height": height, "width": width})
        for _ in range(int(random.integers(0, 7))):
            h, w = (int(random.choice([8, 25, 60, 85])) for _ in range(2))
            y, x = int(random.integers(0, height - h)), int(random.integers(0, width - w))
            mask = np.zeros((height, width), np.uint8)
            mask[y : y + h, x : x + w] = 1
            category, crowd = int(random.choice([2, 3, 7])), int(random.random() < 0.15)
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "iscrowd": crowd,
                    "bbox": [x, y, w, h],
                    "area": h * w,
                    "segmentation": encode(mask),
                }
            )
            for _ in range(int(random.integers(0, 3))):
                moved = np.roll(mask, random.integers(-4, 5, 2), (0, 1))
                label = category if random.random() < 0.8 else 3
                found = {
                    "image_id": image_id,
                    "category_id": label,
                    "score": round(float(random.random()), 1),
                }
                records.append({**found, "segmentation": encode(moved)})
    return truth, records


def oracle(
    truth: dict[str, Any], records: list[dict[str, Any]], kind: str, images: list[int] | None = None
) -> list[float]:
    official = OracleCOCO()
    official.dataset = json.loads(json.dumps(truth))
    official.createIndex()
    scorer = OracleEval(official, official.loadRes(json.loads(json.dumps(records))), kind)
    if images is not None:
        scorer.params.imgIds = images
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return [math.nan if value == -1 else value for value in scorer.stats]


def expect(
    scores: dict[str, float], prefix: str, reference: dict[str, float], tolerance: float = 1e-6
) -> None:
    for name, value in reference.items():
        wanted = math.nan if value == -1 else value
        assert scores[f"{prefix} {name}"] == pytest.approx(wanted, abs=tolerance, nan_ok=True), name


@needs_data
@pytest.mark.parametrize("kind", ["box", "mask", "boundary"])
def test_coco_sample_gives_the_stored_numbers_of_the_official_tools(kind: Any) -> None:
    results = "fakebbox100" if kind == "box" else "fakesegm100"
    evaluator = CocoEvaluator(COCO_SAMPLE / "instances_val2014_100.json", metrics=(kind,))
    evaluator.update_from_file(COCO_SAMPLE / f"instances_val2014_{results}_results.json")
    key = {"box": "pycocotools bbox", "mask": "pycocotools segm"}.get(
        kind, "boundary_iou boundary (dilation_ratio 0.02)"
    )
    expect(evaluator.compute(), kind, json.loads((COCO_SAMPLE / "reference_numbers.json").read_text())[key])


@needs_data
@pytest.mark.parametrize("name", ["lvis_val_100", "lvis_val_100_cococats"])
def test_lvis_sample_gives_the_stored_numbers_of_the_official_tools(name: str) -> None:
    reference = json.loads((LVIS_SAMPLE / "reference_numbers.json").read_text())
    evaluator = CocoEvaluator(LVIS_SAMPLE / f"{name}.json", protocol="lvis", detection_area="box")
    evaluator.update_from_file(LVIS_SAMPLE / f"{name}_disturbed_results.json")
    scores = evaluator.compute()
    for kind, key in (
        ("box", "lvis-api bbox"),
        ("mask", "lvis-api segm"),
        ("boundary", "boundary_iou boundary (dilation_ratio 0.02)"),
    ):
        expect(scores, kind, reference[f"{name} {key}"])


@pytest.mark.parametrize("seed", range(4))
def test_random_images_score_as_pycocotools_scores_them(seed: int) -> None:
    truth, records = random_data(seed)
    evaluator = CocoEvaluator(truth, metrics=("box", "mask"))
    evaluator.update(records)
    scores = evaluator.compute()
    boxes = [
        {**{key: record[key] for key in ("image_id", "category_id", "score")}, "bbox": list(box)}
        for record in records
        for box in oracle_rle.toBbox([record["segmentation"]]).tolist()
    ]
    for ours, theirs, found in (("mask", "segm", records), ("box", "bbox", boxes)):
        expect(
            scores, ours, dict(zip(COCO_NAMES, oracle(truth, found, theirs), strict=True)), tolerance=1e-12
        )


def test_a_subset_of_images_scores_as_pycocotools_does_and_leaves_other_detections_out() -> None:
    truth, records = random_data(5, images=9)
    evaluator = CocoEvaluator(truth, metrics=("mask",), image_ids=[17, 11, 12])
    evaluator.update(records)
    expected = oracle(truth, records, "segm", [11, 12, 17])
    expect(evaluator.compute(), "mask", dict(zip(COCO_NAMES, expected, strict=True)), tolerance=1e-12)


def test_ap_above_three_quarters_is_the_mean_of_the_upper_thresholds() -> None:
    truth, records = random_data(1)
    official = OracleCOCO()
    official.dataset = truth
    official.createIndex()
    scorer = OracleEval(official, official.loadRes(json.loads(json.dumps(records))), "segm")
    scorer.evaluate()
    scorer.accumulate()
    upper = scorer.eval["precision"][5:, :, :, 0, -1]
    evaluator = CocoEvaluator(truth, metrics=("mask",))
    evaluator.update(records)
    assert evaluator.compute()["mask AP75-95"] == pytest.approx(upper[upper > -1].mean(), abs=1e-12)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shards_merge_to_exactly_the_whole_in_any_order(order: tuple[int, int]) -> None:
    truth, records = random_data(3, images=8)
    whole = CocoEvaluator(truth)
    whole.update(records)
    shards = [CocoEvaluator(truth), CocoEvaluator(truth)]
    for image in truth["images"]:
        mine = [record for record in records if record["image_id"] == image["id"]]
        shards[image["id"] % 2].update(mine)
    first, second = (shards[number] for number in order)
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute(), abs=0, nan_ok=True)


def test_model_results_go_in_through_to_coco() -> None:
    truth, _ = random_data(3)
    evaluator = CocoEvaluator(truth)
    for image in truth["images"]:
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        masks = np.zeros((len(mine), image["height"], image["width"]), np.uint8)
        for mask, (x, y, w, h) in zip(masks, (a["bbox"] for a in mine), strict=True):
            mask[y : y + h, x : x + w] = 1
        boxes = torch.tensor([a["bbox"] for a in mine], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([(2, 3, 7).index(a["category_id"]) for a in mine], dtype=torch.int64)
        result = InstanceResult(
            boxes,
            labels,
            torch.ones(len(mine)),
            InstanceMasks.from_dense(torch.from_numpy(masks)),
            ("a", "b", "c"),
        )
        evaluator.update(result.to_coco(image["id"], (2, 3, 7)))
    scores = evaluator.compute()
    assert [scores[f"{kind} AP"] for kind in ("box", "mask", "boundary")] == [1.0, 1.0, 1.0]
    assert all(column == [1.0, 1.0, 1.0] for column in evaluator.per_class().values())
    assert evaluator.class_names == ("c2", "c3", "c7")


def test_per_class_averages_to_the_whole() -> None:
    truth, records = random_data(2)
    evaluator = CocoEvaluator(truth)
    evaluator.update(records)
    for name, column in evaluator.per_class().items():
        assert np.nanmean(column) == pytest.approx(evaluator.compute()[name])


def test_images_may_have_names_instead_of_numbers_and_annotations_may_count_from_zero() -> None:
    truth, records = random_data(2)
    numbered = CocoEvaluator(truth)
    numbered.update(records)
    for thing in (*truth["images"], *truth["annotations"], *records):
        key = "id" if "height" in thing else "image_id"
        thing[key] = f"street-{thing[key]}"
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    named = CocoEvaluator(truth)
    named.update(records)
    assert named.compute() == pytest.approx(numbered.compute(), abs=0, nan_ok=True)


def test_no_detections_score_zero_and_no_objects_score_nan() -> None:
    truth, records = random_data(0)
    silent = CocoEvaluator(truth)
    silent.update([])
    assert silent.compute()["mask AP"] == 0.0
    empty = CocoEvaluator({**truth, "annotations": []})
    empty.update(records)
    assert all(math.isnan(score) for score in empty.compute().values())
    nothing = CocoEvaluator({"images": [], "annotations": [], "categories": []})
    assert all(math.isnan(score) for score in nothing.compute().values())


def test_mask_area_decides_the_size_unless_asked_to_do_as_pycocotools_with_boxes() -> None:
    truth, records = random_data(4)
    boxed = [{**record, "bbox": [0.0, 0.0, 5.0, 5.0]} for record in records]  # small boxes beside large masks
    by_mask, by_box = (CocoEvaluator(truth, metrics=("mask",), detection_area=how) for how in ("mask", "box"))
    by_mask.update(boxed)
    by_box.update(boxed)
    expect(
        by_mask.compute(), "mask", dict(zip(COCO_NAMES, oracle(truth, records, "segm"), strict=True)), 1e-12
    )
    expect(by_box.compute(), "mask", dict(zip(COCO_NAMES, oracle(truth, boxed, "segm"), strict=True)), 1e-12)


def lvis_image() -> dict[str, Any]:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:12, 3:13] = 1
    categories = [{"id": c, "name": str(c), "frequency": "f"} for c in (1, 2, 3)]
    image = {"id": 1, "height": 20, "width": 20, "neg_category_ids": [2], "not_exhaustive_category_ids": []}
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [3, 2, 10, 10],
        "area": 100,
        "segmentation": encode(mask),
    }
    return {"images": [image], "annotations": [annotation], "categories": categories}


def test_federated_protocol_ignores_categories_nobody_checked() -> None:
    truth = lvis_image()
    hit = {
        "image_id": 1,
        "category_id": 1,
        "score": 0.5,
        "segmentation": truth["annotations"][0]["segmentation"],
    }
    scores = {}
    for extra in (2, 3):
        evaluator = CocoEvaluator(truth, protocol="lvis", metrics=("mask",))
        evaluator.update([hit, {**hit, "category_id": extra, "score": 0.9}])
        scores[extra] = evaluator.compute()["mask AP"]
    assert scores == {2: 1.0, 3: 1.0}  # another category never lowers category 1, whether checked or not
    evaluator = CocoEvaluator(truth, protocol="lvis", metrics=("mask",))
    miss = {**hit, "score": 0.9, "segmentation": encode(np.eye(20))}
    evaluator.update([hit, miss])
    assert evaluator.compute()["mask AP"] == pytest.approx(0.5)
    truth["images"][0]["not_exhaustive_category_ids"] = [1]
    evaluator = CocoEvaluator(truth, protocol="lvis", metrics=("mask",))
    evaluator.update([hit, miss])
    assert evaluator.compute()["mask AP"] == pytest.approx(1.0)  # the miss may be an object nobody annotated


def test_lvis_keeps_the_best_three_hundred_of_an_image() -> None:
    truth = lvis_image()
    hit = {
        "image_id": 1,
        "category_id": 1,
        "score": 0.1,
        "segmentation": truth["annotations"][0]["segmentation"],
    }
    for category in (3, 79):  # the second is not scored, but the model said it
        others = [{**hit, "category_id": category, "score": 0.9} for _ in range(300)]
        for crowd, expected in ((others[:299], 1.0), (others, 0.0)):
            evaluator = CocoEvaluator(truth, protocol="lvis", metrics=("mask",), other_category_ids=(79,))
            evaluator.update([hit, *crowd])
            assert evaluator.compute()["mask AP"] == expected


def test_categories_that_the_data_set_lacks_must_be_announced() -> None:
    truth, records = random_data(3)
    oven = {**records[0], "category_id": 79}
    with pytest.raises(ValueError, match=r"category_id: 79 is not in"):
        CocoEvaluator(truth).update([oven])
    tolerant, plain = CocoEvaluator(truth, other_category_ids=(79, 58)), CocoEvaluator(truth)
    tolerant.update([*records, oven])
    plain.update(records)
    assert tolerant.compute() == pytest.approx(plain.compute(), abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, r"record 1.*image_id: 99 is not in annotations"),
        ({"image_id": None}, "image_id: nothing is not in"),
        ({"category_id": 5}, r"image_id 10.*category_id: 5 is not in"),
        ({"category_id": "cat"}, "category_id: 'cat'"),
        ({"score": math.nan}, "score: expected a finite number, got nan"),
        ({"score": "high"}, "score"),
        ({"score": 10**400}, "score"),
        ({"score": math.inf}, "score: expected a finite number, got inf"),
        ({"bbox": [0, 0, -3, 4]}, "bbox: expected a width and height"),
        ({"bbox": [0, 0, math.inf, 4]}, "bbox: expected a finite"),
        ({"bbox": [0, 0, 3]}, "bbox: expected x, y, width, height"),
        ({"segmentation": None}, "segmentation: missing"),
        ({"segmentation": [[0, 0, 1, 1, 0, 1]]}, "segmentation: expected an RLE"),
        (
            {"segmentation": {"size": [3, 4], "counts": "0<"}},
            r"size: expected the image's \(height, width\)",
        ),
        ({"segmentation": {"size": 7, "counts": "0<"}}, "size"),
        ({"segmentation": {"size": [10**9, 10**9], "counts": [0, 10**18]}}, "size: expected the image's"),
        ({"id": []}, "id"),
    ],
)
def test_a_detection_that_does_not_fit_is_refused_by_record_and_field(
    change: dict[str, Any], message: str
) -> None:
    truth, records = random_data(0)
    first = next(record for record in records if record["image_id"] == 10)
    evaluator = CocoEvaluator(truth)
    with pytest.raises(ValueError, match=message):
        evaluator.update([first, {**first, **change}], source="found.json")
    assert evaluator.compute()["mask AP"] == 0.0  # nothing of the refused lot was added


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "5",
        "~~~",
        "P",
        "é",
        b"\xff",
        [5, -5],
        [1, 2],
        [1.5],
        ["a"],
        [2**62, 2**62, 2**62, 2**62],
        "PPPPPPPPPPPPPPPPP0",
        7,
    ],
)
def test_malformed_run_lengths_are_refused(counts: Any) -> None:
    truth, records = random_data(0)
    size = records[0]["segmentation"]["size"]
    bad = {**records[0], "segmentation": {"size": size, "counts": counts}}
    with pytest.raises(ValueError, match="segmentation: counts: run lengths"):
        CocoEvaluator(truth).update([bad])


@pytest.mark.filterwarnings("ignore:.*read as meant")
@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e999", "-7", "9" * 400, '"1"', "null", "{}", "[-1]", "[" * 900 + "]" * 900],
    ids=lambda value: value[:9],
)
def test_no_value_in_any_field_of_a_file_does_more_than_be_refused(value: str, tmp_path: Path) -> None:
    mask = {"size": [40, 50], "counts": [0, 2000]}
    record = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 50, 40], "segmentation": mask}
    truth: dict[str, Any] = {
        "images": [
            {"id": 1, "height": 40, "width": 50, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        ],
        "categories": [{"id": 1, "name": "cat", "frequency": "f"}],
        "annotations": [{**record, "id": 1, "area": 2000, "iscrowd": 0}],
    }
    file = tmp_path / "file.json"
    refused: dict[str, str] = {}

    def load(content: Any, use: Callable[[], object], where: str) -> None:
        file.write_text(json.dumps(content).replace('"@"', value))
        try:
            use()
        except ValueError as error:
            refused[where] = str(error)

    def scored(content: Any) -> None:
        evaluator = CocoEvaluator(content, protocol="lvis")
        evaluator.update_from_file(file)
        evaluator.compute()

    for field in record:
        load([{**record, field: "@"}], lambda: scored(truth), field)
    for part, records in truth.items():
        for field in records[0]:
            changed = {**truth, part: [{**records[0], field: "@"}]}
            load(changed, lambda: CocoEvaluator(file, protocol="lvis").compute(), f"{part} {field}")
    assert all(said.startswith(str(file)) and len(said) < 600 for said in refused.values())
    never = {"image_id", "category_id", "images height"}
    assert value == '"1"' or never - {*refused} == set()
    assert ("score" in refused) == (value != "-7")  # a logit is as good as a confidence


def test_masks_as_lists_of_runs_score_as_their_compressed_form() -> None:
    truth, records = random_data(2)
    listed = [
        {**record, "segmentation": {**mask, "counts": decompress(mask["counts"]).tolist()}}
        for record in records
        for mask in [record["segmentation"]]
    ]
    scores = []
    for given in (records, listed):
        evaluator = CocoEvaluator(truth)
        evaluator.update(given)
        scores.append(evaluator.compute())
    assert scores[0] == pytest.approx(scores[1], abs=0, nan_ok=True)


def test_an_image_or_an_id_given_twice_is_refused() -> None:
    truth, records = random_data(0)
    evaluator = CocoEvaluator(truth)
    evaluator.update(records)
    with pytest.raises(ValueError, match="was already given"):
        evaluator.update(records[:1])
    other = CocoEvaluator(truth)
    other.update(records[:1])
    with pytest.raises(ValueError, match="was already given"):
        evaluator.merge(other)
    with pytest.raises(ValueError, match="id: 4 appears twice"):
        CocoEvaluator(truth).update([{**record, "id": 4} for record in records[:2]])
    with pytest.raises(ValueError, match="same ground truth"):
        evaluator.merge(CocoEvaluator(random_data(1)[0]))


def test_files_that_are_no_data_set_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    for content in ("", "[", "[" * 100_000, '"text"', "[]", '{"images": 3}', "\x00"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"found\.json"):
            CocoEvaluator(file)
    with pytest.raises(ValueError, match="cannot be read"):
        CocoEvaluator(tmp_path / "absent.json")
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"found\.json: expected a list of detections"):
        CocoEvaluator(random_data(0)[0]).update_from_file(file)


def test_settings_that_make_no_sense_are_refused() -> None:
    truth, _ = random_data(0)
    for settings in (
        {"metrics": ()},
        {"metrics": ("segm",)},
        {"protocol": "voc"},
        {"dilation_ratio": 0},
        {"image_ids": []},
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            CocoEvaluator(truth, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neg_category_ids"):
        CocoEvaluator(truth, protocol="lvis")


def test_ground_truth_content_is_left_as_it_was() -> None:
    truth, records = random_data(0)
    before = json.dumps([truth, records])
    evaluator = CocoEvaluator(truth)
    evaluator.update(records)
    evaluator.compute()
    assert json.dumps([truth, records]) == before


def test_many_strings_are_measured_as_each_alone() -> None:
    random = np.random.default_rng(0)
    masks = [random.random((9, 400)) < share for share in (0, 1, 0.5, 0.01, 0.99)]
    good = [encode(mask)["counts"] for mask in masks]
    strange = ["", "P", "5P", "~", "é", "\x00", "0" + "P" * 6 + "0", b"\xff", "n"]
    texts = [good[0], "5P", *good[1:3], *strange, *good[3:]]
    totals, areas = measure(texts)
    for text, total, area in zip(texts, totals, areas, strict=True):
        if text in good:
            runs = decompress(text)
            assert (total, area) == (runs.sum(), runs[1::2].sum())
            assert area == masks[good.index(text)].sum()
        else:
            assert total == area == -1
    many = ["5c2"] * 120_000  # more than are looked at together
    assert set(measure(many)[0].tolist()) == {int(decompress("5c2").sum())}
    assert [part.tolist() for part in measure([])] == [[], []]


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_read_as_the_official_code_reads_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = (random.random((37, 900)) < (0.5, 0.01, 0.99, 0.0, 1.0)[seed]).astype(np.uint8)
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    assert decompress(encode(mask)["counts"]).tolist() == np.diff([0, *edges, flat.size]).tolist()
