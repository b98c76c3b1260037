"""Markdown tables from the scores.json of several runs: one row for each run and way of predicting.

python benchmarks/tables.py runs/camvid-residual-0 runs/camvid-residual-1 --columns mIoU "boundary IoU" mIoU@1px
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def rows(runs: Sequence[Path], columns: Sequence[str]) -> list[list[str]]:
    """A header, a rule, and one row for each run and way of predicting; "-" where a score is missing."""
    table = [["run", "prediction", *columns], ["---", "---", *["---:"] * len(columns)]]
    for run in runs:
        scores = json.loads((run / "scores.json").read_text())["scores"]
        for way, found in scores.items():
            table.append(
                [run.name, way, *(f"{found[name]:.2f}" if name in found else "-" for name in columns)]
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of the benchmarks on real images")
    parser.add_argument(
        "--columns", nargs="+", default=["mIoU", "boundary IoU", "mIoU@1px", "mIoU@3px", "mIoU@5px"]
    )
    arguments = parser.parse_args()
    for row in rows(arguments.runs, arguments.columns):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
