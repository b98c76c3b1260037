"""Fill the numbers of README.md and docs/ from the files that benchmarks, `pointrend eval` and trainings write.

    python -m tools.fill_docs

rewrites what stands between `<!-- generated: NAME -->` and `<!-- end -->`; `tests/test_docs.py` fails where a page has
something else. The sources are benchmarks/results/NAME.md, what a benchmark printed
(`python benchmarks/NAME.py .. > benchmarks/results/NAME.md`) or the scores.md of `pointrend eval --out`, and what the
bundled models' files say of themselves. Sentences around the numbers are by hand: read them again when numbers change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import fmean

from pointrend.checkpoints.hub import origin_lines
from pointrend.checkpoints.native import read_info
from pointrend.zoo.bundled import BUNDLED, REFINER, Bundled
from pointrend.zoo.card import bundled_card

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
REGION = re.compile(r"(<!-- generated: (.*?) -->)(.*?)(<!-- end -->)", re.S)


@cache
def printed(name: str) -> list[list[str]]:
    """The first table in benchmarks/results/NAME.md, with the rows of further ones like it: header, rule and rows, each
    a list of cells.
    """
    lines = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines if line.startswith("|")
    ]
    header, rule, *rows = cells
    return [header, rule, *(row for row in rows if len(row) == len(header) and row not in (header, rule))]


def table(name: str, keep: Callable[[list[str]], bool] = lambda row: True) -> str:
    """That table again, of rows that are to be kept."""
    header, rule, *rows = printed(name)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *filter(keep, rows)))


def means(
    name: str,
    key: Callable[[list[str]], tuple[str, ...] | None],
    heading: tuple[str, ...],
    columns: tuple[str, ...],
) -> str:
    """Means over the seeds, for the rows of that table that have a key: rows with the same key are one run's seeds. The
    key ends with the labels; the first row of those that differ in them alone learnt from all labels, and the others'
    means have their share of its in parentheses.
    """
    header, _, *rows = printed(name)
    seeds: dict[tuple[str, ...], list[list[float]]] = {}
    for row in rows:
        if (found := key(row)) is not None:
            seeds.setdefault(found, []).append([float(row[header.index(column)]) for column in columns])
    lines = [(*heading, "seeds", *columns), ("---",) * len(heading) + ("---:",) * (1 + len(columns))]
    whole: dict[tuple[str, ...], list[float]] = {}
    for found, runs in seeds.items():
        mean = [fmean(numbers) for numbers in zip(*runs, strict=True)]
        full = whole.setdefault(found[:-1], mean)
        cells = [f"{one:.1f} ({100 * one / every:.0f} %)" for one, every in zip(mean, full, strict=True)]
        lines.append((*found, str(len(runs)), *([f"{one:.1f}" for one in mean] if full is mean else cells)))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


HEADS = {"conv28": "4x conv, 28x28", "pointrend": "PointRend", "residual": "PointRend, residual"}


def labels_of_run(start: str, row: list[str]) -> tuple[str, ...] | None:
    """Of a run START-SEED the mask head and the labels, which are its prediction."""
    head, labels = row[1].split(", ", 1)
    return (HEADS[head], labels) if row[0].rpartition("-")[0] == start else None


def labelled_pixels(row: list[str]) -> tuple[str, ...] | None:
    """Of benchmarks/camvid.py and frozen_labels.py the network, the prediction, and how many pixels are labelled."""
    run = row[0].rpartition("-")[0]
    shares = {
        "all": "all",
        "share1": "1 %",
        "share01": "0.1 %",
        "100.0%": "all",
        "1.0%": "1 %",
        "0.1%": "0.1 %",
    }
    if run == "sparse":
        share, way = row[1].split(", ")
        return "frozen features", way, shares[share]
    way = {"bilinear": "interpolated"}.get(row[1], row[1])
    return ("SemanticFPN", way, shares[run]) if way in ("interpolated", "N=2048") else None


def mask_branch(boxes: int, way: str, column: str) -> float:
    """A number of benchmarks/mask_branch.py for 80 classes."""
    header, _, *rows = printed("mask_branch")
    row = next(row for row in rows if row[:3] == [str(boxes), "80", way])
    return float(row[header.index(column)])


def mask_branch_speed() -> str:
    return f"{mask_branch(100, 'fast', 'times faster'):.0f} times faster"


def mask_branch_memory() -> str:
    share = mask_branch(100, "textbook", "peak MiB") / mask_branch(100, "fast", "peak MiB")
    return f"1/{share:.0f} of the memory"


def photo_size() -> str:
    return f"{BUNDLED['photo-semantic'].path.stat().st_size / 1e6:.0f} MB"


def photo_scores() -> str:
    """The scores that the file of the bundled model has, a column for each way to predict."""
    scores = read_info(BUNDLED["photo-semantic"].path).extra["scores"]
    return "\n".join(filter(None, origin_lines({"per cent": scores})))


def card(bundled: Bundled) -> str:
    """Its model card, one heading lower."""
    return "#" + bundled_card(bundled).strip()


AP = ("box AP", "mask AP", "mask AP50", "mask AP75", "boundary AP")
BLOCKS: dict[str, Callable[[], str]] = {
    "mask branch, 80 classes": partial(table, "mask_branch", lambda row: row[1] == "80"),
    "mask branch, 1 and 1203 classes": partial(table, "mask_branch", lambda row: row[1] != "80"),
    "throughput": partial(table, "throughput"),
    "growth": partial(table, "growth"),
    "photographs": partial(table, "photographs"),
    "adaptive refinement": partial(table, "adaptive_refinement"),
    "mask heads, strategies": partial(table, "frozen_masks", lambda row: row[0].startswith("selection")),
    "mask heads, labels, means": partial(
        means,
        "frozen_masks",
        partial(labels_of_run, "labels"),
        ("head", "labels"),
        ("mask IoU", "boundary IoU", "boundary IoU 3 px"),
    ),
    "mask heads, labels": partial(table, "frozen_masks", lambda row: row[0].startswith("labels")),
    "point labels": partial(table, "point_labels"),
    "point labels, fruits": partial(
        means, "point_labels", partial(labels_of_run, "fruits"), ("head", "labels"), AP
    ),
    "labelled pixels": partial(
        means,
        "labelled_pixels",
        labelled_pixels,
        ("training", "prediction", "labelled pixels"),
        ("mIoU", "boundary IoU"),
    ),
    "positions": partial(table, "positions", lambda row: "N=2048" not in row[1]),
    "networks": partial(table, "networks"),
    "shapes, label maps": partial(table, "shapes-semantic"),
    "shapes, objects": partial(table, "shapes-instance"),
    "photo-semantic scores": photo_scores,
    **{f"card {one.name}": partial(card, one) for one in (*BUNDLED.values(), REFINER)},
}
"""Name of a region of lines -> what belongs there."""
PHRASES: dict[str, Callable[[], str]] = {
    "mask branch speed": mask_branch_speed,
    "mask branch memory": mask_branch_memory,
    "photo-semantic size": photo_size,
}
"""Name of a region within a line -> what belongs there."""


def fill(text: str) -> str:
    """The page with every region filled.

    Raises:
        KeyError: a region of another name.
    """

    def replace(found: re.Match[str]) -> str:
        start, name, _, end = found.groups()
        content = PHRASES[name]() if name in PHRASES else f"\n\n{BLOCKS[name]()}\n\n"
        return start + content + end

    return REGION.sub(replace, text)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := fill(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"filled {page.relative_to(ROOT)}")
