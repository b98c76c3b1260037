"""What trainings started from the command line have in common: bars, signals, scores, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pointrend.checkpoints.files import save
from pointrend.cli.evaluate import score, show
from pointrend.cli.pictures import TrainingPictures
from pointrend.cli.progress import counting, training
from pointrend.cli.train import stopping
from pointrend.data.open import open_dataset
from pointrend.evaluation.report import Scores, to_json, write_text
from pointrend.evaluation.targets import Part
from pointrend.predict.processes import main_process
from pointrend.training.boards import WeightsAndBiases, installed_boards
from pointrend.training.loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


def restarted() -> bool:
    """Whether an elastic torchrun started this process again after it had lost one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def named(data: str, task: str) -> str:
    """The data set's name with its task, as `open_dataset` wants it."""
    return data if data.endswith((":semantic", ":instance")) else f"{data}:{task}"


class Validation:
    """Scores of a model on the validation part; the numbers by name, in per cent.

    Args:
        data: name of the data set, with its task.
        limit: score at most so many pictures.
    """

    def __init__(self, data: str, task: str, *, limit: int | None, categories: tuple[str, ...] = ()) -> None:
        self.pictures = Part.first(open_dataset(data, "val", categories=categories or None), limit)
        self.title = f"{data}, val: {len(self.pictures)} pictures, per cent"
        self.task = task
        self.rows: list[Scores] = []

    def __call__(self, model: Any) -> Mapping[str, float]:
        with counting("scoring", len(self.pictures)) as progress:
            self.rows = score(model.eval(), self.pictures, progress=progress)
        return {name: 100 * value for name, value in self.rows[-1].numbers.items()}

    def report(self, path: Path) -> None:
        """Print the last scores, and write them."""
        show(self.rows, self.task, self.title)
        write_text(path, to_json(self.rows))


class Options(Protocol):
    """What `pointrend train` and `pointrend finetune` both know."""

    @property
    def categories(self) -> tuple[str, ...]: ...
    @property
    def limit(self) -> int: ...
    @property
    def ema(self) -> float: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def compile(self) -> str | None: ...
    @property
    def workers(self) -> int: ...
    @property
    def draw_every(self) -> int: ...
    @property
    def wandb(self) -> str | None: ...
    @property
    def cpu(self) -> bool: ...
    @property
    def resume(self) -> bool: ...
    @property
    def out(self) -> Path: ...


def run_training(
    model: Any,
    data: Any,
    recipe: Recipe,
    options: Options,
    *,
    name: str,
    evaluate: bool = True,
    extra: Mapping[str, Any],
) -> int:
    """Train, keep the best and the last model in the output folder, score; 130 if it was stopped by Ctrl-C.

    Args:
        name: of the data set, with its task; its validation part is scored, if `evaluate`, and drawn.
        extra: what the files say of the training, beside where the weights started (`model.origin`) and its licence.
    """
    recipe = replace(
        recipe,
        average=options.ema,
        channels_last=options.channels_last,
        compile=options.compile,
        draw_every=options.draw_every,
    )
    known = {**model.origin, **extra}
    speaks, out = main_process(), options.out
    if speaks:
        names = tuple(data.class_names)
        few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        print(f"{len(data)} pictures, {len(names)} classes: {few}", file=sys.stderr)
    validation = None
    if evaluate:
        validation = Validation(name, data.task, limit=options.limit, categories=options.categories)
    draw = None
    if options.draw_every and speaks:
        draw = TrainingPictures(open_dataset(name, "val", categories=options.categories or None))
    boards = list(installed_boards(out) if speaks else ())
    if options.wandb is not None and speaks:
        boards.append(WeightsAndBiases(options.wandb, out, recipe))
    loader = TrainingLoader(data, recipe, workers=options.workers)
    with stopping() as stop, training(recipe.steps) if speaks else nullcontext() as report:
        train(
            model,
            loader,
            recipe,
            out=out,
            evaluate=validation,
            save=lambda one, path: save(one, path, extra=known),
            report=report,
            draw=draw,
            boards=boards,
            stop=stop,
            cpu=options.cpu,
            resume=options.resume or restarted(),
        )
    if speaks:
        print(f"saved {out / 'model.safetensors'}")
        if (out / "best.safetensors").is_file():
            print(f"saved {out / 'best.safetensors'}, the best by {recipe.metric}")
        if loader.broken:
            print(f"{len(loader.broken)} pictures could not be read and were left out", file=sys.stderr)
        if stop():
            print(
                "stopped before the last step, so it was not scored: pointrend eval does that",
                file=sys.stderr,
            )
        elif validation is not None:
            validation.report(out / "scores.json")
    return 130 if stop() else 0
