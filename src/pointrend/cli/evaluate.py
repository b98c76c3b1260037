"""`pointrend eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a data set with known answers.

    Semantic models: mIoU, trimap mIoU at 1, 3, 5 px and boundary IoU, of the coarse prediction and of PointRend side by
    side. Instance models: box AP, mask AP and Boundary AP as COCO defines them.
    """

    model: str
    """A checkpoint written by `pointrend train`, or a name listed by `pointrend zoo`."""
    data: str = "shapes"
    """Data set, as for `pointrend train`."""
    split: Literal["train", "val"] = "val"
    """Part of the data set."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to score, as they were chosen for training."""
    limit: int | None = None
    """Score only the first so many pictures."""
    points: int | None = None
    """Points in each subdivision step, instead of the model's own number (semantic models)."""
    device: str | None = None
    """cpu, cuda, ...; a GPU if there is one, when not given."""
    json: Path | None = None
    """Also write the scores, class by class, to this file."""

    def run(self) -> int:
        """Score and print a table."""
        from pointrend import load
        from pointrend.cli.progress import counting
        from pointrend.data.open import open_dataset
        from pointrend.evaluation.report import to_json, write_text
        from pointrend.predict import Predictor

        model = Predictor(load(self.model), device=self.device).model  # on its device, in eval mode
        name = (
            self.data if self.data.endswith((":semantic", ":instance")) else f"{self.data}:{task_of(model)}"
        )
        data: Any = open_dataset(name, self.split, categories=self.categories or None)
        if tuple(data.class_names) != tuple(model.config.class_names):
            raise ValueError(
                f"the model knows the classes {', '.join(model.config.class_names)}, but {self.data} has "
                f"{', '.join(data.class_names)}; evaluate on data with the same classes in the same order"
            )
        data = First(data, len(data) if self.limit is None else self.limit)
        with counting("scoring", len(data)) as progress:
            rows = score(model, data, points=self.points, progress=progress)
        show(rows, task_of(model), f"{self.data}, {self.split}: {len(data)} pictures, per cent")
        if self.json is not None:
            write_text(self.json, to_json(rows))
        return 0


def task_of(model: Any) -> str:
    """What the model segments: "instance" or "semantic"."""
    from pointrend.checkpoints.files import kind_of

    return kind_of(model)


def score(model: Any, data: First, *, points: int | None = None, progress: Any = None) -> list[Any]:
    """Rows of scores: for a semantic model with PointRend the coarse prediction first."""
    from pointrend.evaluation.run import compare_semantic, evaluate_instances

    if task_of(model) == "instance":
        # COCO files keep their own areas, which decide what counts as small; other targets are counted in pixels.
        truth = data.data.as_coco() if hasattr(data.data, "as_coco") else None
        ids = data.data.category_ids if truth is not None else None
        name = model.config.head
        return [
            evaluate_instances(
                model, data, ground_truth=truth, category_ids=ids, name=name, progress=progress
            )
        ]
    if model.config.point_rend is None:
        return compare_semantic(model, data, {"interpolated": {}}, progress=progress)
    variants: dict[str, dict[str, Any]] = {
        "coarse, interpolated": {"refine": False},
        "PointRend": {"count": points},
    }
    return compare_semantic(model, data, variants, progress=progress)


def show(rows: list[Any], task: str, title: str) -> None:
    """Print the scores that fit into a terminal; a file of scores has all of them."""
    from rich.console import Console

    from pointrend.evaluation.report import to_table

    columns = {
        "semantic": ["mIoU", "mIoU@1px", "mIoU@3px", "mIoU@5px", "boundary IoU"],
        "instance": ["box AP", "mask AP", "mask AP50", "mask AP75", "mask AP75-95", "boundary AP"],
    }
    Console().print(to_table(rows, columns[task], title=title))


class First:
    """The first `count` samples of a data set."""

    def __init__(self, data: Any, count: int) -> None:
        if count < 1:
            raise ValueError(f"limit: expected at least one picture, got {count}")
        self.data, self.count = data, min(count, len(data))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.data[index]
