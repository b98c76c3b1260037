"""The training loop, top to bottom: learning rate, loss, update, log, evaluate, save.

The model is anything with ``loss(images, targets) -> {name: scalar}``; both of the package's models are. What an
update does follows from the recipe, the update's number and the weights before it, so a training that was stopped
and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pointrend.training.average import MovingAverage
from pointrend.training.failure import NonFiniteLoss, describe, save_batch
from pointrend.training.loading import Batch, TrainingLoader
from pointrend.training.log import Log
from pointrend.training.processes import Terminated, anyone, mean_over_processes, place, sigterm, start
from pointrend.training.recipe import Recipe, build_optimizer
from pointrend.training.sampler import derive_seed
from pointrend.training.state import Checkpoints, Training

__all__ = ["Batch", "NonFiniteLoss", "Terminated", "train"]

Report = Callable[[int, Mapping[str, float]], None]
"""Called after each update with its number (from 1) and the named losses, learning rate and seconds."""


def train(
    model: nn.Module,
    loader: TrainingLoader | Iterable[Batch],
    recipe: Recipe,
    *,
    out: Path | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    save: Callable[[nn.Module, Path], None] | None = None,
    report: Report | None = None,
    stop: Callable[[], bool] | None = None,
    cpu: bool = False,
    resume: bool = False,
) -> dict[str, float]:
    """Train ``model`` in place and return the last evaluation (empty without ``evaluate``).

    Args:
        model: has ``loss(images, targets)``; moved to the device that accelerate chooses.
        loader: a `TrainingLoader`; or batches as ``data.loading.build_loader`` makes them, started anew when they end,
            of which resuming leaves out those already seen.
        recipe: what to do.
        out: folder for ``log.jsonl`` (one JSON object an entry) and checkpoints; nothing is written without it.
        evaluate: named numbers of the model, on the main process.
        save: writes one model file.
        report: for progress bars.
        stop: asked before each update; True ends the training early, with its model file and a checkpoint to resume
            from, but without another evaluation.
        cpu: stay on the CPU where a GPU is there.
        resume: go on from the newest checkpoint in ``out``; from the start where there is none.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite; the weights are those before that update, the batch is in ``out``.
        CheckpointError: a checkpoint could not be written; those before it are untouched.
        Terminated: SIGTERM came; ``out`` has a checkpoint to resume from. Ends the process with code 143.
        ValueError: the loader is empty; or there is a checkpoint of another training.
    """
    torch.manual_seed(recipe.seed)
    accelerator = start(recipe, cpu=cpu)
    rank, processes, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    optimizer = build_optimizer(model, recipe)
    base_rates = [recipe.learning_rate * group.pop("factor") for group in optimizer.param_groups]
    network, optimizer = place(accelerator, model, optimizer, recipe)
    training = Training(model, optimizer, MovingAverage(model, recipe.average), recipe, accelerator.scaler)
    checkpoints = Checkpoints(out, recipe.keep)
    found = checkpoints.newest() if resume else None
    if found is not None:
        training.load(found[0], str(found[1]))
    batches = _batches(loader, accelerator, recipe, training.step)
    log = Log(out if main else None, recipe, resumed=training.step)
    scores: dict[str, float] = {}
    asked = False

    with sigterm() as terminated:
        for step in range(training.step, recipe.steps):
            asked = stop is not None and stop()
            if anyone(accelerator, asked or terminated() or training.stalled):
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
                seed = derive_seed(recipe.seed, step, part * processes + rank)
                torch.manual_seed(seed)
                with accelerator.no_sync(network) if not last else nullcontext():
                    parts, values, wrong = _losses(network, images, targets)
                    if anyone(accelerator, bool(wrong)):
                        folder = out if wrong else None
                        path = save_batch(folder, model, images, targets, step=step, rank=rank, seed=seed)
                        raise NonFiniteLoss(describe(step, wrong or "of another process", samples, path))
                    accelerator.backward(sum(parts.values()) / recipe.accumulate)
                for name, value in values.items():
                    losses[name] = losses.get(name, 0.0) + value / recipe.accumulate
            if recipe.clip_gradient is not None:
                accelerator.clip_grad_norm_(network.parameters(), recipe.clip_gradient)
            optimizer.step()
            optimizer.zero_grad()
            training.average.update()

            training.step = done = step + 1
            entry = {
                **losses,
                "learning_rate": base_rates[0] * factor,
                "seconds": time.perf_counter() - started,
            }
            if done % recipe.log_every == 0 or done == recipe.steps:
                entry |= mean_over_processes(accelerator, losses)
                log.write({"step": done, **entry, "data_seconds": waited, **_memory(accelerator)})
            if report is not None and main:
                report(done, entry)
            if main and evaluate is not None and _due(done, recipe.evaluate_every):
                scores = _evaluate(training, evaluate)
                log.write({"step": done, **scores})
                if training.judge(scores) and save is not None and out:
                    _save(training, save, out / "best.safetensors")
            if main and save is not None and out and _due(done, recipe.save_every):
                _save(training, save, out / f"step{done:07d}.safetensors")
            if main and _due(done, recipe.state_every):
                checkpoints.save(training)

        ended = anyone(accelerator, terminated())
        if main and (ended or asked) and not _due(training.step, recipe.state_every):
            checkpoints.save(training)
        accelerator.wait_for_everyone()
        if ended:
            raise Terminated

    training.average.keep()
    if main and evaluate is not None and not asked:
        scores = _evaluate(training, evaluate)
        log.write({"step": training.step, **scores})
        if training.judge(scores) and save is not None and out:
            _save(training, save, out / "best.safetensors")
    if main and save is not None and out:
        save(model, out / "model.safetensors")
    log.close()
    return scores


def _batches(
    loader: TrainingLoader | Iterable[Batch], accelerator: Accelerator, recipe: Recipe, done: int
) -> Iterator[Batch]:
    """The batches of this process from update ``done`` on, endless."""
    if isinstance(loader, TrainingLoader):
        return loader.batches(done, rank=accelerator.process_index, processes=accelerator.num_processes)
    random = torch.get_rng_state()
    batches = _endless(accelerator.prepare_data_loader(loader, device_placement=False))
    for _ in range(done * recipe.accumulate):
        next(batches)
    if done:
        torch.set_rng_state(random)
    return batches


def _endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    for epoch in itertools.count():
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"the loader gave no batch in epoch {epoch}: expected at least batch_size pictures in the data set"
            )


def _losses(
    network: nn.Module, images: list[Tensor], targets: list[Any]
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, float] | str]:
    """Losses with their gradients, their values, and those that are no numbers (or the model's words on it)."""
    try:
        parts = network(images, targets)
    except FloatingPointError as error:  # the models look, too
        return {}, {}, str(error)
    numbers = torch.stack([value.detach().float() for value in parts.values()]).tolist()
    values = dict(zip(parts, numbers, strict=True))
    return parts, values, {name: value for name, value in values.items() if not math.isfinite(value)}


def _evaluate(training: Training, evaluate: Callable[[nn.Module], Mapping[str, float]]) -> dict[str, float]:
    with training.average.shown() as model:
        return dict(evaluate(model.eval()))


def _save(training: Training, save: Callable[[nn.Module, Path], None], path: Path) -> None:
    with training.average.shown() as model:
        save(model, path)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _memory(accelerator: Accelerator) -> dict[str, float]:
    """Most memory of the GPU so far, in GiB; nothing on the CPU."""
    if accelerator.device.type != "cuda":
        return {}
    return {"memory_gib": torch.cuda.max_memory_allocated(accelerator.device) / 2**30}
