"""`pointrend data check`, `sample-points`, `lvis-to-coco` and `draw-cityscapes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg, subcommand

if TYPE_CHECKING:
    from pointrend.data.validate import Findings
    from pointrend.structures import Dataset


@dataclass(frozen=True)
class Check:
    """Validate a data set before training on it.

    Reads every image with its labels and lists all faults of the annotation file, missing and unreadable files, empty
    or out-of-range labels, boxes that do not fit their masks, images that are there twice, and what is implausible;
    counts the classes; and draws some images with their labels on one contact sheet. The exit code is 0 if nothing
    was found, else 1.
    """

    folder: Positional[str]
    """Data set, as for `pointrend train`."""
    split: Literal["train", "val"] = "train"
    """Part of the data set."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data, instead of all."""
    limit: int | None = None
    """Look at so many images, evenly spread, instead of all."""
    sheet: Path | None = None
    """Write a contact sheet to this PNG file."""
    show: int = 10
    """List at most so many problems of a kind."""
    fix: Path | None = None
    """Write a copy into this folder with the faults repaired that have one meaning: a COCO file and its images, or
    label maps (numbers for colours, 0 and 1 for masks of 0 and 255, blurred colours of a known palette)."""

    def run(self) -> int:
        """Check and print."""
        from pointrend.cli.console import counting
        from pointrend.data.build import open_dataset
        from pointrend.data.validate import check_dataset

        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: expected at least one image, got {self.limit}")
        data = open_dataset(self.folder, self.split, categories=self.categories or None, allow_missing=True)
        count = len(data) if self.limit is None else min(self.limit, len(data))
        indices = [number * len(data) // count for number in range(count)]
        with counting("checking", count) as progress:
            findings = check_dataset(data, indices=indices, progress=progress)
        self._print(findings)
        if self.sheet is not None:
            self._draw(data, indices)
        if self.fix is not None:
            self._write_repaired(data, self.fix)
        return 1 if findings.problems else 0

    def _write_repaired(self, data: Dataset, out: Path) -> None:
        from pointrend.data.coco import CocoInstances
        from pointrend.data.label_folders import SemanticFolder
        from pointrend.data.repair import write_repaired, write_repaired_labels

        if isinstance(data, CocoInstances):
            print(write_repaired(data, self.split, out))
        elif isinstance(data, SemanticFolder):
            print(write_repaired_labels(data, self.split, out))
        else:
            raise ValueError(
                "fix: expected annotated objects or label maps in folders, got another kind of data"
            )

    def _print(self, findings: Findings) -> None:
        from rich.console import Console
        from rich.table import Table

        what = "objects" if findings.task == "instance" else "pixels"
        total = max(1, sum(findings.amount_of))
        table = Table("class", "images", what, "share", title=f"{self.folder}, {self.split}")
        rows = zip(findings.class_names, findings.images_of, findings.amount_of, strict=True)
        for name, images, amount in rows:
            table.add_row(name, str(images), str(amount), f"{100 * amount / total:.2f} %")
        Console().print(table)
        if findings.sizes is not None:
            (low, narrow), (high, wide) = findings.sizes
            print(f"{findings.images} images, {low} to {high} pixels high, {narrow} to {wide} wide")
        if findings.absent:
            print(f"classes that occur nowhere: {', '.join(findings.absent)}")
        for kind, problems in findings.by_kind().items():
            print(f"{kind}: {len(problems)}")
            for problem in problems[: self.show]:
                print(f"  {problem}")
            if len(problems) > self.show:
                print(f"  .. and {len(problems) - self.show} more (--show lists more)")
        if not findings.problems:
            print("no problems found")

    def _draw(self, data: Dataset, indices: list[int]) -> None:
        from pointrend.io import write_png
        from pointrend.visualize.contact_sheet import contact_sheet, draw_target

        assert self.sheet is not None
        images = []
        wanted = min(16, len(indices))
        for number in range(wanted):
            try:
                sample = data[indices[number * len(indices) // wanted]]
            except (ValueError, OSError):
                continue  # listed already
            images.append(draw_target(sample, data.class_names, data.palette))
        write_png(contact_sheet(images), self.sheet)
        print(f"contact sheet: {self.sheet}")


@dataclass(frozen=True)
class LvisToCoco:
    """Make the ground truth of AP*: an LVIS v0.5 file restricted to COCO's categories, with COCO's ids.

    Categories are matched by WordNet synset (78 of COCO's 80 are in LVIS v0.5). The same file always gives the same
    output, and the output given again comes out unchanged. `pointrend eval --lvis` takes either.
    """

    lvis: Positional[Path]
    """LVIS annotations, such as lvis_v0.5_val.json."""
    output: Positional[Path]
    """File to write."""

    def run(self) -> int:
        """Convert."""
        from pointrend.formats.lvis import write_cocofied_lvis

        made = write_cocofied_lvis(self.lvis, self.output)
        counts = ", ".join(f"{len(made[part])} {part}" for part in ("categories", "images", "annotations"))
        print(f"{self.output}: {counts}")
        return 0


@dataclass(frozen=True)
class DrawCityscapes:
    """Draw the label and instance files of Cityscapes' images from its polygon files, where they are missing."""

    folder: Positional[Path]
    """Folder with leftImg8bit and gtFine."""
    split: Literal["train", "val"] = "val"
    """Part of the data set."""

    def run(self) -> int:
        """Draw."""
        from pointrend.formats.cityscapes_polygons import write_label_files

        count = write_label_files(self.folder, self.split)
        print(f"{self.folder}, {self.split}: drew the label files of {count} images")
        return 0


@dataclass(frozen=True)
class SamplePoints:
    """Draw labelled points from the masks of a COCO file: copies that have points in place of masks, as PointSup's.

    Points lie uniformly in each object's box and say whether they are on the object. `pointrend train --data
    DIR:points` trains on them. With the same seed they are the points that PointSup was published with.
    """

    annotations: Positional[Path]
    """COCO file with masks, such as annotations/instances_train2017.json."""
    points: int = 10
    """Points of each object."""
    versions: int = 1
    """So many files, each with other points."""
    seed: int = 12345
    """Of the random numbers."""
    out: Path | None = None
    """Folder to write to; that of the file if not given."""

    def run(self) -> int:
        """Draw."""
        from pointrend.data.sample_points import write_points

        written = write_points(
            self.annotations, self.out, points=self.points, versions=self.versions, seed=self.seed
        )
        for target, count, inside in written:
            print(f"{target}: {count} points, {100 * inside / max(count, 1):.2f} % of them on their object")
        return 0


@dataclass(frozen=True)
class Data:
    """Validate or convert data sets: `check FOLDER`, `sample-points FILE`, `lvis-to-coco LVIS OUTPUT`, ..."""

    action: Annotated[
        Annotated[Check, subcommand("check", prefix_name=False)]
        | Annotated[SamplePoints, subcommand("sample-points", prefix_name=False)]
        | Annotated[LvisToCoco, subcommand("lvis-to-coco", prefix_name=False)]
        | Annotated[DrawCityscapes, subcommand("draw-cityscapes", prefix_name=False)],
        arg(name=""),
    ]
    """What to do."""

    def run(self) -> int:
        """Do it."""
        return self.action.run()
