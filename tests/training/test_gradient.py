"""A batch's losses are those of its images, weighed by what each is a mean over; nothing else ties them together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pointrend.core.selection import PointSampling, binary_uncertainty, sample_training_points
from pointrend.data.shapes import ShapeScenes
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import InstanceTarget, SemanticTarget
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train
from pointrend.training.processes import LossModule
from pointrend.training.recipe import Recipe
from tests.training.scenarios import Patchy

SIZE = (64, 64)


def instance(head: str) -> nn.Module:
    return InstanceSegmenter(
        InstanceConfig(
            ("a", "b", "c", "d", "e"),
            BackboneConfig("resnet18"),
            mask_head=head,  # type: ignore[arg-type]
            fpn_channels=16,
            boxes=BoxHeadConfig(width=32, samples=16, positive_iou=0.3),
            masks=MaskConfig(width=16, coarse_width=32, sampling=PointSampling(16)),
        )
    )


def semantic(normalize: str) -> nn.Module:
    return SemanticSegmenter(
        SemanticConfig(
            tuple("abcdef"),
            backbone=BackboneConfig("resnet18"),
            fpn_channels=16,
            decoder_channels=16,
            loss_normalize=normalize,  # type: ignore[arg-type]
            point_rend=SemanticPointRendConfig(width=16, sampling=PointSampling(64)),
        )
    )


MODELS = {
    **{head: (instance, head) for head in ("pointrend", "coarse", "conv28", "implicit")},
    **{normalize: (semantic, normalize) for normalize in ("valid", "all")},
}


def samples(task: str) -> tuple[list[Tensor], list[InstanceTarget] | list[SemanticTarget]]:
    """Many objects, few, and none; or labels everywhere, and not."""
    scenes = ShapeScenes(3, task, size=SIZE, objects=(1, 6), seed=2)  # type: ignore[arg-type]
    found = [Patchy(scenes, filled=2)[number] for number in range(3)]
    return [sample.image for sample in found], [sample.target for sample in found]


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_of_a_batch_is_the_weighed_mean_of_its_images(name: str) -> None:
    build, argument = MODELS[name]
    network = LossModule(build(argument).train())
    images, targets = samples("instance" if build is instance else "semantic")
    seeds = [5, 6, 7]
    with torch.no_grad():
        together, counts = network(images, targets, seeds)
        alone = [network([i], [t], [s]) for i, t, s in zip(images, targets, seeds, strict=True)]
    assert set(counts) == set(together)
    for key, loss in together.items():
        parts = [float(found[key]) for _, found in alone]
        assert sum(parts) == pytest.approx(float(counts[key]))
        assert sum(parts) > 0
        weighed = sum(float(losses[key]) * part for (losses, _), part in zip(alone, parts, strict=True))
        assert weighed / sum(parts) == pytest.approx(float(loss), rel=1e-4), key
    unequal = "mask_coarse" if "mask_coarse" in counts else "mask" if "mask" in counts else list(counts)[-1]
    if name != "all":
        assert len({float(found[unequal]) for _, found in alone}) > 1  # or the weights would not matter


def test_one_generator_for_all_gives_the_losses_it_gave_before() -> None:
    model = instance("pointrend").train()
    images, targets = samples("instance")
    first, again = (model.loss(images, targets, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    other = model.loss(images, targets, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["mask_points"], other["mask_points"])


def test_points_of_a_region_do_not_depend_on_those_beside_it() -> None:
    coarse = torch.randn(4, 1, 7, 7)

    def points(rows: list[int], seeds: list[int]) -> Tensor:
        known = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        return sample_training_points(
            coarse[rows], PointSampling(10), binary_uncertainty, generator=[known[s] for s in seeds]
        )

    together = points([0, 1, 2, 3], [8, 8, 9, 9])
    assert torch.equal(points([0, 1], [8, 8]), together[:2])
    assert torch.equal(points([2, 3], [9, 9]), together[2:])
    assert points([], []).shape == (0, 10, 2)
    with pytest.raises(ValueError, match="one for each of 2 regions, got 1"):
        points([0, 1], [8])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_counting_before_leaves_no_trace_in_batch_norms(precision: str) -> None:
    scenes = ShapeScenes(4, "semantic", size=SIZE)
    found = []
    for mean_over in ("part", "update"):
        torch.manual_seed(1)
        config = semantic("valid").config
        model = SemanticSegmenter(replace(config, backbone=BackboneConfig("resnet18", norm="batch")))
        recipe = Recipe(steps=1, batch_size=4, accumulate=2, mean_over=mean_over, precision=precision)  # type: ignore[arg-type]
        train(model, TrainingLoader(Patchy(scenes, 2), recipe), recipe, device="cpu")
        found.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    assert int(found[1]["backbone.stem.1.num_batches_tracked"]) == 2
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_model_that_knows_no_counts_is_trained_as_it_is() -> None:
    class Plain(nn.Module):
        def loss(self, images: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
            return {"square": torch.stack(images).square().mean()}

    losses, counts = LossModule(Plain())([torch.ones(2)], [], [3])
    assert (losses["square"].item(), counts) == (1.0, {})


def test_implicit_point_heads_and_others_leave_no_generator_unused() -> None:
    """A head that drew from torch's own generator would depend on the order of images."""
    for head in ("pointrend", "implicit"):
        network = LossModule(instance(head).train())
        images, targets = samples("instance")
        torch.manual_seed(1)
        first = network(images, targets, [1, 2, 3])[0]
        torch.manual_seed(2)
        again = network(images, targets, [1, 2, 3])[0]
        assert all(torch.equal(first[key], again[key]) for key in first)
