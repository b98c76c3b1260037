"""`pointrend train NAME`: a published training, as it was, on the data at hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pointrend.cli.loading import downloading
from pointrend.cli.running import Pictures, main_process, restarted, run_training
from pointrend.models.instance import InstanceConfig
from pointrend.models.semantic import SemanticConfig
from pointrend.training.finetune import build
from pointrend.training.recipe import Recipe
from pointrend.training.recipes import Published, find_recipe
from pointrend.zoo.pretrained import PRETRAINED, fill_backbone

if TYPE_CHECKING:
    from pointrend.cli.train import Train


def run_published(wishes: Train) -> int:
    """Train by the recipe of that name, with what was asked for differently."""
    published = with_wished_points(find_recipe(wishes.recipe), wishes)
    if wishes.steps is not None:
        published = published.shortened(wishes.steps)
    pictures = Pictures(wishes.data, published.task, wishes.categories)
    data = pictures.training(published.transforms)
    torch.manual_seed(wishes.seed)
    model = build(published.config(data.class_names, data.palette))
    _pretrain(model, published, wishes)
    recipe = recipe_for(published, wishes)
    known = {"data": wishes.data, "recipe": published.name, "seed": wishes.seed, "steps": recipe.steps}
    return run_training(
        model,
        data,
        pictures,
        recipe,
        wishes.engine,
        out=wishes.out,
        evaluate=wishes.evaluate,
        limit=None,
        extra=known,
    )


def recipe_for(published: Published, wishes: Train) -> Recipe:
    """The published numbers, but for those that were given."""
    recipe = replace(
        published.recipe, seed=wishes.seed, evaluate_every=wishes.evaluate_every, metric=wishes.metric
    )
    if wishes.checkpoint_every is not None:
        recipe = replace(recipe, state_every=wishes.checkpoint_every)
    if wishes.lr is not None:
        recipe = replace(recipe, learning_rate=wishes.lr)
    elif wishes.batch is not None:
        # The published rate belongs to the published batch (Goyal et al., 2017).
        recipe = replace(recipe, learning_rate=recipe.learning_rate * wishes.batch / recipe.batch_size)
    if wishes.batch is not None:
        recipe = replace(recipe, batch_size=wishes.batch)
    return recipe


def with_wished_points(published: Published, wishes: Train) -> Published:
    """The published points, but for those that were given."""
    network = published.network
    sampling = network.masks.sampling if isinstance(network, InstanceConfig) else None
    if isinstance(network, SemanticConfig) and network.point_rend is not None:
        sampling = network.point_rend.sampling
    given = {
        "count": wishes.train_points,
        "oversample_ratio": wishes.oversample,
        "importance_ratio": wishes.importance,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if sampling is not None and chosen:
        sampling = replace(sampling, **chosen)
    return published.with_points(sampling=sampling, count=wishes.points, steps=wishes.subdivisions)


def _pretrain(model: Any, published: Published, wishes: Train) -> None:
    """Fill the backbone: from the file that was given, or with the weights that the recipe names."""
    wanted = str(wishes.weights) if wishes.weights is not None else published.pretrained
    if wanted in PRETRAINED:
        model.origin = PRETRAINED[wanted].origin
    if (wishes.engine.resume or restarted()) and any(wishes.out.glob("state-*.pt")):
        return  # the checkpoint has them
    if wanted in ("", "none"):
        if main_process():
            print("the backbone starts from random weights", file=sys.stderr)
        return
    with downloading(wanted) as progress:
        fill_backbone(model.backbone, wanted, progress=progress)
