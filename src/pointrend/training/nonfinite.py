"""When a loss is no number: the batch, the weights and the seed that gave it, in one file to look into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pointrend.structures import InstanceMasks, InstanceTarget, LabelledPoints, SemanticTarget
from pointrend.training.checkpointing import write_atomically
from pointrend.training.processes import LossModule


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; says which, when, on which images, and where the batch was saved."""


def names_of(samples: Sequence[object]) -> list[str]:
    """The files, or else the ids, of these samples."""
    return [str(getattr(s, "path", None) or getattr(s, "image_id", s)) for s in samples]


def describe(
    step: int, wrong: Mapping[str, float] | str, samples: Sequence[object], path: Path | None
) -> str:
    """The error's text. wrong: losses by name, or what the model said."""
    saved = f"; batch, weights and seed are in {path}" if path is not None else ""
    return (
        f"update {step + 1}: loss {wrong} on the images {names_of(samples)}; lower the learning rate, add a "
        f"warm-up or gradient clipping, or look at these images and their labels{saved}"
    )


@dataclass(frozen=True)
class FailedBatch:
    """All that a loss depended on."""

    images: Sequence[Tensor]
    targets: Sequence[object]
    weights: Mapping[str, Tensor]
    seed: int
    """Of torch's generator."""
    seeds: Sequence[int]
    """Of each image's own generator."""

    def run(self, model: nn.Module) -> dict[str, Tensor]:
        """The losses again, with these weights, which stay in the model."""
        model.load_state_dict(dict(self.weights))
        torch.manual_seed(self.seed)
        return LossModule(model.train())(self.images, self.targets, self.seeds)[0]


def save_batch(folder: Path | None, failed: FailedBatch, *, step: int, rank: int) -> Path | None:
    """Write what is needed to see it again: tensors only. None if there is no folder, or no room in it."""
    if folder is None:
        return None
    content: dict[str, object] = {
        "seed": torch.tensor(failed.seed),
        "seeds": torch.tensor(failed.seeds, dtype=torch.int64),
        "images": list(failed.images),
        "targets": [_tensors(target) for target in failed.targets],
        "model": dict(failed.weights),
    }
    path = folder / f"failed-update{step + 1:07d}-process{rank}.pt"
    try:
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError):  # the loss is what the user has to hear of
        return None
    return path


def load_batch(path: Path) -> FailedBatch:
    """The content of a file of `save_batch`; ``load_batch(path).run(model)`` is what failed."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    targets = [_target(tensors) for tensors in content["targets"]]
    return FailedBatch(
        content["images"], targets, content["model"], int(content["seed"]), content["seeds"].tolist()
    )


def _tensors(target: object) -> object:
    if isinstance(target, SemanticTarget):
        return {"labels": target.labels}
    if isinstance(target, InstanceTarget):
        return {
            "boxes": target.boxes,
            "labels": target.labels,
            "crowd": target.crowd,
            "windows": list(target.masks.windows),
            "offsets": target.masks.offsets,
            "image_size": torch.tensor(target.masks.image_size),
            "points": None if target.points is None else [target.points.coords, target.points.labels],
        }
    return target if isinstance(target, Tensor) else {}


def _target(tensors: object) -> object:
    if not isinstance(tensors, dict) or not tensors:
        return tensors
    if "boxes" not in tensors:
        return SemanticTarget(tensors["labels"])
    height, width = tensors["image_size"].tolist()
    masks = InstanceMasks(tensors["windows"], tensors["offsets"], (height, width))
    points = None if tensors["points"] is None else LabelledPoints(*tensors["points"])
    return InstanceTarget(tensors["boxes"], tensors["labels"], masks, tensors["crowd"], points)
