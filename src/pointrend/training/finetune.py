"""Fine-tune a trained model for other classes: known classes keep their weights, the rest of a head is reinitialised.

Shapes: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pointrend.checkpoints.native import Config, Model, build
from pointrend.data.transforms import instance_training_transforms, training_transforms
from pointrend.models.attached import AttachedConfig
from pointrend.models.published import with_classes
from pointrend.models.semantic_model import LabelMapConfig
from pointrend.training.config import TrainingConfig
from pointrend.training.recipe import Recipe


@dataclass(frozen=True)
class Transfer:
    """What became of the tensors of a model that was given other classes."""

    known: tuple[str, ...]
    """Classes that the model knew by the same name: their weights were kept."""
    new: tuple[str, ...]
    """Classes that start from random weights."""
    dropped: tuple[str, ...]
    """Classes that the model knew and no longer has."""
    kept: int
    """Tensors that were kept as they are."""
    resized: tuple[str, ...]
    """Tensors with one part for each class, as "name: old shape -> new shape"."""
    reinitialised: tuple[str, ...]
    """Tensors that could not be kept at all, in the same form."""

    def __str__(self) -> str:
        lines = [
            f"classes kept by name: {_listed(self.known)}",
            f"new classes, random at first: {_listed(self.new)}",
            f"classes dropped: {_listed(self.dropped)}",
            f"{self.kept} tensors kept as they are, {len(self.resized)} fitted to the classes, "
            f"{len(self.reinitialised)} reinitialised",
        ]
        lines += [f"  fitted: {line}" for line in self.resized]
        lines += [f"  reinitialised: {line}" for line in self.reinitialised]
        return "\n".join(lines)


def change_classes(
    model: Model, class_names: Sequence[str], palette: Sequence[tuple[int, int, int]] = ()
) -> tuple[Model, Transfer]:
    """A model of the same architecture for these classes, in training mode, and what was kept of the old one.

    Classes are recognised by name. The rows of heads that belong to a known class, and the background's, are copied to
    their new place; the rest of a head is as freshly initialised.

    The new model's `origin` says what it started from, and repeats that model's licence.

    Raises:
        ValueError: if there are no classes, or one twice.
    """
    if not class_names or len(set(class_names)) != len(class_names):
        raise ValueError(f"classes: expected some, each once, got {list(class_names)}")
    old_names = model.config.class_names
    config: Config = with_classes(model.config, class_names, palette)
    if isinstance(config, AttachedConfig) and config.freeze and config.class_names != old_names:
        config = replace(config, freeze=False)  # an attached network has to learn the new classes itself
    changed = build(config).to(model.device)
    source, target = model.state_dict(), changed.state_dict()
    axes = class_axes(model.config)
    places = [
        (new, old_names.index(name)) for new, name in enumerate(class_names) if name in old_names
    ]  # (new class, old class)
    resized, reinitialised, kept = [], [], 0
    with torch.no_grad():
        for name, tensor in target.items():
            shapes = f"{name}: {tuple(source[name].shape)} -> {tuple(tensor.shape)}"
            if name not in axes:
                tensor.copy_(source[name])
                kept += 1
            elif _copy_classes(source[name], tensor, axes[name], len(old_names), len(class_names), places):
                resized.append(shapes)
            else:
                reinitialised.append(shapes)
    known = tuple(class_names[new] for new, _ in places)
    changed.origin = inherited_origin(model)
    return changed.train(), Transfer(
        known,
        tuple(name for name in class_names if name not in known),
        tuple(name for name in old_names if name not in known),
        kept,
        tuple(resized),
        tuple(reinitialised),
    )


def inherited_origin(model: Model) -> dict[str, object]:
    """The `origin` of a model that is trained further from this one: all that is known of it, its licence first.

    Weights under a licence, or made from data whose terms bind, stay so when they are trained further.
    """
    if not model.origin:
        return {}
    licence = {"licence": model.origin["licence"]} if "licence" in model.origin else {}
    return {**licence, "started_from": dict(model.origin)}


def class_axes(config: Config) -> dict[str, dict[int, int]]:
    """Tensors whose size depends on K: name -> {dimension: its growth with each class}.

    Args:
        config: of any model of ours.

    Found out by building the architecture twice, without memory, with one class more.
    """
    names = config.class_names
    with torch.device("meta"):
        one = build(replace(config, class_names=names)).state_dict()
        more = build(replace(config, class_names=(*names, "one more"))).state_dict()
    axes = {}
    for name, tensor in one.items():
        grown = {
            dim: more[name].shape[dim] - size
            for dim, size in enumerate(tensor.shape)
            if more[name].shape[dim] != size
        }
        if grown:
            axes[name] = grown
    return axes


def _copy_classes(
    source: Tensor,
    target: Tensor,
    axes: dict[int, int],
    old: int,
    new: int,
    places: Sequence[tuple[int, int]],
) -> bool:
    """Copy what belongs to no class and to known classes; whether the layout is one of those known here.

    Outputs (dimension 0) begin with the classes, then at most one more, the background; inputs (dimension 1) end with
    the coarse logits of the classes.
    """
    into, out_of = [], []  # indices along each dimension
    for dim in range(source.ndim):
        group = axes.get(dim, 0)
        rest = source.shape[dim] - group * old
        if target.shape[dim] - group * new != rest or rest < 0 or (group and dim == 0 and rest > group):
            return False
        first = rest if dim else 0  # where the classes begin
        begin = 0 if dim else group * new, 0 if dim else group * old  # where the rest begins
        to, origin = list(range(begin[0], begin[0] + rest)), list(range(begin[1], begin[1] + rest))
        for there, here in places:
            to += range(first + group * there, first + group * (there + 1))
            origin += range(first + group * here, first + group * (here + 1))
        into.append(torch.tensor(to, dtype=torch.int64, device=target.device))
        out_of.append(torch.tensor(origin, dtype=torch.int64, device=source.device))
    target[torch.meshgrid(into, indexing="ij")] = source[torch.meshgrid(out_of, indexing="ij")]
    return True


def finetune_config(model: Model) -> TrainingConfig:
    """How a trained model is trained further: crops of 256 x 320, or short edges round the model's own size.

    Its recipe depends on the images: `finetune_recipe`.
    """
    if isinstance(model.config, LabelMapConfig):
        transforms = training_transforms((256, 320))
    else:
        size = model.config.preprocessing.short_edge or 800
        edges = tuple(round(size * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2))
        transforms = instance_training_transforms(edges, 2 * size)
    return TrainingConfig("finetune", "any", model.config, tuple(transforms.steps), Recipe())


def finetune_recipe(images: int, task: str, steps: int | None = None) -> Recipe:
    """Settings that suit most fine-tunings of a trained model on so many images of one's own.

    About 60 epochs, at least 300 and at most 20 000 updates of 8 images (4 for instances): small datasets overfit after
    that, large ones need fewer epochs. The norm layers' weight decay is 0, the backbone learns at a tenth of the heads'
    rate. The model is scored twenty times, by mIoU or mask AP, and the training ends early after five evaluations
    without a better score.

    Args:
        images: to train on.
        task: "semantic" or "instance".
        steps: updates, instead of the number above.

    Raises:
        ValueError: without images.
    """
    if images < 1:
        raise ValueError(f"images: expected at least one to train on, got {images}")
    batch = 8 if task == "semantic" else 4
    if steps is None:
        steps = min(20_000, max(300, 60 * images // batch))
    twentieth = max(1, steps // 20)
    return Recipe(
        steps=steps,
        batch_size=batch,
        optimizer="adamw",
        learning_rate=4e-4 if task == "semantic" else 2e-4,
        weight_decay=0.01,
        backbone_factor=0.1,
        warmup_steps=twentieth,
        clip_gradient=10.0,
        evaluate_every=twentieth,
        metric="mIoU" if task == "semantic" else "mask AP",
        patience=5,
        state_every=max(50, twentieth),
        group_by_aspect=task == "instance",
    )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:20]) + (f", .. ({len(names)} in all)" if len(names) > 20 else "")
