"""The gradient of one update, the same whichever way its images are shared out.

An update is cut into parts, `accumulate` for each process. Every loss of a part is a mean over its *count*: of
pixels, points, proposals or boxes. DistributedDataParallel and accumulation average the parts' gradients, which would
give a box more weight the fewer there are beside it. So each part's loss is multiplied by its share, ``count * parts /
(count of all parts)``: then the average is the mean over the whole update, and a part without objects changes nothing.

Between processes that takes one small sum of counts. Parts that follow one another know their counts only after their
forward pass, so with `accumulate` above 1 the counts come from a forward pass without gradient before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pointrend.models.base import Pretrained
from pointrend.training.data_loading import Batch, derive_seed
from pointrend.training.nonfinite import FailedBatch, NonFiniteLoss, describe, save_batch
from pointrend.training.processes import any_process, sum_over_processes
from pointrend.training.recipe import Recipe

SMALLEST_SCALE = 2.0**-10
"""Of losses in float16. Gradients that overflow even then are infinite themselves."""


@dataclass(frozen=True)
class Outcome:
    """What the forward pass of a part gave."""

    losses: Mapping[str, Tensor]
    """With their graph, each a mean over the part."""
    values: Mapping[str, float]
    """The same as numbers."""
    counts: Mapping[str, float]
    """What each is a mean over; empty where the model does not say."""
    wrong: Mapping[str, float] | str = ""
    """Losses that are no numbers, or the model's words on it."""


@dataclass(frozen=True)
class Updates:
    """Computes gradients; the optimiser's step is the loop's."""

    accelerator: Accelerator
    network: nn.Module
    """A `LossModule`, as accelerate prepared it."""
    model: nn.Module
    """The model inside."""
    recipe: Recipe
    out: Path | None
    """Where a failing batch is saved."""

    def gradient(self, batches: Sequence[Batch], step: int) -> tuple[dict[str, float], float]:
        """Compute the gradient of update ``step`` (from 0), clipped, from this process's parts.

        Returns the mean losses, of which the mean over processes is the mean over the update, and the gradient's norm
        before it was clipped.

        Raises:
            NonFiniteLoss: in all processes, if a loss or the gradient is NaN or infinite in any. Of float16 not the
                gradient, for which the scaler leaves the update out, until the scale is below `SMALLEST_SCALE`.
        """
        parts = len(batches) * self.accelerator.num_processes
        weigh = self.recipe.mean_over == "update" and parts > 1 and isinstance(self.model, Pretrained)
        totals = self._count(batches, step) if weigh and len(batches) > 1 else None
        means: dict[str, float] = {}
        for part, batch in enumerate(batches):
            last = part == len(batches) - 1
            with self.accelerator.no_sync(self.network) if not last else nullcontext():
                outcome = self._forward(self.network, batch, part, step)
                shares: Mapping[str, float] = {}
                if weigh:
                    total = sum_over_processes(self.accelerator, outcome.counts) if totals is None else totals
                    shares = {
                        n: count * parts / total[n] for n, count in outcome.counts.items() if total[n] > 0
                    }
                terms = [loss * shares.get(name, 1.0) for name, loss in outcome.losses.items()]
                self.accelerator.backward(sum(terms) / len(batches))
            for name, value in outcome.values.items():
                means[name] = means.get(name, 0.0) + value * shares.get(name, 1.0) / len(batches)
        return means, self._clip(batches, step)

    def _clip(self, batches: Sequence[Batch], step: int) -> float:
        limit = math.inf if self.recipe.clip_gradient is None else self.recipe.clip_gradient
        norm = float(self.accelerator.clip_grad_norm_(self.network.parameters(), limit))
        # With float16 a gradient may overflow now and then: the scaler leaves that update out and scales less.
        scaler = self.accelerator.scaler
        if not math.isfinite(norm) and (scaler is None or scaler.get_scale() < SMALLEST_SCALE):
            self._give_up({"gradient": norm}, dict(enumerate(batches)), step)
        return norm

    @torch.no_grad()
    def _count(self, batches: Sequence[Batch], step: int) -> dict[str, float]:
        """What each loss is a mean over, all parts of all processes together."""
        network = self.accelerator.unwrap_model(self.network)
        # Batch norms would take note of the same images twice.
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

        def dry(*inputs: object) -> Any:
            return torch.func.functional_call(network, buffers, inputs)

        found: dict[str, float] = {}
        for part, batch in enumerate(batches):
            for name, count in self._forward(dry, batch, part, step).counts.items():
                found[name] = found.get(name, 0.0) + count
        return sum_over_processes(self.accelerator, found)

    def _forward(self, network: object, batch: Batch, part: int, step: int) -> Outcome:
        """The losses of a part; the same random numbers each time. All processes give up together."""
        images, targets, _ = batch
        seed, seeds = self._seeds(batch, part, step)
        torch.manual_seed(seed)  # dropout's; points and proposals are drawn image by image
        outcome = _losses(network, images, targets, seeds)
        if any_process(self.accelerator, bool(outcome.wrong)):
            self._give_up(outcome.wrong, {part: batch}, step)
        return outcome

    def _seeds(self, batch: Batch, part: int, step: int) -> tuple[int, list[int]]:
        """Of torch's generator, by the number of the part; and of each image's, by its place in the update."""
        number = part * self.accelerator.num_processes + self.accelerator.process_index
        places = range(number * len(batch[0]), (number + 1) * len(batch[0]))
        seeds = [derive_seed(self.recipe.seed, step, place, 1) for place in places]
        return derive_seed(self.recipe.seed, step, number), seeds

    def _give_up(self, wrong: Mapping[str, float] | str, parts: Mapping[int, Batch], step: int) -> NoReturn:
        """Save these parts of an update, by number, and say what is wrong; nothing where it was another process."""
        images, targets, samples = (
            list(chain.from_iterable(column)) for column in zip(*parts.values(), strict=True)
        )
        drawn = [self._seeds(batch, part, step) for part, batch in parts.items()]
        seeds = [seed for _, of_images in drawn for seed in of_images]
        failed = FailedBatch(images, targets, self.model.state_dict(), drawn[0][0], seeds)
        folder = self.out if wrong else None  # where it was another process, that one saves
        path = save_batch(folder, failed, step=step, rank=self.accelerator.process_index)
        raise NonFiniteLoss(describe(step, wrong or "of another process", samples, path))


def _losses(network: Any, images: list[Tensor], targets: list[Any], seeds: list[int]) -> Outcome:
    try:
        losses, counts = network(images, targets, seeds)
    except FloatingPointError as error:  # the models look, too
        return Outcome({}, {}, {}, str(error))
    numbers = torch.stack(
        [loss.detach().float() for loss in losses.values()]
    ).tolist()  # waits for the device
    values = dict(zip(losses, numbers, strict=True))
    wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
    return Outcome(losses, values, {name: float(count) for name, count in counts.items()}, wrong)
