"""How a model is trained, as a plain frozen dataclass: what is written is what runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

_WORDS = {
    "mean_over": ("update", "part"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("constant", "poly", "milestones"),
    "precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and bookkeeping of one training."""

    steps: int = 1000
    """Updates of the weights."""
    batch_size: int = 8
    """Images in each update: of all processes and accumulated parts together, so that neither changes it."""
    accumulate: int = 1
    """Parts that each process takes its share of an update in, one after the other, to save memory."""
    mean_over: Literal["update", "part"] = "update"
    """What losses are means over, where images differ in objects or labelled pixels: the whole update, however it is
    shared out, or each part, and then over the parts, as the originals do on their 8 GPUs."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0
    """Weight decay of norm layers' parameters (0 in Detectron2)."""
    backbone_factor: float = 1.0
    """Learning rate of parameters named ``backbone.*``, or ``network.*`` of an attached one, times the rest's."""
    rate_factors: tuple[tuple[str, float], ...] = ()
    """The same for other modules: (first part of their name, factor), such as ("decoder", 10.0)."""
    schedule: Literal["constant", "poly", "milestones"] = "poly"
    """poly: ``(1 - step / steps) ** power``; milestones: x ``gamma`` at each of them."""
    power: float = 0.9
    poly_start: int = 0
    """Update at which poly starts to fall; it is 1 before."""
    poly_floor: float = 0.0
    """The factor of the learning rate that poly ends at."""
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup_steps: int = 0
    warmup_factor: float = 0.001
    """Linear warm-up from this factor."""
    clip_gradient: float | None = None
    """Largest 2-norm of the whole gradient; None does not clip."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast of the network; coordinates, losses and weights stay float32."""
    average: float = 0.0
    """Decay of a moving average of the weights, which is then what is scored and saved; 0: none."""
    group_by_aspect: bool = False
    """Wide images in parts of their own, and tall ones: less padding."""
    channels_last: bool = False
    """Memory layout of convolutions that suits tensor cores."""
    compile: str | None = None
    """Compile the backbone by this torch.compile backend, such as "inductor"."""
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 0
    """Steps between evaluations; 0: only at the end."""
    draw_every: int = 0
    """Steps between images of what the model does; 0: none."""
    save_every: int = 0
    """Steps between model files that are kept; 0: only at the end."""
    state_every: int = 0
    """Steps between checkpoints to resume from; 0: only when the training is asked to end early."""
    keep: int = 2
    """Checkpoints to resume from that are kept, the newest."""
    metric: str | None = None
    """A score of the evaluation, larger is better: the best model by it is saved as best.safetensors."""
    patience: int = 0
    """Evaluations without a better ``metric`` after which the training ends; 0: it goes on."""

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise ValueError(
                    f"recipe: {name}: expected {' or '.join(words)}, got {getattr(self, name)!r}"
                )
        positive = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "accumulate": self.accumulate,
            "log_every": self.log_every,
            "keep": self.keep,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"recipe: {name} must be positive, got {value}")
        counts = ("warmup_steps", "poly_start", "evaluate_every", "draw_every", "save_every", "state_every")
        for name in (*counts, "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"recipe: {name} must not be negative, got {getattr(self, name)}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"recipe: milestones must increase, got {self.milestones}")
        if not 0 <= self.average < 1:
            raise ValueError(f"recipe: average must be in [0, 1), got {self.average}")
        if self.patience and (self.metric is None or not self.evaluate_every):
            raise ValueError("recipe: patience needs a metric and evaluate_every")

    def factor(self, step: int) -> float:
        """The learning rate of update ``step`` (from 0), as a factor of ``learning_rate``."""
        if self.schedule == "poly":
            progress = (step - self.poly_start) / max(1, self.steps - self.poly_start)
            factor = min(1.0, max(0.0, 1 - progress)) ** self.power
            factor = self.poly_floor + (1 - self.poly_floor) * factor
        elif self.schedule == "milestones":
            factor = math.prod(self.gamma for milestone in self.milestones if step >= milestone)
        else:
            factor = 1.0
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            factor *= self.warmup_factor * (1 - progress) + progress
        return factor


_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.SyncBatchNorm)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, grouped by learning rate and weight decay.

    Raises:
        ValueError: if nothing is trainable, or ``rate_factors`` names a module that is not there.
    """
    parts = ("backbone", "network")  # an attached network is one that was trained before, as a whole
    factors = {**dict.fromkeys(parts, recipe.backbone_factor), **dict(recipe.rate_factors)}
    missing = [name for name, _ in recipe.rate_factors if not hasattr(model, name)]
    if missing:
        known = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"recipe: rate_factors names {missing}, but the model has only {known}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in model.named_modules():
        decay = recipe.norm_weight_decay if isinstance(module, _NORMS) else recipe.weight_decay
        factor = factors.get(prefix.split(".")[0], 1.0)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                groups.setdefault((factor, decay), []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: every parameter of the model is frozen")
    described: Iterable[dict[str, object]] = [
        {"params": parameters, "lr": recipe.learning_rate * factor, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=recipe.learning_rate)
    return torch.optim.SGD(described, lr=recipe.learning_rate, momentum=recipe.momentum)
