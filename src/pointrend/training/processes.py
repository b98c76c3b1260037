"""One process or many: where a training runs, and what its processes have to agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from pointrend.distributed import RemoteError, Shard
from pointrend.models.attached import AttachedSegmenter
from pointrend.models.base import Pretrained
from pointrend.models.devices import faster_precision
from pointrend.signals import Sigterm
from pointrend.training.recipe import Recipe


class LossModule(nn.Module):
    """The model's ``loss`` as a ``forward``, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[object], seeds: Sequence[int]
    ) -> tuple[dict[str, Tensor], Mapping[str, object]]:
        """Losses, and what each is a mean over, where the model says so.

        Its random choices are then seeded image by image, so that they do not depend on those beside it.
        """
        if not isinstance(self.model, Pretrained):
            return self.model.loss(images, targets), {}  # type: ignore[operator]
        device = next(self.model.parameters()).device
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        losses = self.model.loss(images, targets, generator=generators)
        return dict(losses), losses.counts


def create_accelerator(recipe: Recipe, device: str | None = None) -> Accelerator:
    """Join the processes that torchrun or accelerate started (or be the only one), in the recipe's precision.

    device: "cpu", "cuda", "cuda:1", ..; a GPU if there is one, when not given.

    Raises:
        ValueError: float16 where there is no GPU; a device that is not there.
    """
    wanted = _device(device)
    there = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    faster = faster_precision(recipe.precision, there)
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[faster]
    # accelerate keeps the first training's precision and device for the life of the process, unless told to forget.
    AcceleratorState._reset_state(reset_partial_state=int(os.environ.get("WORLD_SIZE", "1")) == 1)
    # Shares of an evaluation differ, and the first process saves alone, which may take longer than NCCL's ten minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=3))
    accelerator = Accelerator(cpu=wanted == "cpu", mixed_precision=precision, kwargs_handlers=[patience])
    if precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would quietly train in float32
        raise ValueError(
            "precision: float16 is for GPUs, and this training runs on the CPU; take bfloat16 (--precision bfloat16) "
            "or float32"
        )
    if wanted not in (None, accelerator.device.type):
        raise ValueError(
            f"device: expected one that is there, got {device!r}; here it is {accelerator.device}"
        )
    return accelerator


def _device(name: str | None) -> str | None:
    """The type of the device; a GPU's number is made the process's own.

    Raises:
        ValueError: for a name that is none, or a GPU that is not there.
    """
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected cpu, cuda, cuda:1, .., got {name!r}") from error
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device: {name} was asked for, and there are {torch.cuda.device_count()} GPUs")
        if device.index is not None:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError(
                    f"device: {name} is one GPU, and torchrun gives each process its own; say cuda"
                )
            torch.cuda.set_device(device)
    return device.type


def prepare_model(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model's loss and its optimiser, ready for these processes; the model itself moves to the device."""
    if accelerator.num_processes > 1 and isinstance(model, AttachedSegmenter):
        model.freeze_unused()  # before compiling: it runs the network once, at a size of its own
    if recipe.compile is not None:
        part = getattr(model, "backbone", getattr(model, "network", model))
        part.compile(backend=recipe.compile)
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


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer, so that all take the same way."""
    if accelerator.num_processes == 1:
        return flag
    count = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(count, "sum").item() > 0)


def sum_over_processes(accelerator: Accelerator, numbers: Mapping[str, float]) -> dict[str, float]:
    """Named numbers, each the sum over the processes, which must have the same names in the same order."""
    if accelerator.num_processes == 1 or not numbers:
        return dict(numbers)
    values = torch.tensor(list(numbers.values()), dtype=torch.float64).to(accelerator.device)
    return dict(zip(numbers, accelerator.reduce(values, "sum").tolist(), strict=True))


def mean_over_processes(accelerator: Accelerator, losses: Mapping[str, float]) -> dict[str, float]:
    """Named numbers, each the mean over the processes."""
    total = sum_over_processes(accelerator, losses)
    return {name: value / accelerator.num_processes for name, value in total.items()}


_SIGTERM = "SIGTERM"


def evaluate_together(
    evaluate: Callable[[nn.Module], Mapping[str, float]], model: nn.Module, terminated: Sigterm
) -> dict[str, float] | None:
    """The first process's scores, in all of them; None in all of them if SIGTERM comes to any.

    Each process calls ``evaluate``, which may share its images between them by `Shard.current`. One that is told to
    end does so at once; the others hear of it where they next exchange what they have.

    Raises:
        RemoteError: the evaluation of another process failed; that one raises what was wrong.
    """
    shard = Shard.current()
    try:
        mine = terminated.unless(lambda: dict(evaluate(model)))
        if mine is None:
            shard.give_up(_SIGTERM)
            return None
        return shard.gather(mine)[0]
    except RemoteError as others:
        if others.reason != _SIGTERM:
            raise
        return None
    except Exception as error:
        shard.give_up(f"{type(error).__name__}: {error}")
        raise


def check_same_start(step: int, out: Path | None) -> None:
    """Make sure that all processes go on from the same update.

    Raises:
        ValueError: in all of them, if they do not.
    """
    steps = Shard.current().gather(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"resume: expected the same checkpoint in all processes, but they would go on after updates "
            f"{', '.join(map(str, steps))}; {out} must be a folder that all machines share"
        )


def broadcast_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the first one's buffers, among them the batch norms' running statistics.

    Without SyncBatchNorm each process has those of its own images.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
