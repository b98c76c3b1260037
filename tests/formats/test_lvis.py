"""AP* ground truth: LVIS restricted to COCO's categories."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pointrend.formats.lvis import cocofy_lvis, write_cocofied_lvis
from tests.helpers import DATA

SAMPLE = DATA / "lvis_sample"
needs_data = pytest.mark.skipif(not SAMPLE.exists(), reason=f"{SAMPLE} is not there; set POINTREND_DATA")


def small() -> dict[str, Any]:
    return {
        "info": {"version": "made up"},
        "categories": [
            {"id": 1, "synset": "acorn.n.01"},
            {"id": 2, "synset": "cat.n.01"},
            {"id": 3, "synset": "person.n.01"},
        ],
        "images": [{"id": 5, "neg_category_ids": [1, 3], "not_exhaustive_category_ids": [1]}],
        "annotations": [
            {"id": 8, "image_id": 5, "category_id": 1, "area": 3},
            {"id": 9, "image_id": 5, "category_id": 2, "area": 4},
        ],
    }


@needs_data
def test_the_sample_comes_out_as_the_published_recipe_makes_it() -> None:
    made = cocofy_lvis(SAMPLE / "lvis_val_100.json")
    assert made == json.loads((SAMPLE / "lvis_val_100_cococats.json").read_text())


@needs_data
def test_seventy_eight_of_eighty_coco_categories_have_a_synset_in_lvis() -> None:
    lvis = json.loads((SAMPLE / "lvis_val_100.json").read_text())
    table = json.loads((SAMPLE / "coco_to_synset.json").read_text())
    synsets = {category["synset"] for category in lvis["categories"]}
    missing = [entry["synset"] for entry in table.values() if entry["synset"] not in synsets]
    assert sorted(missing) == ["frank.n.02", "oven.n.01"]


def test_annotations_lists_and_categories_follow_the_synsets() -> None:
    made = cocofy_lvis(small())
    assert made["annotations"] == [{"id": 1, "image_id": 5, "category_id": 17, "area": 4}]
    assert made["images"] == [{"id": 5, "neg_category_ids": [1], "not_exhaustive_category_ids": []}]
    assert [category["id"] for category in made["categories"]] == [17, 1]
    assert made["info"] == small()["info"]


def test_categories_that_nothing_mentions_are_dropped() -> None:
    lvis = small()
    lvis["images"][0]["neg_category_ids"] = []
    assert [category["id"] for category in cocofy_lvis(lvis)["categories"]] == [17]


def test_it_is_deterministic_idempotent_and_leaves_its_input_alone() -> None:
    lvis, before = small(), copy.deepcopy(small())
    once = cocofy_lvis(lvis)
    assert lvis == before
    assert cocofy_lvis(lvis) == once
    assert cocofy_lvis(once) == once


def test_files_are_written_whole(tmp_path: Path) -> None:
    (tmp_path / "lvis.json").write_text(json.dumps(small()))
    write_cocofied_lvis(tmp_path / "lvis.json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == cocofy_lvis(small())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lvis.json", "out.json"]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("annotations", {"category_id": 50}, "annotation number 0: category_id: 50"),
        ("images", {"neg_category_ids": None}, "image 5: neg_category_ids"),
        ("images", {"not_exhaustive_category_ids": [77]}, "not_exhaustive_category_ids: 77"),
        ("images", {"neg_category_ids": [[]]}, r"image 5: neg_category_ids: \[\] is not among"),
        ("categories", {"synset": None}, "category number 0: expected id"),
        ("categories", {"synset": []}, "category number 0: expected id"),
        ("categories", {"id": {}}, "category number 0: expected id"),
        ("categories", {"id": 2}, "id: 2 appears twice"),
    ],
)
def test_what_is_not_lvis_is_refused(part: str, change: dict[str, Any], message: str) -> None:
    lvis = small()
    lvis[part][0].update(change)
    with pytest.raises(ValueError, match=message):
        cocofy_lvis(lvis)


@pytest.mark.parametrize("part", ["annotations", "images", "categories"])
def test_records_that_are_no_objects_are_refused(part: str) -> None:
    for strange in (None, 7, "x", []):
        with pytest.raises(ValueError, match=f"lvis: {part}: number 0: expected an object"):
            cocofy_lvis({**small(), part: [strange]})


def test_content_without_its_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lvis.json").write_text("[]")
    with pytest.raises(ValueError, match=r"lvis\.json: expected an object, got list"):
        cocofy_lvis(tmp_path / "lvis.json")
    with pytest.raises(ValueError, match="annotations"):
        cocofy_lvis({"categories": [], "images": []})
