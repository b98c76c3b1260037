"""What trainings started from the command line have in common: bars, signals, scores, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pointrend.checkpoints.native import save
from pointrend.cli.console import downloading, quiet_unless, show, training
from pointrend.data.build import open_dataset
from pointrend.distributed import main_process
from pointrend.evaluate import score
from pointrend.evaluation.evaluate_semantic import score_names
from pointrend.evaluation.ground_truth import Subset
from pointrend.evaluation.report import Scores, to_json
from pointrend.io import write_text
from pointrend.models.instance import InstanceConfig
from pointrend.models.semantic import SemanticConfig
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.finetune import build
from pointrend.training.loggers import WeightsAndBiases, installed_boards
from pointrend.training.loop import train
from pointrend.training.processes import Terminated
from pointrend.training.published import Published, find_recipe
from pointrend.training.recipe import Recipe
from pointrend.training.signals import stopping
from pointrend.visualize import as_image, draw, draw_chosen, traced_box
from pointrend.visualize.comparison import contact_sheet, draw_target
from pointrend.zoo.backbones import PRETRAINED, fill_backbone

if TYPE_CHECKING:
    from pointrend.cli.train import Train


GO_ON = "the same command with --resume goes on"


def restarted() -> bool:
    """Whether an elastic torchrun started this process again after it had lost one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


class Images:
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
    """Scores of a model on the validation part; the numbers by name, in per cent. Processes share the images.

    Args:
        limit: score at most so many images.
        metric: of these scores, what the best model is chosen by.

    Raises:
        ValueError: for a metric that is none of the task's.
    """

    def __init__(self, images: Images, task: str, *, limit: int | None, metric: str | None) -> None:
        known = score_names(task)
        if metric is not None and metric not in known:
            raise ValueError(
                f"metric: expected a score of {task} segmentation ({', '.join(known)}), got {metric!r}"
            )
        self.images = Subset.first(images.validation(), limit)
        self.title = f"model.safetensors on {images.name}, val: {len(self.images)} images, per cent"
        self.task = task
        self.rows: list[Scores] = []

    def __call__(self, model: Any) -> Mapping[str, float]:
        with quiet_unless(main_process(), "scoring", len(self.images)) as progress:
            self.rows = score(model.eval(), self.images, progress=progress)
        return {name: 100 * value for name, value in self.rows[-1].numbers.items()}

    def report(self, path: Path) -> None:
        """Print the last scores, and write them."""
        show(self.rows, self.task, self.title)
        write_text(path, to_json(self.rows))


def run_training(
    model: Any,
    data: Any,
    images: Images,
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
        images: the same data set's validation part is scored, if `evaluate`, and drawn.
        limit: images to score, where `engine` does not say; all if None.
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
        print(f"{len(data)} images, {len(names)} classes: {few}", file=sys.stderr)
    validation = None
    if evaluate:
        limit = engine.limit if engine.limit is not None else limit
        validation = Validation(images, data.task, limit=limit, metric=recipe.metric)
    draw = None
    if engine.draw_every and speaks:
        draw = TrainingImages(images.validation())
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
        notes.append(f"{broken} images could not be read and were left out")
    if stopped:
        notes.append(f"stopped before the last step, so it was not scored: pointrend eval does that; {GO_ON}")
    elif done < recipe.steps:
        why = f"{recipe.patience} evaluations without a better {recipe.metric}"
        notes.append(f"ended after {done} of {recipe.steps} updates: {why}")
    for note in notes:
        print(note, file=sys.stderr)


SHOWN = 0.3
"""Score from which objects are drawn."""
TILE = 512
"""Side of the square that each image fits into."""


class TrainingImages:
    """One sheet: a row for each image with its labels, the prediction, and the points chosen in subdivision.

    Points are those of the whole image, or of the object with the best score; a model without a point head has none.

    Args:
        data: images with targets, `class_names` and a `palette`.
        count: so many of them, evenly spread: neighbours in a film look alike.
    """

    def __init__(self, data: Any, count: int = 3) -> None:
        self.data = data
        count = min(count, len(data))
        self.samples = [data[number * len(data) // count] for number in range(count)]

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, Any]:
        """The sheet, by name."""
        tiles = []
        for sample in self.samples:
            result, chosen = predicted(model, sample.image)
            truth = draw_target(sample, self.data.class_names, self.data.palette)
            tiles += [
                truth,
                draw(sample.image, result),
                as_image(sample.image) if chosen is None else chosen,
            ]
        return {"predictions": contact_sheet(tiles, columns=3, tile=TILE)}


def predicted(model: Any, image: torch.Tensor) -> tuple[Any, Any]:
    """The result, and the image with the points chosen on the way; None where there were none."""
    if model.task == "semantic":
        trace: list[Any] = []
        result = model.predict([image], trace=trace)[0]
        box = traced_box(image, model.config.preprocessing)
        return result, draw_chosen(image, trace, box=box, scale=2) if trace else None
    found = model.trace([image])
    result = found.results[0]
    if found.masks is None or not found.masks.steps or not len(found.regions):
        return result, None
    height, width = found.batch.sizes[0]
    rows, columns = image.shape[-2:]
    scale = found.regions.boxes.new_tensor([columns / width, rows / height]).repeat(2)
    box = tuple((found.regions.boxes[0] * scale).tolist())
    return result, draw_chosen(image, found.masks.steps, box=box, scale=2)


@dataclass(frozen=True)
class Engine:
    """How the training runs on this machine, and what is shown of it."""

    accumulate: int = 1
    """Parts that each process computes its share of an update in, one after the other, to save memory."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the network; weights, coordinates and losses stay float32. float16 needs a GPU."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is then what is scored and saved; 0: none."""
    channels_last: bool = False
    """Lay convolutions out in memory as tensor cores like them."""
    compile: str | None = None
    """Compile the backbone by this torch.compile backend, such as inductor."""
    workers: int = 0
    """Processes that read images beside the training."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    limit: int | None = None
    """Score at most so many images of the validation part; 200, or all for a published training, if not given."""
    draw_every: int = 0
    """Updates between images of predictions and of the points chosen for them, in OUT/images; 0: none."""
    wandb: str | None = None
    """Project at Weights & Biases that numbers and images go to as well."""
    resume: bool = False
    """Go on from the newest checkpoint in OUT; from the start where there is none."""


def run_published(wishes: Train) -> int:
    """Train by the recipe of that name, with what was asked for differently."""
    published = with_wished_points(find_recipe(wishes.recipe), wishes)
    if wishes.steps is not None:
        published = published.shortened(wishes.steps)
    images = Images(wishes.data, published.task, wishes.categories)
    data = images.training(published.transforms)
    torch.manual_seed(wishes.seed)
    model = build(published.config(data.class_names, data.palette))
    _pretrain(model, published, wishes)
    recipe = recipe_for(published, wishes)
    known = {"data": wishes.data, "recipe": published.name, "seed": wishes.seed, "steps": recipe.steps}
    return run_training(
        model,
        data,
        images,
        recipe,
        wishes.engine,
        out=wishes.out,
        evaluate=wishes.evaluate,
        limit=None,
        extra=known,
    )


def recipe_for(published: Published, wishes: Train) -> Recipe:
    """The published numbers, but for those that were given."""
    recipe = replace(
        published.recipe, seed=wishes.seed, evaluate_every=wishes.evaluate_every, metric=wishes.metric
    )
    if wishes.checkpoint_every is not None:
        recipe = replace(recipe, state_every=wishes.checkpoint_every)
    if wishes.lr is not None:
        recipe = replace(recipe, learning_rate=wishes.lr)
    elif wishes.batch is not None:
        # The published rate belongs to the published batch (Goyal et al., 2017).
        recipe = replace(recipe, learning_rate=recipe.learning_rate * wishes.batch / recipe.batch_size)
    if wishes.batch is not None:
        recipe = replace(recipe, batch_size=wishes.batch)
    return recipe


def with_wished_points(published: Published, wishes: Train) -> Published:
    """The published points, but for those that were given."""
    network = published.network
    sampling = network.masks.sampling if isinstance(network, InstanceConfig) else None
    if isinstance(network, SemanticConfig) and network.point_rend is not None:
        sampling = network.point_rend.sampling
    given = {
        "num_points": wishes.train_points,
        "oversample_ratio": wishes.oversample,
        "importance_ratio": wishes.importance,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if sampling is not None and chosen:
        sampling = replace(sampling, **chosen)
    return published.with_points(
        sampling=sampling, num_points=wishes.points, subdivision_steps=wishes.subdivisions
    )


def _pretrain(model: Any, published: Published, wishes: Train) -> None:
    """Fill the backbone: from the file that was given, or with the weights that the recipe names."""
    wanted = str(wishes.weights) if wishes.weights is not None else published.pretrained
    if wanted in PRETRAINED:
        model.origin = PRETRAINED[wanted].origin
    if (wishes.engine.resume or restarted()) and any(wishes.out.glob("state-*.pt")):
        return  # the checkpoint has them
    if wanted in ("", "none"):
        if main_process():
            print("the backbone starts from random weights", file=sys.stderr)
        return
    with downloading(wanted) as progress:
        fill_backbone(model.backbone, wanted, progress=progress)
