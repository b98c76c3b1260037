"""`pointrend data check`, `pointrend data cocofy-lvis` and `pointrend data draw-cityscapes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg, subcommand

if TYPE_CHECKING:
    from pointrend.data.check import Findings


@dataclass(frozen=True)
class Check:
    """Look a data set over before training on it.

    Reads every picture with its labels and lists missing and unreadable files, empty or out-of-range labels, boxes that
    do not fit their masks, and pictures that are there twice; counts the classes; and draws some pictures with their
    labels on one sheet. The exit code is 0 if nothing was found, else 1.
    """

    folder: Positional[str]
    """Data set, as for `pointrend train`."""
    split: Literal["train", "val"] = "train"
    """Part of the data set."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data, instead of all."""
    limit: int | None = None
    """Look at so many pictures, evenly spread, instead of all."""
    sheet: Path | None = None
    """Write a contact sheet to this PNG file."""
    show: int = 10
    """List at most so many problems of a kind."""

    def run(self) -> int:
        """Check and print."""
        from pointrend.cli.progress import counting
        from pointrend.data.check import check_dataset
        from pointrend.data.open import open_dataset

        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: expected at least one picture, got {self.limit}")
        data = open_dataset(self.folder, self.split, categories=self.categories or None, gaps=True)
        count = len(data) if self.limit is None else min(self.limit, len(data))
        indices = [number * len(data) // count for number in range(count)]
        with counting("checking", count) as progress:
            findings = check_dataset(data, indices=indices, progress=progress)
        self._print(findings)
        if self.sheet is not None:
            self._draw(data, indices)
        return 1 if findings.problems else 0

    def _print(self, findings: Findings) -> None:
        from rich.console import Console
        from rich.table import Table

        what = "objects" if findings.task == "instance" else "pixels"
        total = max(1, sum(findings.amount_of))
        table = Table("class", "pictures", what, "share", title=f"{self.folder}, {self.split}")
        rows = zip(findings.class_names, findings.pictures_of, findings.amount_of, strict=True)
        for name, pictures, amount in rows:
            table.add_row(name, str(pictures), str(amount), f"{100 * amount / total:.2f} %")
        Console().print(table)
        if findings.sizes is not None:
            (low, narrow), (high, wide) = findings.sizes
            print(f"{findings.pictures} pictures, {low} to {high} pixels high, {narrow} to {wide} wide")
        if findings.absent:
            print(f"classes that occur nowhere: {', '.join(findings.absent)}")
        for kind, problems in findings.by_kind().items():
            print(f"{kind}: {len(problems)}")
            for problem in problems[: self.show]:
                print(f"  {problem.picture}: {problem.text}")
            if len(problems) > self.show:
                print(f"  .. and {len(problems) - self.show} more (--show lists more)")
        if not findings.problems:
            print("no problems found")

    def _draw(self, data: Any, indices: list[int]) -> None:
        from PIL import Image

        from pointrend.visualize.sheet import contact_sheet, draw_target
        from pointrend.whole import whole_file

        assert self.sheet is not None
        pictures = []
        wanted = min(16, len(indices))
        for number in range(wanted):
            try:
                sample = data[indices[number * len(indices) // wanted]]
            except (ValueError, OSError):
                continue  # listed already
            pictures.append(draw_target(sample, data.class_names, data.palette))
        with whole_file(self.sheet) as part:
            Image.fromarray(contact_sheet(pictures)).save(part, format="PNG")
        print(f"contact sheet: {self.sheet}")


@dataclass(frozen=True)
class CocofyLvis:
    """Make the ground truth of AP*: an LVIS v0.5 file restricted to COCO's categories, with COCO's ids.

    Categories are matched by WordNet synset (78 of COCO's 80 are in LVIS v0.5). The same file always gives the same
    output, and the output given again comes out unchanged. `pointrend eval --lvis` takes either.
    """

    lvis: Positional[Path]
    """LVIS annotations, such as lvis_v0.5_val.json."""
    output: Positional[Path]
    """File to write."""
    synsets: Path | None = None
    """Another table of synsets, in the form of LVIS's coco_to_synset.json."""

    def run(self) -> int:
        """Convert."""
        from pointrend.evaluation.lvis import write_cocofied_lvis
        from pointrend.facts.coco import SYNSET_TABLE

        made = write_cocofied_lvis(
            self.lvis, self.synsets if self.synsets is not None else SYNSET_TABLE, self.output
        )
        counts = ", ".join(f"{len(made[part])} {part}" for part in ("categories", "images", "annotations"))
        print(f"{self.output}: {counts}")
        return 0


@dataclass(frozen=True)
class DrawCityscapes:
    """Draw the label and instance files of Cityscapes' pictures from its polygon files, where they are missing."""

    folder: Positional[Path]
    """Folder with leftImg8bit and gtFine."""
    split: Literal["train", "val"] = "val"
    """Part of the data set."""

    def run(self) -> int:
        """Draw."""
        from pointrend.evaluation.cityscapes_polygons import write_label_files

        count = write_label_files(self.folder, self.split)
        print(f"{self.folder}, {self.split}: drew the label files of {count} pictures")
        return 0


@dataclass(frozen=True)
class Data:
    """Look over or convert data sets: `check FOLDER`, `cocofy-lvis LVIS OUTPUT`, `draw-cityscapes FOLDER`."""

    action: Annotated[
        Annotated[Check, subcommand("check", prefix_name=False)]
        | Annotated[CocofyLvis, subcommand("cocofy-lvis", prefix_name=False)]
        | Annotated[DrawCityscapes, subcommand("draw-cityscapes", prefix_name=False)],
        arg(name=""),
    ]
    """What to do."""

    def run(self) -> int:
        """Do it."""
        return self.action.run()
