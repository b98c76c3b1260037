"""The training loop, top to bottom: learning rate, loss, update, log, evaluate, save.

The model is anything with ``loss(images, targets) -> {name: scalar}``; both of the package's models are. What an
update does follows from the recipe, the update's number and the weights before it, so a training that was stopped
and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import nn

from pointrend.models.devices import peak_memory
from pointrend.signals import Terminated, sigterm
from pointrend.training.checkpointing import Checkpoints, Training
from pointrend.training.data_loading import Batch, TargetWatch, TrainingLoader
from pointrend.training.gradient import Updates
from pointrend.training.loggers import Image, Log, Pace, open_trackers
from pointrend.training.nonfinite import NonFiniteLoss
from pointrend.training.processes import (
    any_process,
    broadcast_buffers,
    check_same_start,
    create_accelerator,
    evaluate_together,
    mean_over_processes,
    prepare_model,
)
from pointrend.training.recipe import Recipe, build_optimizer

__all__ = ["Batch", "NonFiniteLoss", "Terminated", "train"]

Report = Callable[[int, Mapping[str, float]], None]
"""Called after each update with its number (from 1), the named losses and `training.loggers.MEASURES`."""


def train(
    model: nn.Module,
    loader: TrainingLoader | Iterable[Batch],
    recipe: Recipe,
    *,
    out: Path | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    save: Callable[[nn.Module, Path], None] | None = None,
    report: Report | None = None,
    draw: Callable[[nn.Module], Mapping[str, Image]] | None = None,
    trackers: Sequence[GeneralTracker] | None = None,
    wandb: str | None = None,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Train ``model`` in place and return the last evaluation (empty without ``evaluate``).

    Args:
        model: has ``loss(images, targets)``; moved to the device that accelerate chooses.
        loader: a `TrainingLoader`; or batches as ``data.image_io.build_loader`` makes them, started again when they
            end, of which resuming leaves out those already seen.
        recipe: what to do.
        out: folder for ``log.jsonl`` (one JSON object an entry) and checkpoints; nothing is written without it.
        evaluate: named numbers of the model. Every process calls it, so that they can share the images, as
            the package's evaluations do by itself; the first one's numbers count.
        save: writes one model file.
        report: for progress bars.
        draw: images of what the model does, by name, on the main process every ``recipe.draw_every`` updates.
        trackers: where numbers and images go besides ``out``; TensorBoard where it is installed, if not given.
        wandb: a project of Weights & Biases that they go to as well.
        stop: asked before each update; True ends the training early, with its model file and a checkpoint to resume
            from, but without another evaluation.
        device: "cpu", "cuda", "cuda:1", ..; a GPU if there is one, when not given.
        resume: go on from the newest checkpoint in ``out``; from the start where there is none.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite; the weights are those before that update, the batch is in ``out``.
        CheckpointError: a checkpoint could not be written; those before it are untouched.
        Terminated: SIGTERM came; ``out`` has a checkpoint to resume from. Ends the process with code 143.
        ValueError: the loader is empty; the recipe has a metric, but there is no ``evaluate``; float16 without a GPU;
            there is a checkpoint of another training, or any without ``resume``; or not all processes find the same.
    """
    if recipe.metric is not None and evaluate is None:
        raise ValueError(f"metric: {recipe.metric!r} is a score, and this training is not evaluated")
    torch.manual_seed(recipe.seed)
    accelerator = create_accelerator(recipe, device)
    main = accelerator.is_main_process
    optimizer = build_optimizer(model, recipe)
    base_rates = [recipe.learning_rate * group.pop("factor") for group in optimizer.param_groups]
    network, optimizer = prepare_model(accelerator, model, optimizer, recipe)
    training = Training(model, optimizer, recipe, accelerator.scaler)
    checkpoints = Checkpoints(out, recipe.keep)
    if not resume:
        checkpoints.refuse_others()
    found = checkpoints.newest() if resume else None
    if found is not None:
        training.load(found[0], str(found[1]))
    check_same_start(training.step, out)
    updates = Updates(accelerator, network, model, recipe, out)
    if trackers is None:
        trackers = open_trackers(out, recipe, wandb=wandb) if main else ()
    log = Log(out if main else None, recipe, resumed=training.step, trackers=trackers)
    pace = Pace(training.step, recipe.steps)
    watch, first = TargetWatch(), training.step
    scores: dict[str, float] = {}
    scored = -1
    asked = False

    def score() -> dict[str, float]:
        assert evaluate is not None
        broadcast_buffers(accelerator, training.scored)
        found = evaluate_together(evaluate, training.scored.eval(), terminated)
        if found is None:
            return scores
        log.write({"step": training.step, **found})
        if training.update_best(found) and main and save is not None and out:
            save(training.scored, out / "best.safetensors")
        return found

    with closing(_batches(loader, accelerator, recipe, training.step)) as batches, sigterm() as terminated:
        for step in range(training.step, recipe.steps):
            asked = stop is not None and stop()
            if any_process(accelerator, asked or terminated() or training.stalled):
                break
            started = time.perf_counter()
            factor = recipe.factor(step)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor

            model.train()
            parts = [next(batches) for _ in range(recipe.accumulate)]
            waited = time.perf_counter() - started
            watch.check([target for _, targets, _ in parts for target in targets], step)
            losses, norm = updates.gradient(parts, step)
            optimizer.step()
            optimizer.zero_grad()
            training.update_average()

            training.step = done = step + 1
            entry = {
                **losses,
                "learning_rate": base_rates[0] * factor,
                "gradient_norm": norm,
                "seconds": time.perf_counter() - started,
                "data_seconds": waited,
                "memory_gib": peak_memory(accelerator.device) / 2**30,
                "remaining_seconds": pace.remaining(done),
            }
            if done % recipe.log_every == 0 or done == recipe.steps:
                entry |= mean_over_processes(accelerator, losses)
                log.write({"step": done, **entry})
            if report is not None and main:
                report(done, entry)
            if evaluate is not None and _due(done, recipe.evaluate_every):
                scores, scored = score(), done
            if main and draw is not None and _due(done, recipe.draw_every):
                log.draw(done, draw(training.scored.eval()))
            if main and save is not None and out and _due(done, recipe.save_every):
                save(training.scored, out / f"step{done:07d}.safetensors")
            if main and _due(done, recipe.state_every):
                checkpoints.save(training)

        ended, asked = any_process(accelerator, terminated()), any_process(accelerator, asked)
        if not ended and not asked and evaluate is not None and scored != training.step:
            scores = score()
            ended = any_process(accelerator, terminated())
        if main and (ended or asked) and not _due(training.step, recipe.state_every):
            checkpoints.save(training)
        accelerator.wait_for_everyone()
        watch.finish(training.step - first)
        if ended:
            raise Terminated
    training.keep_average()
    if main and save is not None and out:
        save(model, out / "model.safetensors")
    log.close()
    return scores


def _batches(
    loader: TrainingLoader | Iterable[Batch], accelerator: Accelerator, recipe: Recipe, done: int
) -> Generator[Batch, None, None]:
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


def _endless(loader: Iterable[Batch]) -> Generator[Batch, None, None]:
    for epoch in itertools.count():
        empty = True
        for batch in loader:
            if batch is None:  # accelerate 1.0, of an empty loader
                break
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"the loader gave no batch in epoch {epoch}: expected at least batch_size images in the data set"
            )


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0
