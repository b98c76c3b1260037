"""`pointrend finetune`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from pointrend.cli.training_run import Engine


@dataclass(frozen=True)
class Finetune:
    """Train a model further on data of your own, with the classes of that data.

    Starts from a checkpoint of ours or a name of the zoo. Weights of classes that both know by the same name are kept,
    the rest of the heads starts anew; what was kept is listed. The model is scored twenty times on the validation part;
    the best is OUT/best.safetensors, the last OUT/model.safetensors. Ctrl-C and SIGTERM leave a checkpoint that
    --resume goes on from.
    """

    model: Positional[str]
    """Checkpoint, or a name listed by `pointrend zoo`."""
    data: str
    """Data set, as for `pointrend train`."""
    categories: tuple[str, ...] = ()
    """Categories or supercategories of COCO data to learn, instead of all."""
    steps: int | None = None
    """Updates of the weights; by the number of images if not given."""
    batch: int | None = None
    """Images in each update; 8, or 4 for instances, if not given."""
    lr: float | None = None
    """Learning rate of the heads; the backbone has a tenth of it."""
    metric: str | None = None
    """Score by which the best model is chosen and the training ends early; mIoU or mask AP if not given."""
    patience: int = 5
    """Evaluations without a better score after which the training ends; 0: never early."""
    crop: tuple[int, int] = (256, 320)
    """Height and width of the crops that semantic models are trained on."""
    size: int | None = None
    """Short edge in pixels at which instance models see images; the model's own if not given."""
    seed: int = 0
    """Of new weights, the order of the images and their random changes."""
    out: Path = Path("runs/finetune")
    """Folder for the models, the log and the scores."""
    engine: OmitArgPrefixes[Engine] = field(default_factory=Engine)

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        import torch

        from pointrend.cli.console import load_model
        from pointrend.cli.training_run import Images, run_training
        from pointrend.distributed import main_process
        from pointrend.training.finetune import change_classes

        torch.manual_seed(self.seed)
        old: Any = load_model(self.model)
        task = old.task
        images = Images(self.data, task, self.categories)
        data = images.training(self._transforms(task, old))
        model, transfer = change_classes(old, data.class_names, data.palette)
        if main_process():
            print(transfer, file=sys.stderr)
        known = {"data": self.data, "from": Path(self.model).name, "seed": self.seed}
        recipe = self._recipe(task, len(data))
        return run_training(model, data, images, recipe, self.engine, out=self.out, extra=known)

    def _transforms(self, task: str, model: Any) -> Any:
        from pointrend.data.transforms import instance_training_transforms, training_transforms

        if task == "semantic":
            return training_transforms(self.crop)
        size = self.size or model.config.preprocessing.short_edge or 800
        edges = tuple(round(size * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2))
        return instance_training_transforms(edges, 2 * size)

    def _recipe(self, task: str, images: int) -> Any:
        from pointrend.training.finetune import finetune_recipe

        metric = self.metric or ("mIoU" if task == "semantic" else "mask AP")
        recipe = finetune_recipe(images, task, metric=metric)
        if self.steps is not None:
            every = max(1, self.steps // 20)
            recipe = replace(
                recipe, steps=self.steps, warmup_steps=every, evaluate_every=every, state_every=max(50, every)
            )
        return replace(
            recipe,
            batch_size=self.batch or recipe.batch_size,
            learning_rate=self.lr or recipe.learning_rate,
            patience=self.patience,
            seed=self.seed,
        )
