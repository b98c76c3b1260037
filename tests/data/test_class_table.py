from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.data.class_table import (
    ClassTable,
    infer_classes,
    read_classes,
    to_contiguous,
)
from pointrend.metadata.colors import default_palette


def write_classes(root: Path, **fields: object) -> None:
    (root / "classes.json").write_text(json.dumps(fields))


def test_numbers_of_the_files_become_classes_from_zero(tmp_path: Path) -> None:
    table = ClassTable(("road", "car"), ((0, 0, 0), (9, 9, 9)), ignore_label=7, ids=(33, 4))
    assert to_contiguous(torch.tensor([[4, 33, 7, 255]]), table, tmp_path).tolist() == [[1, 0, 255, 255]]
    with pytest.raises(ValueError, match="got 5 at row 0, column 1"):
        to_contiguous(torch.tensor([[4, 5]]), table, tmp_path)


@pytest.mark.parametrize(
    "fields", [{"ids": [1]}, {"ids": [1, 1]}, {"ids": "ab"}, {"ids": [0, 1], "ignore_label": 1}]
)
def test_numbers_that_do_not_fit_the_classes_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    write_classes(tmp_path, classes=["road", "car"], **fields)
    with pytest.raises(ValueError, match=r"classes\.json, (ids|ignore_label)"):
        read_classes(tmp_path / "classes.json")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, 'list "classes"'),
        ({"classes": []}, "classes: expected 1 to 255 names"),
        ({"classes": [1]}, "classes: expected 1 to 255 names"),
        (
            {"classes": ["a", "b"], "ignore_label": 1},
            "ignore_label: expected a number that is no class, got 1",
        ),
        ({"classes": ["a"], "ignore_label": "void"}, "ignore_label"),
        ({"classes": ["a"], "palette": [[0, 0, 256]]}, "palette: expected"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0]]}, "palette: expected 2 colours, got 1"),
    ],
)
def test_a_bad_classes_file_names_the_field(
    tmp_path: Path, fields: dict[str, object], complaint: str
) -> None:
    write_classes(tmp_path, **fields)
    with pytest.raises(ValueError, match=rf"classes\.json.*{complaint}"):
        read_classes(tmp_path / "classes.json")


def test_sixteen_bit_ids_cannot_be_classes(tmp_path: Path) -> None:
    Image.fromarray(np.array([[26001]], np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: .*0\.\.254.*26001"):
        infer_classes([tmp_path / "a.png"])


def test_generated_colours_differ() -> None:
    assert len(set(default_palette(255))) > 240
    assert len(set(default_palette(40))) == 40
