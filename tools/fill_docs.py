"""Fill the numbers of README.md and docs/ from the files that benchmarks, `pointrend eval` and trainings write.

    python -m tools.fill_docs

rewrites what stands between `<!-- generated: NAME -->` and `<!-- end -->`; `tests/test_docs.py` fails where a page has
something else. NAME is one of

- the name of a file benchmarks/results/NAME.md: its tables, or with a number behind it one of them;
- a name in BLOCKS or PHRASES below: what is computed from such files, or what a bundled model's file says of itself;
- `NAME: ROW [COLUMN] FORMAT`: a number of one of these tables. ROW are the first cells of its row, with "; " between
  them. FORMAT is Python's for the cell's first number, or "%" for the one before a per cent sign; without it, the cell.

A file has the command on top, indented, and then the tables that the benchmark printed (or the scores.md of
`pointrend eval --out`). Sentences around the numbers are by hand: read them again when numbers change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean

from pointrend.checkpoints.hub import origin_lines
from pointrend.checkpoints.native import read_info
from pointrend.zoo.bundled import BUNDLED, REFINER, Bundled
from pointrend.zoo.card import bundled_card

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
REGION = re.compile(r"(<!-- generated: (.*?) -->)(.*?)(<!-- end -->)", re.S)
CELL = re.compile(r"(?P<source>[^:]+): (?P<row>.+) \[(?P<column>.+)\](?: (?P<format>\S+))?")


def tables(name: str) -> list[str]:
    """The tables of benchmarks/results/NAME.md, each with the line before it if that is a title; of "NAME 2" the second
    alone.
    """
    name, _, place = name.partition(" ")
    found, title = [], ""
    for part in (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n\n"):
        rows = "\n".join(line for line in part.splitlines() if line.startswith("|"))
        if rows:
            found.append(f"{title}\n\n{rows}" if title else rows)
        title = "" if rows or part.startswith("    ") else part.strip().rpartition("\n")[2]
    return [found[int(place) - 1]] if place else found


def cells(text: str) -> list[list[str]]:
    """The rows of tables as lists of cells."""
    lines = [line.strip() for line in text.splitlines()]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]


def rows_of(lines: Iterable[Sequence[str]]) -> str:
    """A table of these rows."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@cache
def printed(name: str) -> list[list[str]]:
    """The first table in benchmarks/results/NAME.md, with the rows of further ones like it: header, rule and rows."""
    header, rule, *rows = cells("\n".join(tables(name)))
    return [header, rule, *(row for row in rows if len(row) == len(header) and row not in (header, rule))]


def table(name: str, keep: Callable[[list[str]], bool] = lambda row: True) -> str:
    """That table again, of rows that are to be kept."""
    header, rule, *rows = printed(name)
    return rows_of([header, rule, *filter(keep, rows)])


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
    return rows_of(lines)


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


def seeds(name: str, run: str, way: str) -> list[dict[str, float]]:
    """The scores of the runs RUN-0, RUN-1, .. of a table by their names."""
    header, _, *rows = printed(name)
    return [
        dict(zip(header[2:], map(float, row[2:]), strict=True))
        for row in rows
        if row[0].rpartition("-")[0] == run and row[1] == way
    ]


def camvid_means() -> str:
    """With and without PointRend, means of the seeds, and what is gained."""
    _, _, *columns = printed("camvid")[0]
    none, coarse, points = (
        [fmean(run[column] for run in seeds("camvid", *of)) for column in columns]
        for of in (("none", "bilinear"), ("residual", "bilinear"), ("residual", "N=8192"))
    )
    lines: list[tuple[str, ...]] = [("", *columns), ("---", *["---:"] * len(columns))]
    for title, numbers in (
        ("without PointRend", none),
        ("trained with PointRend, its coarse prediction interpolated", coarse),
        ("with PointRend, N = 8192", points),
    ):
        lines.append((title, *(f"{number:.2f}" for number in numbers)))
    for title, before in (("**gain, with against without**", none), ("of which by subdivision", coarse)):
        lines.append((title, *(f"{a - b:+.2f}" for a, b in zip(points, before, strict=True))))
    return rows_of(lines)


def camvid_strides() -> str:
    """What subdivision gains by the stride of the coarse prediction, a number for each seed."""
    header, rule, *costs = cells(tables("camvid-strides 2")[0])
    shown = {"mIoU": "gain, mIoU", "boundary IoU": "gain, boundary IoU", "mIoU@1px": "gain at 1 px"}
    lines: list[tuple[str, ...]] = [
        (*header, "mIoU, interpolated", "mIoU, with points", *shown.values()),
        (*rule, *["---:"] * 5),
    ]
    for cost in costs:
        run = ("camvid", "residual") if cost[0] == "4" else ("camvid-strides", f"c{cost[0]}")
        coarse, points = seeds(*run, "bilinear"), seeds(*run, "N=8192")
        both = [", ".join(f"{one['mIoU']:.2f}" for one in runs) for runs in (coarse, points)]
        gains = [", ".join(f"{b[n] - a[n]:.2f}" for a, b in zip(coarse, points, strict=True)) for n in shown]
        lines.append((*cost, *both, *gains))
    return rows_of(lines)


def strategies() -> str:
    """Boundary IoU, and at 3 px, of the four selections of training points, means of the seeds."""
    titles = {
        "grid": "regular grid",
        "uniform": "uniform",
        "mild": "mildly biased (k = 3, beta = 0.75)",
        "heavy": "heavily biased (k = 10, beta = 1)",
    }
    numbers = ("N=7x7", "N=14x14", "N=28x28")
    lines: list[tuple[str, ...]] = [
        ("strategy, boundary IoU / at 3 px", *(number.replace("=", " = ") for number in numbers)),
        ("---", *["---:"] * len(numbers)),
    ]
    for name, title in titles.items():
        found = [seeds("frozen_masks", "selection", f"{name}, {number}") for number in numbers]
        scores = ("boundary IoU", "boundary IoU 3 px")
        lines.append(
            (
                title,
                *(" / ".join(f"{fmean(run[key] for run in runs):.1f}" for key in scores) for runs in found),
            )
        )
    return rows_of(lines)


def network_gains() -> str:
    """What each network gains by points over as many updates without, a number for each seed."""
    columns = printed("networks")[0][2:]
    lines: list[tuple[str, ...]] = [
        ("network", "start", "updates", "seeds", *columns),
        ("---",) * 3 + ("---:",) * (1 + len(columns)),
    ]
    for run, *title in (
        ("timm-cnn", "SemanticFPN, timm EfficientNet-Lite0", "ImageNet", "250 + 200"),
        ("torchvision", "torchvision LR-ASPP, MobileNetV2", "ImageNet", "250 + 200"),
        ("unet", "smp U-Net, ResNet-18", "ImageNet", "100 + 100"),
        ("segformer", "transformers SegFormer, B0's size", "random", "100 + 100"),
        ("timm-transformer", "SemanticFPN, timm PVT-v2-B0", "random", "100 + 100"),
    ):
        plain = seeds("networks", f"{run}-plain", "bilinear")
        points = seeds("networks", f"{run}-points", "PointRend")
        gains = [
            ", ".join(f"{b[n] - a[n]:+.2f}" for a, b in zip(plain, points, strict=True)) for n in columns
        ]
        lines.append((*title, str(len(points)), *gains))
    return rows_of(lines)


def mask_branch_memory() -> str:
    ways = ("textbook", "fast")
    before, now = (float(number("mask_branch", f"100; 80; {way}", "peak MiB", ".0f")) for way in ways)
    return f"1/{before / now:.0f} of the memory"


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
    **{
        f"point labels, {one}": partial(
            means, "point_labels", partial(labels_of_run, one), ("head", "labels"), AP
        )
        for one in ("fruits", "person")
    },
    "labelled pixels": partial(
        means,
        "labelled_pixels",
        labelled_pixels,
        ("training", "prediction", "labelled pixels"),
        ("mIoU", "boundary IoU"),
    ),
    "camvid, means": camvid_means,
    "camvid, strides": camvid_strides,
    "mask heads, strategies, means": strategies,
    "networks, gains": network_gains,
    "positions": partial(table, "positions", lambda row: "N=2048" not in row[1]),
    "photo-semantic scores": photo_scores,
    **{f"card {one.name}": partial(card, one) for one in (*BUNDLED.values(), REFINER)},
}
"""Name of a region of lines -> what belongs there."""
PHRASES: dict[str, Callable[[], str]] = {
    "mask branch memory": mask_branch_memory,
    "photo-semantic size": photo_size,
}
"""Name of a region within a line -> what belongs there."""


def block(name: str) -> str:
    """The lines of a region.

    Raises:
        FileNotFoundError: it has another name than those that there are.
    """
    return BLOCKS[name]() if name in BLOCKS else "\n\n".join(tables(name))


def number(source: str, row: str, column: str, format: str | None) -> str:
    """What stands in a table, see above.

    Raises:
        ValueError: no row, or several, begin so, or there is no such number.
    """
    header, _, *rows = cells(block(source))
    first = row.split("; ")
    found = [cells for cells in rows if cells[: len(first)] == first]
    if len(found) != 1:
        raise ValueError(f"{source}: expected one row that begins with {row!r}, got {len(found)}")
    text = found[0][header.index(column)]
    if format is None:
        return text
    value = re.search(r"([-+]?[\d,.]*\d) %" if format == "%" else r"([-+]?[\d,.]*\d)", text)
    if value is None:
        raise ValueError(f"{source}: {row}: expected a number in the column {column!r}, got {text!r}")
    return value[1] if format == "%" else f"{float(value[1].replace(',', '')):{format}}"


def fill(text: str) -> str:
    """The page with every region filled."""

    def replace(found: re.Match[str]) -> str:
        start, name, _, end = found.groups()
        if name in PHRASES:
            return start + PHRASES[name]() + end
        if cell := CELL.fullmatch(name):
            return start + number(**cell.groupdict()) + end
        return f"{start}\n\n{block(name)}\n\n{end}"

    return REGION.sub(replace, text)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := fill(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"filled {page.relative_to(ROOT)}")
