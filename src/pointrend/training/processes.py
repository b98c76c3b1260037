"""One process or many: where a training runs, and what its processes have to agree on.

DistributedDataParallel averages the *gradients* of the processes. Every loss is a mean over what its own process sees
(pixels, boxes, points), so with N processes the gradient is the mean of N such means, as in Detectron2 and
MMSegmentation; accumulated parts are averaged in the same way. A process that sees fewer boxes than another thus gives
each of them more weight, and one without any contributes a zero.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from pointrend.training.recipe import Recipe

TERMINATED = 143
"""Exit code after SIGTERM, 128 + 15: what schedulers expect of a job that ended when it was told to."""


class Terminated(SystemExit):
    """SIGTERM came, and the checkpoint to resume from is written; ends the process with code 143."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


class LossModule(nn.Module):
    """The model's ``loss`` as a ``forward``, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Sequence[Tensor], targets: Sequence[Any]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.model.loss(images, targets)  # type: ignore[operator]
        return losses


def start(recipe: Recipe, *, cpu: bool) -> Accelerator:
    """Join the processes that torchrun or accelerate started (or be the only one), in the recipe's precision."""
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[recipe.precision]
    # accelerate keeps the first training's precision and device for the life of the process, unless told to forget.
    AcceleratorState._reset_state(reset_partial_state=int(os.environ.get("WORLD_SIZE", "1")) == 1)
    # The others wait while the first one evaluates and saves, which may take longer than NCCL's ten minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=3))
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[patience])


def place(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> tuple[nn.Module, Any]:
    """The model's loss and its optimiser, ready for these processes; the model itself moves to the device."""
    if recipe.compile is not None:
        getattr(model, "backbone", model).compile(backend=recipe.compile)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        synchronise_norms(model)  # torch has no such layer for the CPU
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    wrapped, prepared = accelerator.prepare(LossModule(model), optimizer)
    return wrapped, prepared


def synchronise_norms(model: nn.Module) -> None:
    """Let trained batch norms take their statistics over all processes; names in the state dict stay."""
    for name, child in list(model.named_children()):
        setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def anyone(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer, so that all take the same way."""
    if accelerator.num_processes == 1:
        return flag
    count = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(count, "sum").item() > 0)


def mean_over_processes(accelerator: Accelerator, losses: Mapping[str, float]) -> dict[str, float]:
    """Named numbers, each the mean over the processes."""
    if accelerator.num_processes == 1 or not losses:
        return dict(losses)
    values = torch.tensor(list(losses.values()), dtype=torch.float64, device="cpu").to(accelerator.device)
    return dict(zip(losses, accelerator.reduce(values, "mean").tolist(), strict=True))


@contextmanager
def sigterm() -> Iterator[Callable[[], bool]]:
    """SIGTERM only sets a flag, which the function handed out returns; as before afterwards.

    In another thread than the main one signals are somebody else's: the function says False.
    """
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, note)
    owner = os.getpid()
    try:
        yield lambda: came
    finally:
        if os.getpid() == owner:
            signal.signal(signal.SIGTERM, before)
