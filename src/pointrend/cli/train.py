"""`pointrend train`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from tyro.conf import Positional

from pointrend.cli.presets import PRESETS, PresetName, instance_config, semantic_config, task_of


@dataclass(frozen=True)
class Train:
    """Train a model on your own data, or on generated scenes, and save it as OUT/model.safetensors.

    Data is "shapes" (generated scenes) or a folder: COCO format (instances_train.json beside train/), label maps
    (train.txt with lines "picture labels", or images/ beside labels/), or Cityscapes. Ctrl-C ends the training after
    the current step and saves the model; a second one gives up at once. SIGTERM saves a checkpoint and exits with 143;
    --resume goes on from there, from Ctrl-C, or from the last checkpoint that was due.

    With the name of a published training, such as pointrend_rcnn_R_50_FPN_1x_coco, all is as published, but for what
    is given here; on N GPUs: torchrun --nproc-per-node N -m pointrend train NAME --data DIR.
    """

    recipe: Positional[str] = ""
    """A published training (as `pointrend zoo` lists them), or what --model takes."""
    data: str = "shapes"
    """Data set: "shapes" or a folder."""
    model: PresetName = "semantic-fpn-mobilenet"
    """What is segmented, the network, and its backbone."""
    pointrend: bool = True
    """Refine by points; --no-pointrend trains the coarse baseline."""
    weights: Path | None = None
    """Pretrained backbone: a name that `pointrend zoo` lists, such as torchvision/resnet18, or a file, as published or
    .safetensors with torchvision's names and batch norm folded in. Random, or as published, if not given."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to learn, instead of all."""
    steps: int | None = None
    """Updates of the weights; 1000, or as published, if not given."""
    batch: int | None = None
    """Pictures in each update, of all processes together; 8, or as published, if not given."""
    accumulate: int = 1
    """Parts that each process computes its share of an update in, one after the other, to save memory."""
    lr: float | None = None
    """Learning rate; 6e-4, or 2e-4 for instances, or as published for this batch, if not given."""
    train_points: int | None = None
    """N of a published training: points on which the point head is trained, in each box or picture."""
    oversample: float | None = None
    """k of a published training: candidates for each training point."""
    importance: float | None = None
    """beta of a published training: share of the training points chosen by uncertainty."""
    points: int | None = None
    """Points of each subdivision step of a published training's network."""
    subdivisions: int | None = None
    """Subdivision steps of a published training's network."""
    seed: int = 0
    """Of the initial weights, the order of the pictures and their random changes."""
    crop: tuple[int, int] = (256, 320)
    """Height and width of the crops that semantic models are trained on."""
    size: int = 320
    """Short edge in pixels at which instance models see pictures."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the network; weights, coordinates and losses stay float32."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is then what is scored and saved; 0: none."""
    channels_last: bool = False
    """Lay convolutions out in memory as tensor cores like them."""
    compile: str | None = None
    """Compile the backbone by this torch.compile backend, such as inductor."""
    workers: int = 0
    """Processes that read pictures beside the training."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    evaluate: bool = True
    """Score the model on the validation part at the end."""
    limit: int = 200
    """Score at most so many pictures."""
    draw_every: int = 0
    """Updates between pictures of predictions and of the points chosen for them, in OUT/pictures; 0: none."""
    wandb: str | None = None
    """Project at Weights & Biases that numbers and pictures go to as well."""
    checkpoint_every: int | None = None
    """Updates between checkpoints to resume from; 500, or as published, if not given."""
    resume: bool = False
    """Go on from the newest checkpoint in OUT; from the start where there is none."""
    out: Path = Path("runs/train")
    """Folder for the model, the log and the scores."""

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        if self.recipe in PRESETS:
            return replace(self, recipe="", model=cast(PresetName, self.recipe)).run()
        if self.recipe:
            from pointrend.cli.published import run_published

            return run_published(self)
        chosen = (self.train_points, self.oversample, self.importance, self.points, self.subdivisions)
        if any(number is not None for number in chosen):
            raise ValueError("points can be chosen for published trainings: pointrend train NAME")
        import torch

        from pointrend.cli.running import named, run_training
        from pointrend.data.open import open_dataset

        task = task_of(self.model)
        name = named(self.data, task)
        data: Any = open_dataset(
            name, "train", transforms=self._transforms(task), categories=self.categories or None
        )
        torch.manual_seed(self.seed)
        recipe = self._recipe(task)
        return run_training(
            self._build(task, data),
            data,
            recipe,
            self,
            name=name,
            evaluate=self.evaluate,
            extra={"data": self.data, "preset": self.model, "seed": self.seed, "steps": recipe.steps},
        )

    def _transforms(self, task: str) -> Any:
        from pointrend.data.transforms import instance_training_transforms, training_transforms

        if task == "instance":
            return instance_training_transforms((self.size,), 2 * self.size)
        return training_transforms(self.crop)

    def _build(self, task: str, data: Any) -> Any:
        from pointrend.cli.loading import downloading
        from pointrend.models.instance import InstanceSegmenter
        from pointrend.models.semantic import SemanticSegmenter
        from pointrend.zoo.pretrained import fill_backbone

        common: dict[str, Any] = {"point_rend": self.pointrend, "pretrained": self.weights is not None}
        names = tuple(data.class_names)
        model: Any
        if task == "instance":
            model = InstanceSegmenter(instance_config(self.model, names, size=self.size, **common))
        else:
            model = SemanticSegmenter(semantic_config(self.model, names, tuple(data.palette), **common))
        if self.weights is not None:
            with downloading(str(self.weights)) as progress:
                known = fill_backbone(model.backbone, self.weights.as_posix(), progress=progress)
            model.origin = known.origin if known is not None else {}
        return model

    def _recipe(self, task: str) -> Any:
        from pointrend.training.recipe import Recipe

        steps = 1000 if self.steps is None else self.steps
        return Recipe(
            steps=steps,
            batch_size=8 if self.batch is None else self.batch,
            accumulate=self.accumulate,
            optimizer="adamw",
            learning_rate=self.lr if self.lr is not None else (2e-4 if task == "instance" else 6e-4),
            backbone_factor=0.5 if self.weights is not None else 1.0,
            warmup_steps=min(20, steps // 10),
            clip_gradient=10.0,
            precision=self.precision,
            seed=self.seed,
            log_every=min(20, max(1, steps)),
            state_every=500 if self.checkpoint_every is None else self.checkpoint_every,
        )


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for an orderly end (the function then says True); the second one is a KeyboardInterrupt."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("stopping after this step; Ctrl-C again gives up at once", file=sys.stderr)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
