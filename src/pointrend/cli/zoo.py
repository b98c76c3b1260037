"""`pointrend zoo`, `pointrend convert` and `pointrend cite`."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

WIDE = 180  # columns where nobody looks at a terminal's width: a file or a pipe


@dataclass(frozen=True)
class Zoo:
    """List the models that commands know by name: the bundled ones, and the published ones with their scores.

    With a name, everything about it: architecture, numbers and their source, address, licence, training, parameters,
    size of the file, and the command that would measure the published numbers. With a file of yours, what it says of
    itself: architecture, classes, what it was trained on and from, and under which licence that was. A model is fetched
    when it is first used and kept in the cache folder (POINTREND_CACHE); POINTREND_OFFLINE=1 forbids that.
    """

    name: Positional[str] = ""
    """One of them, or a .safetensors file, to see everything about it."""
    recipes: bool = False
    """List the paper's tables row by row, with the training of each, which `pointrend train` starts by its name."""

    def run(self) -> int:
        """Print the table, or one card."""
        if self.recipes:
            if self.name:
                raise ValueError(f"recipes: lists all of them; leave --recipes out to see {self.name}")
            _print_recipes()
            return 0
        from pointrend.zoo.backbones import PRETRAINED
        from pointrend.zoo.bundled import BUNDLED, REFINER
        from pointrend.zoo.entries import ZOO

        in_package = {**BUNDLED, REFINER.name: REFINER}
        if not self.name:
            self._print_tables()
        elif self.name in in_package:
            from pointrend.zoo.card import bundled_card

            print(bundled_card(in_package[self.name]), end="")
        elif self.name in ZOO:
            print(_card(self.name), end="")
        elif self.name in PRETRAINED:
            from pointrend.zoo.card import backbone_card

            print(backbone_card(PRETRAINED[self.name]), end="")
        elif self.name.endswith(".safetensors"):
            print(_file_card(Path(self.name)), end="")
        else:
            names = [*in_package, *ZOO, *PRETRAINED]
            close = difflib.get_close_matches(self.name, names, n=3, cutoff=0.5)
            raise ValueError(f"{self.name}: not in the zoo; it has {', '.join(close or names)}")
        return 0

    def _print_tables(self) -> None:
        from rich.console import Console

        from pointrend.zoo.backbones import PRETRAINED
        from pointrend.zoo.bundled import BUNDLED, REFINER
        from pointrend.zoo.card import scores, size
        from pointrend.zoo.entries import ZOO

        console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
        bundled = _table("bundled model", "task", "for")
        for one in (*BUNDLED.values(), REFINER):
            bundled.add_row(one.name, one.task, one.summary)
        console.print(bundled)
        models = _table("model", "task", "backbone", "data", "published", "file", "licence")
        for entry in ZOO.values():
            models.add_row(
                entry.name,
                entry.task,
                entry.backbone,
                entry.data,
                scores(entry),
                size(entry) if entry.url else "-",
                _short(entry.licence),
            )
        console.print(models)
        backbones = _table("backbone that trainings start from", "network", "licence")
        for pretrained in PRETRAINED.values():
            backbones.add_row(pretrained.name, pretrained.backbone, _short(pretrained.licence))
        console.print(backbones)
        console.print("Scores are those of the authors; `pointrend zoo NAME` tells more.")
        console.print("NC: Cityscapes' terms allow non-commercial use only.")


def _print_recipes() -> None:
    from rich.console import Console

    from pointrend.training.paper import ROWS, TRAININGS

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    rows = _table("recipe", "table", "row", "scored by pointrend eval with")
    for row in ROWS:
        rows.add_row(row.training, str(row.table), row.what, row.options or "-")
    others = [name for name in TRAININGS if name not in {row.training for row in ROWS}]
    for name in others:
        rows.add_row(name, "-", "as published", "-")
    console.print(rows)
    console.print(
        "Start one by `pointrend train RECIPE --data DIR`. Of any of them --head-depth, --head-width, --sampling,"
    )
    console.print(
        "--points and --subdivision-steps change the points; docs/paper.md has the published numbers."
    )


def _card(name: str) -> str:
    from pointrend.training.paper import find_recipe
    from pointrend.training.published import describe
    from pointrend.zoo.card import card
    from pointrend.zoo.entries import ZOO

    return card(ZOO[name], describe(find_recipe(ZOO[name].training or name)))


def _file_card(path: Path) -> str:
    import torch

    from pointrend.checkpoints.hub import model_card
    from pointrend.checkpoints.native import build, read_info

    info = read_info(path)
    with torch.device("meta"):
        model = build(info.config)
    return model_card(model, path.stem, info.extra)


def _table(name: str, *columns: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(name, overflow="fold", min_width=20)
    for column in columns:
        table.add_column(column)
    return table


def _short(licence: str) -> str:
    """The licence's name alone, and what Cityscapes' terms add."""
    if licence.startswith("no weights"):
        return "-"
    name = next(
        (known for known in ("CC BY-SA 3.0", "Apache-2.0 (OpenMMLab)") if licence.startswith(known)), None
    )
    if name is None:
        return "not stated"
    return name.partition(" (")[0] + (", NC" if "non-commercial" in licence else "")


@dataclass(frozen=True)
class Convert:
    """Turn another project's checkpoint into one of ours, or one of ours into Detectron2's.

    Read are Detectron2's .pkl and .pth, MMSegmentation's and MMDetection's .pth, and our own; names of the zoo too.
    Nothing in a file is run, every tensor in it must have its place, and its project is told by the names of its
    tensors.
    """

    source: Positional[str]
    """The checkpoint to read, or a name of `pointrend zoo`."""
    to: Path | None = None
    """The .safetensors file to write."""
    class_names: Annotated[tuple[str, ...], arg(aliases=["--classes"])] = ()
    """Names of the model's classes in the order of its outputs, instead of those in the checkpoint: one by one, or a
    COCO JSON of the data it was trained on (by id), or a text file with a name a line."""
    to_detectron2: Path | None = None
    """The .pkl file to write, as Detectron2's own."""

    def run(self) -> int:
        """Convert."""
        from pointrend import save
        from pointrend.checkpoints.detectron2 import to_detectron2
        from pointrend.cli.console import load_model

        targets = {".safetensors": self.to, ".pkl": self.to_detectron2}
        if not any(targets.values()):
            raise ValueError("say where to write: --to OUT.safetensors, or --to-detectron2 OUT.pkl, or both")
        for suffix, target in targets.items():
            if target is not None and target.suffix != suffix:
                raise ValueError(f"{target}: expected a file name that ends with {suffix}")
        model = load_model(self.source, class_names=self.class_names)
        names = model.config.class_names
        what = f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        if self.to is not None:
            save(model, self.to)
            print(f"{self.to}: {what}")
        if self.to_detectron2 is not None:
            self.to_detectron2.parent.mkdir(parents=True, exist_ok=True)
            to_detectron2(model, self.to_detectron2)
            print(f"{self.to_detectron2}: {what}, for Detectron2")
        return 0


BIBTEX = """\
@inproceedings{kirillov2020pointrend,
  title     = {{PointRend}: Image Segmentation as Rendering},
  author    = {Alexander Kirillov and Yuxin Wu and Kaiming He and Ross Girshick},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {9799--9808},
  year      = {2020}
}

@article{cheng2021pointly,
  title   = {Pointly-Supervised Instance Segmentation},
  author  = {Bowen Cheng and Omkar Parkhi and Alexander Kirillov},
  journal = {arXiv:2104.06404},
  year    = {2021}
}
"""


@dataclass(frozen=True)
class Cite:
    """Print the BibTeX entries of PointRend, and of Implicit PointRend for who uses that."""

    def run(self) -> int:
        """Print them."""
        print(BIBTEX, end="")
        return 0
