"""The training loop, top to bottom: learning rate, loss, update, log, evaluate, save.

The model is anything with ``loss(images, targets) -> {name: scalar}``; both of the package's models are.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pointrend.training.recipe import Recipe, build_optimizer

Batch = tuple[list[Tensor], list[Any], list[Any]]
"""Pictures (3, h, w) uint8, their targets, and the samples they came from (for naming a bad one)."""

Report = Callable[[int, Mapping[str, float]], None]
"""Called after each update with its number (from 1) and the named losses, learning rate and seconds."""


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; says which, when, and on which pictures."""


class _LossModule(nn.Module):
    """The model's ``loss`` as a ``forward``, which is what DistributedDataParallel and autocast wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Sequence[Tensor], targets: Sequence[Any]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.model.loss(images, targets)  # type: ignore[operator]
        return losses


def train(
    model: nn.Module,
    loader: Iterable[Batch],
    recipe: Recipe,
    *,
    out: Path | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    save: Callable[[nn.Module, Path], None] | None = None,
    report: Report | None = None,
    stop: Callable[[], bool] | None = None,
    cpu: bool = False,
) -> dict[str, float]:
    """Train ``model`` in place and return the last evaluation (empty without ``evaluate``).

    Args:
        model: has ``loss(images, targets)``; moved to the device that accelerate chooses.
        loader: batches as ``data.loading.build_loader`` makes them; started anew when it ends.
        recipe: what to do.
        out: folder for ``log.jsonl`` (one JSON object an entry) and checkpoints; nothing is written without it.
        evaluate: named numbers of the model, on the main process.
        save: writes one checkpoint file.
        report: for progress bars.
        stop: asked before each update; True ends the training early, with evaluation and checkpoint as at its end.
        cpu: stay on the CPU where a GPU is there.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite; the weights are those before that update.
        ValueError: the loader is empty.
    """
    torch.manual_seed(recipe.seed)
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[recipe.precision]
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
    optimizer = build_optimizer(model, recipe)
    base_rates = [recipe.learning_rate * group.pop("factor") for group in optimizer.param_groups]
    wrapped, optimizer = accelerator.prepare(_LossModule(model), optimizer)
    batches = _endless(accelerator.prepare_data_loader(loader, device_placement=False))
    main = accelerator.is_main_process
    log = _Log(out, recipe) if main else _Log(None, recipe)
    scores: dict[str, float] = {}

    for step in range(recipe.steps):
        if stop is not None and stop():
            break
        started = time.perf_counter()
        factor = recipe.factor(step)
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor

        model.train()
        losses: dict[str, float] = {}
        waited = 0.0
        for part in range(recipe.accumulate):
            before = time.perf_counter()
            images, targets, samples = next(batches)
            waited += time.perf_counter() - before
            last = part == recipe.accumulate - 1
            with accelerator.no_sync(wrapped) if not last else nullcontext():
                parts = wrapped(images, targets)
                _check_finite(parts, step, samples)
                accelerator.backward(sum(parts.values()) / recipe.accumulate)
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + value.detach().item() / recipe.accumulate
        if recipe.clip_gradient is not None:
            accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip_gradient)
        optimizer.step()
        optimizer.zero_grad()

        done = step + 1
        entry = {**losses, "learning_rate": base_rates[0] * factor, "seconds": time.perf_counter() - started}
        if report is not None and main:
            report(done, entry)
        if done % recipe.log_every == 0 or done == recipe.steps:
            log.write({"step": done, **entry, "data_seconds": waited})
        if main and evaluate is not None and recipe.evaluate_every and done % recipe.evaluate_every == 0:
            scores = _evaluate(model, evaluate)
            log.write({"step": done, **scores})
        if main and save is not None and out and recipe.save_every and done % recipe.save_every == 0:
            save(model, out / f"step{done:07d}.safetensors")

    accelerator.wait_for_everyone()
    if main and evaluate is not None:
        scores = _evaluate(model, evaluate)
        log.write({"step": recipe.steps, **scores})
    if main and save is not None and out:
        save(model, out / "model.safetensors")
    return scores


def _evaluate(model: nn.Module, evaluate: Callable[[nn.Module], Mapping[str, float]]) -> dict[str, float]:
    model.eval()
    return dict(evaluate(model))


def _check_finite(losses: Mapping[str, Tensor], step: int, samples: Sequence[Any]) -> None:
    wrong = {
        name: value.detach().item()
        for name, value in losses.items()
        if not math.isfinite(value.detach().item())
    }
    if wrong:
        names = [
            str(getattr(sample, "path", None) or getattr(sample, "image_id", sample)) for sample in samples
        ]
        raise NonFiniteLoss(
            f"update {step + 1}: loss {wrong} on the pictures {names}; lower the learning rate, add a warm-up or "
            "gradient clipping, or look at these pictures and their labels"
        )


def _endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "the loader gave no batch: expected at least batch_size pictures in the data set"
            )


class _Log:
    """``log.jsonl``: the recipe, then one line an entry, each written whole and flushed."""

    def __init__(self, out: Path | None, recipe: Recipe) -> None:
        self.path = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            self.path = out / "log.jsonl"
            self.path.write_text("")
            self.write({"recipe": asdict(recipe), "torch": torch.__version__, "time": time.time()})

    def write(self, entry: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
