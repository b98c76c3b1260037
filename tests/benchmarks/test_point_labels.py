"""The rows of benchmarks/point_labels.py say what was learnt from, for tools/fill_docs.py to compare them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # its scripts import one another
from point_labels import RUNS, table

from tools.fill_docs import labels_of_run


def test_every_run_has_a_row_that_names_its_head_and_labels() -> None:
    columns = ("box AP", "mask AP", "mask AP50", "mask AP75", "boundary AP")
    scores = dict.fromkeys(columns, 50.0)
    results = [{"set": "fruits", "seed": 3, "run": run, "scores": scores} for run in reversed(RUNS)]
    rows = [line[2:-2].split(" | ") for line in table(results).splitlines()]
    assert rows[0] == ["run", "prediction", *columns]
    named = [labels_of_run("fruits", row) for row in rows[2:]]
    assert named[:2] == [("4x conv, 28x28", "masks"), ("4x conv, 28x28", "1 point")]
    assert named[4] == ("4x conv, 28x28", "10 points, 5 drawn")
    assert len({*named}) == len(RUNS)
    assert labels_of_run("person", rows[2]) is None
