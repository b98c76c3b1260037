"""`pointrend finetune`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional


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
    """Updates of the weights; by the number of pictures if not given."""
    batch: int | None = None
    """Pictures in each update; 8, or 4 for instances, if not given."""
    accumulate: int = 1
    """Parts that an update is computed in, one after the other, to save memory."""
    lr: float | None = None
    """Learning rate of the heads; the backbone has a tenth of it."""
    metric: str | None = None
    """Score by which the best model is chosen and the training ends early; mIoU or mask AP if not given."""
    patience: int = 5
    """Evaluations without a better score after which the training ends; 0: never early."""
    crop: tuple[int, int] = (256, 320)
    """Height and width of the crops that semantic models are trained on."""
    size: int | None = None
    """Short edge in pixels at which instance models see pictures; the model's own if not given."""
    seed: int = 0
    """Of new weights, the order of the pictures and their random changes."""
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
    limit: int = 200
    """Score at most so many pictures."""
    draw_every: int = 0
    """Updates between pictures of predictions and of the points chosen for them, in OUT/pictures; 0: none."""
    wandb: str | None = None
    """Project at Weights & Biases that numbers and pictures go to as well."""
    resume: bool = False
    """Go on from the newest checkpoint in OUT."""
    out: Path = Path("runs/finetune")
    """Folder for the models, the log and the scores."""

    def run(self) -> int:
        """Train, evaluate, save; 130 if it was stopped by Ctrl-C."""
        import torch

        from pointrend.cli.evaluate import task_of
        from pointrend.cli.loading import load_model
        from pointrend.cli.running import main_process, named, run_training
        from pointrend.data.open import open_dataset
        from pointrend.training.finetune import change_classes

        torch.manual_seed(self.seed)
        old: Any = load_model(self.model)
        task = task_of(old)
        name = named(self.data, task)
        data: Any = open_dataset(
            name, "train", transforms=self._transforms(task, old), categories=self.categories or None
        )
        model, transfer = change_classes(old, data.class_names, data.palette)
        if main_process():
            print(transfer, file=sys.stderr)
        return run_training(
            model,
            data,
            self._recipe(task, len(data)),
            self,
            name=name,
            extra={"data": self.data, "from": Path(self.model).name, "seed": self.seed},
        )

    def _transforms(self, task: str, model: Any) -> Any:
        from pointrend.data.transforms import instance_training_transforms, training_transforms

        if task == "semantic":
            return training_transforms(self.crop)
        size = self.size or model.config.preprocessing.short_edge or 800
        edges = tuple(round(size * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2))
        return instance_training_transforms(edges, 2 * size)

    def _recipe(self, task: str, pictures: int) -> Any:
        from pointrend.training.finetune import finetune_recipe

        metric = self.metric or ("mIoU" if task == "semantic" else "mask AP")
        recipe = finetune_recipe(pictures, task, metric=metric)
        if self.steps is not None:
            every = max(1, self.steps // 20)
            recipe = replace(
                recipe, steps=self.steps, warmup_steps=every, evaluate_every=every, state_every=max(50, every)
            )
        return replace(
            recipe,
            batch_size=self.batch or recipe.batch_size,
            learning_rate=self.lr or recipe.learning_rate,
            accumulate=self.accumulate,
            patience=self.patience,
            precision=self.precision,
            seed=self.seed,
        )
