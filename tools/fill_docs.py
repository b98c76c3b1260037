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


BLOCKS: dict[str, Callable[[], str]] = {
    "mask branch, 80 classes": partial(table, "mask_branch", lambda row: row[1] == "80"),
    "mask branch, 1 and 1203 classes": partial(table, "mask_branch", lambda row: row[1] != "80"),
    "throughput": partial(table, "throughput"),
    "growth": partial(table, "growth"),
    "photographs": partial(table, "photographs"),
    "adaptive refinement": partial(table, "adaptive_refinement"),
    "mask heads, strategies": partial(table, "frozen_masks", lambda row: row[0].startswith("selection")),
    "mask heads, labels": partial(table, "frozen_masks", lambda row: row[0].startswith("labels")),
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
