"""The training job: open the data, build and fill the model, train, keep the best, score.

    run = prepare_training(preset("semantic-fpn-resnet18"), TrainingOptions(data="shapes", out=Path("runs/mine")))
    run.run()

The loop itself is `pointrend.training.loop`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from pointrend.checkpoints.download import Progress, file_hash
from pointrend.checkpoints.native import Model, build, save
from pointrend.data.build import open_dataset
from pointrend.data.class_mapping import match_classes
from pointrend.data.coco import CocoInstances
from pointrend.data.transforms import WITHOUT_POINTS, SampleTransform
from pointrend.distributed import main_process
from pointrend.evaluate import evaluate_model
from pointrend.evaluation.evaluate_semantic import score_names
from pointrend.evaluation.ground_truth import Subset
from pointrend.evaluation.report import Scores, to_json
from pointrend.io import write_text
from pointrend.models.attached import AttachedSegmenter
from pointrend.models.library_backbones import library_licence
from pointrend.signals import stopping
from pointrend.structures import Dataset
from pointrend.training.config import TrainingConfig
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.finetune import Transfer, change_classes, finetune_config, finetune_recipe
from pointrend.training.loggers import require_wandb
from pointrend.training.loop import Report, train
from pointrend.training.options import TrainingOptions
from pointrend.training.recipe import Recipe
from pointrend.zoo.backbones import PRETRAINED, fill_backbone

if TYPE_CHECKING:
    from pointrend.models.base import Pretrained


Bar = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar, called with (done, total), from its title and total."""


@dataclass
class TrainingRun:
    """A training that can start. `prepare_training` and `prepare_finetuning` make it."""

    model: Model
    data: Dataset
    """Images to learn from, changed at random."""
    validation: Validation
    recipe: Recipe
    options: TrainingOptions
    known: dict[str, object]
    """What the files say of the training, beside where the weights started (`model.origin`)."""
    done: int = 0
    """Updates."""
    stopped: bool = field(default=False, init=False)
    """By Ctrl-C."""
    broken: int = field(default=0, init=False)
    """Images that could not be read."""

    def __post_init__(self) -> None:
        if self.options.wandb is not None:
            require_wandb()
        if self.options.evaluate:
            self.validation.check(self.recipe.metric, self.data.task)

    def run(self, report: Report | None = None, bar: Bar | None = None) -> None:
        """Train; OUT gets the models, the log, checkpoints and scores.json.

        Args:
            report: called after each update, on the main process.
            bar: makes a progress bar for each evaluation, on the main process.

        Raises:
            Terminated: SIGTERM came; OUT has a checkpoint to resume from.
            ValueError, OSError, ArithmeticError: as `training.loop.train`.
        """
        out, options = self.options.out, self.options
        loader = TrainingLoader(self.data, self.recipe, workers=options.workers)
        ids = {"category_ids": list(self.data.category_ids)}  # so that predictions can be scored by the data
        known = {**self.model.origin, **ids, **self.known}
        draw = None
        if options.vis_every and main_process():
            from pointrend.visualize.contact_sheet import TrainingImages

            draw = TrainingImages(self.validation.images())
        self.validation.bar = bar

        def note(step: int, entry: Mapping[str, float]) -> None:
            self.done = step
            if report is not None:
                report(step, entry)

        with stopping() as stop:
            train(
                self.model,
                loader,
                self.recipe,
                out=out,
                evaluate=self.validation if options.evaluate else None,
                save=lambda one, path: save(one, path, extra=known),
                report=note,
                draw=draw,
                wandb=options.wandb,
                stop=stop,
                device=options.device,
                resume=options.resume or restarted(),
            )
            self.stopped = stop()
        self.broken = len(loader.broken)
        if main_process() and self.validation.rows and not self.stopped:
            write_text(out / "scores.json", to_json(self.validation.rows))


class Validation:
    """Scores of a model on the validation part; the numbers by name, in per cent. Processes share the images.

    Args:
        data: opens the validation part.
        limit: score at most so many images; all if None.
    """

    def __init__(self, data: Callable[[], Dataset], limit: int | None) -> None:
        self.images = data
        self.limit = limit
        self.rows: list[Scores] = []
        """Of the last evaluation."""
        self.bar: Bar | None = None
        self._part: Subset | None = None

    def check(self, metric: str | None, task: str) -> None:
        """Open the images, so that what is wrong is said before the training.

        Raises:
            ValueError: no images, or a metric that is none of the task's.
        """
        known = score_names(task)
        if metric is not None and metric not in known:
            raise ValueError(
                f"metric: expected a score of {task} segmentation ({', '.join(known)}), got {metric!r}"
            )
        self._part = Subset.first(self.images(), self.limit)

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        assert self._part is not None
        visible = self.bar is not None and main_process()
        with (
            self.bar("scoring", len(self._part)) if visible and self.bar is not None else nullcontext()
        ) as progress:
            self.rows = evaluate_model(cast("Pretrained", model.eval()), self._part, progress=progress)
        return {name: 100 * value for name, value in self.rows[-1].numbers.items()}


def prepare_training(
    config: TrainingConfig,
    options: TrainingOptions,
    *,
    weights: str | None = None,
    progress: Callable[[str], AbstractContextManager[Progress]] | None = None,
) -> TrainingRun:
    """A training from an ImageNet backbone or random weights.

    Args:
        config: network, augmentation and recipe.
        options: the data, and what is to be different from the recipe.
        weights: of the backbone, instead of those that the config names: a name of `zoo.backbones`, a file, or "none".
        progress: makes a progress bar for the download of these weights.

    Raises:
        ValueError: options that do not fit the network; data that cannot be read; weights of another network.
        ConnectionError: weights that have to be downloaded, and cannot be.
    """
    config = _adapted(config, options)
    if options.steps is not None:
        config = config.shortened(options.steps)
    train_part, validation = _open(options, config.task, config.transforms, all_images=config.data != "any")
    if config.point_labels and not (isinstance(train_part, CocoInstances) and train_part.has_points):
        raise ValueError(f"{config.name} and {options.data}: {WITHOUT_POINTS}")
    torch.manual_seed(options.seed)
    model = build(config.config(train_part.class_names, train_part.palette))
    _fill(model, config.pretrained if weights is None else weights, options, progress)
    recipe = options.apply_to(config.recipe)
    known = {"data": options.data, "recipe": config.name, "seed": options.seed, "steps": recipe.steps}
    return TrainingRun(model, train_part, validation, recipe, options, known)


def prepare_finetuning(
    model: Pretrained, name: str, options: TrainingOptions
) -> tuple[TrainingRun, Transfer]:
    """A training that goes on from a trained model, with the classes of the data, and what was kept of it.

    Raises:
        ValueError: an exported file; options that do not fit the network; data that cannot be read.
    """
    if not isinstance(model, Model):
        raise ValueError(f"{name}: expected a checkpoint; an exported file cannot be trained")
    torch.manual_seed(options.seed)
    config = _adapted(finetune_config(model), options)
    train_part, validation = _open(options, config.task, config.transforms, all_images=False)
    model.config = config.network  # at the size that was asked for
    changed, transfer = change_classes(model, train_part.class_names, train_part.palette)
    recipe = options.apply_to(finetune_recipe(len(train_part), config.task, options.steps))
    known = {"data": options.data, "from": Path(name).name, "seed": options.seed}
    return TrainingRun(changed, train_part, validation, recipe, options, known), transfer


def _adapted(config: TrainingConfig, options: TrainingOptions) -> TrainingConfig:
    """The training on images and labelled points as the options have them."""
    if options.crop is not None:
        config = config.with_crop(*options.crop)
    if options.size is not None:
        config = config.with_size(options.size)
    if options.sample_points is not None:
        config = config.with_sampled_points(options.sample_points)
    return config


def _open(
    options: TrainingOptions, task: str, transforms: SampleTransform, *, all_images: bool
) -> tuple[Dataset, Validation]:
    """The training part, and the validation part unopened."""
    named = options.data.endswith((":semantic", ":instance"))
    name = options.data if named else f"{options.data}:{task}"
    categories = options.categories or None
    data = open_dataset(name, "train", transforms=transforms, categories=categories)
    limit = options.limit if options.limit is not None or all_images else 200

    def validation() -> Dataset:
        part = open_dataset(name, "val", categories=categories)
        if isinstance(part, CocoInstances):
            part.require_masks()
        return match_classes(part, data.class_names, of="the training part")

    return data, Validation(validation, limit)


def _fill(
    model: Model,
    wanted: str,
    options: TrainingOptions,
    progress: Callable[[str], AbstractContextManager[Progress]] | None,
) -> None:
    """Fill the backbone, and note where it started."""
    if wanted in ("", "none") or isinstance(model, AttachedSegmenter):
        return
    if wanted in PRETRAINED:
        model.origin = PRETRAINED[wanted].origin
    elif Path(wanted).is_file():
        digest = file_hash(wanted)
        file = {"name": Path(wanted).name, "sha256": digest, "licence": "not stated: a file of one's own"}
        model.origin = {"backbone_started_from": file}
    elif model.config.backbone.library and wanted == model.config.backbone.name:
        model.origin = {"backbone_started_from": {"name": wanted, "licence": library_licence(wanted)}}
    if (options.resume or restarted()) and any(options.out.glob("state-*.pt")):
        return  # the checkpoint has them
    with progress(wanted) if progress is not None else nullcontext() as report:
        fill_backbone(model.backbone, wanted, progress=report)


def restarted() -> bool:
    """Whether an elastic torchrun started this process again after it had lost one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
