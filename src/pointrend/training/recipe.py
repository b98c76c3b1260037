"""How a model is trained, as plain frozen dataclasses: what is written is what runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and bookkeeping of one training."""

    steps: int = 1000
    """Updates of the weights."""
    batch_size: int = 8
    """Pictures in each update and process."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0
    """Weight decay of norm layers' parameters (0 in Detectron2)."""
    backbone_factor: float = 1.0
    """Learning rate of parameters named ``backbone.*``, times the rest's."""
    schedule: Literal["constant", "poly", "milestones"] = "poly"
    """poly: ``(1 - step / steps) ** power``; milestones: x ``gamma`` at each of them."""
    power: float = 0.9
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup_steps: int = 0
    warmup_factor: float = 0.001
    """Linear warm-up from this factor."""
    clip_gradient: float | None = None
    """Largest 2-norm of the whole gradient; None does not clip."""
    accumulate: int = 1
    """Batches whose gradients are averaged in one update."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast of the network; coordinates, losses and weights stay float32."""
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 0
    """Steps between evaluations; 0: only at the end."""
    save_every: int = 0
    """Steps between checkpoints; 0: only at the end."""

    def __post_init__(self) -> None:
        positive = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "accumulate": self.accumulate,
            "log_every": self.log_every,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"recipe: {name} must be positive, got {value}")
        if self.warmup_steps < 0 or self.evaluate_every < 0 or self.save_every < 0:
            raise ValueError("recipe: warmup_steps, evaluate_every and save_every must not be negative")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"recipe: milestones must increase, got {self.milestones}")

    def factor(self, step: int) -> float:
        """The learning rate of update ``step`` (from 0), as a factor of ``learning_rate``."""
        if self.schedule == "poly":
            factor = max(0.0, 1 - step / self.steps) ** self.power
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
        ValueError: if nothing is trainable.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in model.named_modules():
        decay = recipe.norm_weight_decay if isinstance(module, _NORMS) else recipe.weight_decay
        factor = recipe.backbone_factor if prefix.split(".")[0] == "backbone" else 1.0
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                groups.setdefault((factor, decay), []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: every parameter of the model is frozen")
    described: Iterable[dict[str, Any]] = [
        {"params": parameters, "lr": recipe.learning_rate * factor, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=recipe.learning_rate)
    return torch.optim.SGD(described, lr=recipe.learning_rate, momentum=recipe.momentum)
