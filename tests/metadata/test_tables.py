"""The published tables are complete and without duplicates."""

from __future__ import annotations

import json
from pathlib import Path

from pointrend.metadata import ade20k, cityscapes, coco, pascal_voc


def test_cityscapes_has_nineteen_classes_and_eight_of_objects() -> None:
    assert [label.id for label in cityscapes.LABELS] == list(range(34))
    assert [label.train_id for label in cityscapes.TRAIN_LABELS] == list(range(19))
    assert [label.id for label in cityscapes.INSTANCE_LABELS] == [24, 25, 26, 27, 28, 31, 32, 33]
    assert len({label.name for label in cityscapes.LABELS}) == 34


def test_coco_has_eighty_categories_and_171_with_stuff() -> None:
    assert len(coco.CATEGORIES) == len({one.synset for one in coco.CATEGORIES}) == 80
    assert len({c.synset for c in coco.CATEGORIES}) == 80
    assert [c.id for c in coco.CATEGORIES] == sorted({c.id for c in coco.CATEGORIES})
    numbers = [number for number, _ in coco.STUFF_MAP_CLASSES]
    assert len(numbers) == len(set(numbers)) == len({name for _, name in coco.STUFF_MAP_CLASSES}) == 171
    assert (numbers[0], numbers[-1], len(coco.STUFF)) == (0, 181, 91)


def test_synsets_are_those_of_the_file_that_lvis_publishes(shared_data: Path) -> None:
    published = json.loads((shared_data / "lvis_sample" / "coco_to_synset.json").read_text())
    ours = {one.name: (one.id, one.synset) for one in coco.CATEGORIES}
    assert ours == {name: (row["coco_cat_id"], row["synset"]) for name, row in published.items()}


def test_ade20k_has_150_classes() -> None:
    assert len(ade20k.CLASSES) == len(set(ade20k.CLASSES)) == 150


def test_pascal_voc_has_21_classes_in_the_colours_of_its_development_kit() -> None:
    colors = pascal_voc.palette()
    assert len(pascal_voc.CLASSES) == len(set(colors)) == 21
    assert (colors[0], colors[1], colors[2], colors[15]) == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (192, 128, 128),
    )
    assert pascal_voc.palette(256)[255] == (224, 224, 192) == pascal_voc.VOID_COLOR
