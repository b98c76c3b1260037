"""What trainings started from the command line have in common: bars, signals, scores, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointrend.checkpoints.files import save
from pointrend.cli.engine import Engine
from pointrend.cli.evaluate import quiet_unless, score, show
from pointrend.cli.pictures import TrainingPictures
from pointrend.cli.progress import training
from pointrend.cli.train import stopping
from pointrend.data.open import open_dataset
from pointrend.evaluation.report import Scores, to_json, write_text
from pointrend.evaluation.run import score_names
from pointrend.evaluation.targets import Part
from pointrend.predict.processes import main_process
from pointrend.training.boards import WeightsAndBiases, installed_boards
from pointrend.training.loading import TrainingLoader
from pointrend.training.loop import Terminated, train
from pointrend.training.recipe import Recipe

GO_ON = "the same command with --resume goes on"


def restarted() -> bool:
    """Whether an elastic torchrun started this process again after it had lost one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


class Pictures:
    """The parts of a data set that is opened by its name.

    Args:
        data: its name, with or without its task.
        task: "semantic" or "instance".
        categories: those to learn, all if empty.
    """

    def __init__(self, data: str, task: str, categories: tuple[str, ...] = ()) -> None:
        self.name = data if data.endswith((":semantic", ":instance")) else f"{data}:{task}"
        self.categories = categories or None

    def training(self, transforms: Any) -> Any:
        """What is learnt from, changed as the transforms say."""
        return open_dataset(self.name, "train", transforms=transforms, categories=self.categories)

    def validation(self) -> Any:
        """What is scored and drawn."""
        return open_dataset(self.name, "val", categories=self.categories)


class Validation:
    """Scores of a model on the validation part; the numbers by name, in per cent. Processes share the pictures.

    Args:
        limit: score at most so many pictures.
        metric: of these scores, what the best model is chosen by.

    Raises:
        ValueError: for a metric that is none of the task's.
    """

    def __init__(self, pictures: Pictures, task: str, *, limit: int | None, metric: str | None) -> None:
        known = score_names(task)
        if metric is not None and metric not in known:
            raise ValueError(
                f"metric: expected a score of {task} segmentation ({', '.join(known)}), got {metric!r}"
            )
        self.pictures = Part.first(pictures.validation(), limit)
        self.title = f"model.safetensors on {pictures.name}, val: {len(self.pictures)} pictures, per cent"
        self.task = task
        self.rows: list[Scores] = []

    def __call__(self, model: Any) -> Mapping[str, float]:
        with quiet_unless(main_process(), "scoring", len(self.pictures)) as progress:
            self.rows = score(model.eval(), self.pictures, progress=progress)
        return {name: 100 * value for name, value in self.rows[-1].numbers.items()}

    def report(self, path: Path) -> None:
        """Print the last scores, and write them."""
        show(self.rows, self.task, self.title)
        write_text(path, to_json(self.rows))


def run_training(
    model: Any,
    data: Any,
    pictures: Pictures,
    recipe: Recipe,
    engine: Engine,
    *,
    out: Path,
    evaluate: bool = True,
    limit: int | None = 200,
    extra: Mapping[str, Any],
) -> int:
    """Train, keep the best and the last model in the output folder, score; 130 if it was stopped by Ctrl-C.

    Args:
        data: what is learnt from.
        pictures: the same data set's validation part is scored, if `evaluate`, and drawn.
        limit: pictures to score, where `engine` does not say; all if None.
        extra: what the files say of the training, beside where the weights started (`model.origin`) and its licence.
    """
    recipe = replace(
        recipe,
        accumulate=engine.accumulate,
        precision=engine.precision,
        average=engine.ema,
        channels_last=engine.channels_last,
        compile=engine.compile,
        draw_every=engine.draw_every,
    )
    known = {**model.origin, **extra}
    speaks = main_process()
    if speaks:
        names = tuple(data.class_names)
        few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        print(f"{len(data)} pictures, {len(names)} classes: {few}", file=sys.stderr)
    validation = None
    if evaluate:
        limit = engine.limit if engine.limit is not None else limit
        validation = Validation(pictures, data.task, limit=limit, metric=recipe.metric)
    draw = None
    if engine.draw_every and speaks:
        draw = TrainingPictures(pictures.validation())
    boards = list(installed_boards(out) if speaks else ())
    if engine.wandb is not None and speaks:
        boards.append(WeightsAndBiases(engine.wandb, out, recipe))
    loader = TrainingLoader(data, recipe, workers=engine.workers)
    done = recipe.steps

    def told(step: int, entry: Mapping[str, float]) -> None:
        nonlocal done
        done = step
        if report is not None:
            report(step, entry)

    try:
        with stopping() as stop, training(recipe.steps) if speaks else nullcontext() as report:
            train(
                model,
                loader,
                recipe,
                out=out,
                evaluate=validation,
                save=lambda one, path: save(one, path, extra=known),
                report=told,
                draw=draw,
                boards=boards,
                stop=stop,
                cpu=engine.cpu,
                resume=engine.resume or restarted(),
            )
    except Terminated:
        if speaks:
            print(f"SIGTERM: stopped with a checkpoint in {out}; {GO_ON}", file=sys.stderr)
        raise
    if speaks:
        _say_what_came_of_it(out, recipe, done, stopped=stop(), broken=len(loader.broken))
        if validation is not None and not stop():
            validation.report(out / "scores.json")
    return 130 if stop() else 0


def _say_what_came_of_it(out: Path, recipe: Recipe, done: int, *, stopped: bool, broken: int) -> None:
    print(f"saved {out / 'model.safetensors'}")
    if (out / "best.safetensors").is_file():
        print(f"saved {out / 'best.safetensors'}, the best by {recipe.metric}")
    notes = []
    if broken:
        notes.append(f"{broken} pictures could not be read and were left out")
    if stopped:
        notes.append(f"stopped before the last step, so it was not scored: pointrend eval does that; {GO_ON}")
    elif done < recipe.steps:
        why = f"{recipe.patience} evaluations without a better {recipe.metric}"
        notes.append(f"ended after {done} of {recipe.steps} updates: {why}")
    for note in notes:
        print(note, file=sys.stderr)
