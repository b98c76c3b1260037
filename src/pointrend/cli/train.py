"""`pointrend train`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tyro.conf import OmitArgPrefixes, Positional

from pointrend.cli.presets import PRESETS, PresetName, instance_config, semantic_config, task_of
from pointrend.cli.training_run import Engine


@dataclass(frozen=True)
class Train:
    """Train a model on your own data, or on generated scenes, and save it as OUT/model.safetensors.

    Data is "shapes" (generated scenes) or a folder: COCO format (instances_train.json beside train/), label maps
    (train.txt with lines "image labels", or images/ beside labels/), or Cityscapes. Ctrl-C ends the training after
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
    """Images in each update, of all processes together; 8, or as published, if not given."""
    lr: float | None = None
    """Learning rate; 6e-4, or 2e-4 for instances, or as published for this batch, if not given."""
    train_points: int | None = None
    """N of a published training: points on which the point head is trained, in each box or image."""
    oversample: float | None = None
    """k of a published training: candidates for each training point."""
    importance: float | None = None
    """beta of a published training: share of the training points chosen by uncertainty."""
    points: int | None = None
    """Points of each subdivision step of a published training's network."""
    subdivisions: int | None = None
    """Subdivision steps of a published training's network."""
    seed: int = 0
    """Of the initial weights, the order of the images and their random changes."""
    crop: tuple[int, int] = (256, 320)
    """Height and width of the crops that semantic models are trained on."""
    size: int = 320
    """Short edge in pixels at which instance models see images."""
    evaluate: bool = True
    """Score the model on the validation part at the end."""
    evaluate_every: int = 0
    """Updates between further scores before that; 0: none."""
    metric: str | None = None
    """Score by which the best model is kept as OUT/best.safetensors, such as mIoU or "boundary AP"."""
    checkpoint_every: int | None = None
    """Updates between checkpoints to resume from; 500, or as published, if not given."""
    out: Path = Path("runs/train")
    """Folder for the model, the log and the scores."""
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        if self.recipe in PRESETS:
            return replace(self, recipe="", model=cast(PresetName, self.recipe)).run()
        if self.recipe:
            from pointrend.cli.training_run import run_published

            return run_published(self)
        chosen = (self.train_points, self.oversample, self.importance, self.points, self.subdivisions)
        if any(number is not None for number in chosen):
            raise ValueError("points can be chosen for published trainings: pointrend train NAME")
        import torch

        from pointrend.cli.training_run import Images, run_training

        task = task_of(self.model)
        images = Images(self.data, task, self.categories)
        data = images.training(self._transforms(task))
        torch.manual_seed(self.seed)
        recipe = self._recipe(task)
        known = {"data": self.data, "preset": self.model, "seed": self.seed, "steps": recipe.steps}
        model = self._build(task, data)
        return run_training(
            model, data, images, recipe, self.engine, out=self.out, evaluate=self.evaluate, extra=known
        )

    def _transforms(self, task: str) -> Any:
        from pointrend.data.transforms import instance_training_transforms, training_transforms

        if task == "instance":
            return instance_training_transforms((self.size,), 2 * self.size)
        return training_transforms(self.crop)

    def _build(self, task: str, data: Any) -> Any:
        from pointrend.cli.console import downloading
        from pointrend.models.instance import InstanceSegmenter
        from pointrend.models.semantic import SemanticSegmenter
        from pointrend.zoo.backbones import fill_backbone

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
            optimizer="adamw",
            learning_rate=self.lr if self.lr is not None else (2e-4 if task == "instance" else 6e-4),
            backbone_factor=0.5 if self.weights is not None else 1.0,
            warmup_steps=min(20, steps // 10),
            clip_gradient=10.0,
            seed=self.seed,
            log_every=min(20, max(1, steps)),
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            state_every=500 if self.checkpoint_every is None else self.checkpoint_every,
        )
