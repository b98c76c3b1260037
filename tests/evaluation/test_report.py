"""Scores as tables, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from pointrend.evaluation.report import Scores, gain, to_csv, to_json, to_markdown, to_table
from pointrend.io import write_text

COARSE = Scores(
    "coarse", {"mIoU": 0.6638, "boundary IoU": 0.41}, {"IoU": [0.5, math.nan]}, ("road", "sky"), 3, 1.5
)
REFINED = Scores(
    "refined", {"mIoU": 0.6906, "boundary IoU": math.nan}, {"IoU": [0.75, 0.5]}, ("road", "sky"), 3, 2.0
)


def test_markdown_rows_are_in_per_cent() -> None:
    assert to_markdown([COARSE, REFINED]) == (
        "| | mIoU | boundary IoU |\n| --- | ---: | ---: |\n| coarse | 66.4 | 41.0 |\n| refined | 69.1 | – |\n"
    )


def test_markdown_rows_can_have_more_digits() -> None:
    row = Scores("a", {"mIoU": 0.70554})
    assert to_markdown([row], digits=2).endswith("| a | 70.55 |\n")


def test_a_column_that_a_row_lacks_is_empty() -> None:
    assert to_markdown([REFINED], ["mIoU", "AP"]).endswith("| refined | 69.1 | – |\n")


def test_the_table_shows_each_row_and_column() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(to_table([COARSE, REFINED], title="CamVid"))
    text = console.export_text()
    for piece in ("CamVid", "mIoU", "boundary IoU", "coarse", "66.4", "refined", "69.1"):
        assert piece in text


def test_json_keeps_full_precision_and_has_null_for_nan() -> None:
    first, second = json.loads(to_json([COARSE, REFINED]))
    assert first["numbers"] == {"mIoU": 0.6638, "boundary IoU": 0.41}
    assert first["per_class"] == {"IoU": [0.5, None]}
    assert second["numbers"]["boundary IoU"] is None
    assert (second["images"], second["seconds"]) == (3, 2.0)


def test_csv_has_a_line_for_each_class() -> None:
    assert list(csv.reader(to_csv(COARSE).splitlines())) == [["class", "IoU"], ["road", "0.5"], ["sky", ""]]


def test_class_names_with_commas_survive_the_csv() -> None:
    scores = Scores("x", {}, {"IoU": [1.0]}, ('car, "large"',))
    assert list(csv.reader(to_csv(scores).splitlines()))[1] == ['car, "large"', "1.0"]


def test_gain_is_the_difference_of_what_both_have() -> None:
    more = Scores("other", {"mIoU": 0.7, "AP": 0.1}, {}, ("road", "sky"))
    assert gain(COARSE, more).numbers == {"mIoU": pytest.approx(0.0362)}
    assert gain(COARSE, REFINED).per_class["IoU"] == [0.25, pytest.approx(math.nan, nan_ok=True)]


def test_nothing_scored_still_makes_a_table() -> None:
    assert to_markdown([Scores("empty", {})], ["mIoU"]).endswith("| empty | – |\n")
    assert to_csv(Scores("empty", {})) == "class\n"


def test_files_are_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "scores.json"
    write_text(target, to_json([COARSE]))
    write_text(target, to_json([REFINED]))
    assert json.loads(target.read_text())[0]["name"] == "refined"
    assert [path.name for path in target.parent.iterdir()] == ["scores.json"]


def test_a_column_must_have_a_value_for_each_class() -> None:
    with pytest.raises(ValueError, match="'IoU': expected a value for each of 1 classes, got 2"):
        Scores("x", {}, {"IoU": [1.0, 0.5]}, ("road",))
