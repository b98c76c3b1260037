"""`pointrend train` and `finetune`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pointrend.training.options import PRESETS, PointOptions, PresetName, TrainingOptions

if TYPE_CHECKING:
    from pointrend.train import TrainingRun
    from pointrend.training.config import TrainingConfig


GO_ON = "the same command with --resume goes on"


@dataclass(frozen=True, kw_only=True)
class Train(PointOptions, TrainingOptions):
    """Train a model on your own data, or on generated scenes, and save it as OUT/model.safetensors.

    Data is "shapes" (generated scenes) or a folder: COCO format (instances_train.json beside train/), label maps
    (train.txt with lines "image labels", or images/ beside labels/), or Cityscapes. Ctrl-C ends the training after
    the current step and saves the model; a second one gives up at once. SIGTERM saves a checkpoint and exits with 143;
    --resume goes on from there, from Ctrl-C, or from the last checkpoint that was due.

    With the name of a published training, such as pointrend_rcnn_R_50_FPN_1x_coco, everything is as published, except
    for what is given here; on N GPUs: torchrun --nproc-per-node N -m pointrend train NAME --data DIR.
    """

    recipe: Positional[str] = ""
    """A published training, as `pointrend zoo` lists them, or a preset."""
    preset: PresetName | None = None
    """Task, network and backbone for small machines; semantic-fpn-mobilenet if no name is given either."""
    backbone: str | None = None
    """Another backbone: timm/NAME (extra timm), torchvision/NAME, or a name of ours, such as resnet34."""
    weights: str | None = None
    """Pretrained backbone: a name that `pointrend zoo` lists, such as torchvision/resnet18, or a file, as published or
    .safetensors with torchvision's names and batch norm folded in; "none" for random weights. With --backbone timm/NAME
    that name again, or a file of the whole network. Random, or as published, if not given."""

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        from pointrend.cli.console import announce, downloading

        announce(f"reading {self.data}")
        from pointrend.train import prepare_training

        config = self.apply_to_network(self._config())
        return finish(prepare_training(config, self, weights=self.weights, progress=downloading))

    def apply_to_network(self, config: TrainingConfig) -> TrainingConfig:
        """The training with the backbone and the points that were asked for."""
        if self.backbone is not None:
            config = config.with_backbone(self.backbone)
        return super().apply_to_network(config)

    def _config(self) -> TrainingConfig:
        from pointrend.training.paper import find_recipe
        from pointrend.training.presets import preset

        name = self.recipe or self.preset or PRESETS[0]
        if self.preset not in (None, name):
            raise ValueError(f"preset: {self.recipe} was named already; leave one of the two out")
        if name in PRESETS:
            return preset(name, pretrained=self.weights not in (None, "none"))  # type: ignore[arg-type]
        return find_recipe(name)


def finish(run: TrainingRun) -> int:
    """Run the training with bars and say what came of it; 130 if it was stopped by Ctrl-C."""
    from contextlib import nullcontext

    from pointrend.cli.console import counting, training
    from pointrend.distributed import main_process
    from pointrend.signals import Terminated

    visible, out = main_process(), run.options.out
    if visible:
        names = tuple(run.data.class_names)
        few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        print(f"{len(run.data)} images, {len(names)} classes: {few}", file=sys.stderr)
        if not run.model.origin:
            print("the backbone starts from random weights", file=sys.stderr)
    try:
        with training(run.recipe.steps) if visible else nullcontext() as report:
            run.run(report, counting)
    except Terminated:
        if visible:
            print(f"SIGTERM: stopped with a checkpoint in {out}; {GO_ON}", file=sys.stderr)
        raise
    if visible:
        _summarize(run)
    return 130 if run.stopped else 0


def _summarize(run: TrainingRun) -> None:
    from pointrend.cli.console import show

    out, recipe = run.options.out, run.recipe
    print(f"saved {out / 'model.safetensors'}")
    if (out / "best.safetensors").is_file():
        print(f"saved {out / 'best.safetensors'}, the best by {recipe.metric}")
    notes = []
    if run.broken:
        notes.append(f"{run.broken} images could not be read and were left out")
    if run.stopped:
        notes.append(f"stopped before the last step, so it was not scored: pointrend eval does that; {GO_ON}")
    elif run.done < recipe.steps:
        why = f"{recipe.patience} evaluations without a better {recipe.metric}"
        notes.append(f"ended after {run.done} of {recipe.steps} updates: {why}")
    for note in notes:
        print(note, file=sys.stderr)
    rows = run.validation.rows
    if rows and not run.stopped:
        show(
            rows,
            run.data.task,
            f"model.safetensors on {run.options.data}, val: {rows[0].images} images, per cent",
        )


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingOptions):
    """Train a model further on data of your own, with the classes of that data.

    Starts from a checkpoint of ours or a name of the zoo. Weights of classes that both know by the same name are kept,
    the rest of the heads is reinitialised; what was kept is listed. The model is scored twenty times on the validation
    part; the best is OUT/best.safetensors, the last OUT/model.safetensors. Ctrl-C and SIGTERM leave a checkpoint that
    --resume goes on from.
    """

    model: Positional[str]
    """Checkpoint, or a name listed by `pointrend zoo`."""
    out: Path = Path("runs/finetune")
    """Folder for the models, the log and the scores."""

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        from pointrend.cli.console import announce, load_model

        announce(f"loading {self.model}, reading {self.data}")
        from pointrend.distributed import main_process
        from pointrend.train import prepare_finetuning

        run, transfer = prepare_finetuning(load_model(self.model), self.model, self)
        if main_process():
            print(transfer, file=sys.stderr)
        return finish(run)
