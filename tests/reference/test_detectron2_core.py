"""The core against Detectron2's own functions, on its stored inputs and outputs (goldens/units.npz)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointrend.core import (
    PointHead,
    PointSampling,
    binary_point_loss,
    binary_uncertainty,
    cell_centers,
    margin_uncertainty,
    most_uncertain_cells,
    multiclass_point_loss,
    point_sample,
    point_sample_boxes,
    points_in_image,
    regular_grid,
    sample_training_points,
)
from pointrend.structures import InstanceMasks
from tests.reference import discovery


class Units:
    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path)

    def __call__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))


if not discovery.units():
    pytest.skip(f"no units.npz in {discovery.ROOT}: set POINTREND_REFERENCE", allow_module_level=True)


@pytest.fixture(scope="module", params=discovery.units(), ids=lambda path: path.parent.name)
def units(request: pytest.FixtureRequest) -> Units:
    return Units(request.param)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, check_dtype=False)


def test_point_sample(units: Units) -> None:
    features, points = units("point_sample/input"), units("point_sample/coords")
    close(point_sample(features, points), units("point_sample/out"))
    close(point_sample(features, points, mode="nearest"), units("point_sample/out_nearest"))
    close(point_sample(features, points, padding="border"), units("point_sample/out_border"))


@pytest.mark.parametrize("side", [7, 14, 28])
def test_regular_grid(units: Units, side: int) -> None:
    close(regular_grid(side, side, regions=2), units(f"regular_grid/{side}"), 1e-6)


def test_points_of_boxes_in_the_image(units: Units) -> None:
    ours = points_in_image(units("coords_wrt_image/coords"), units("coords_wrt_image/boxes"))
    close(ours, units("coords_wrt_image/out"), 1e-4)


def test_fine_grained_features(units: Units) -> None:
    boxes, points = units("fine_grained/boxes"), units("fine_grained/coords")
    image = torch.repeat_interleave(torch.arange(2), units("fine_grained/boxes_per_image").long())
    sampled = point_sample_boxes(
        [units("fine_grained/f2"), units("fine_grained/f3")], [4, 8], boxes, image, points
    )
    close(sampled, units("fine_grained/out"))
    close(points_in_image(points, boxes), units("fine_grained/coords_image"), 1e-4)


@pytest.mark.parametrize("kind", ["", "small_"])
def test_most_uncertain_cells(units: Units, kind: str) -> None:
    uncertainty = units("on_grid/uncertainty")[:, 0]
    if kind:
        uncertainty = uncertainty[:, :4, :5]
    theirs = units(f"on_grid/{kind}indices").long()
    ours = most_uncertain_cells(uncertainty, 50)
    assert torch.equal(ours.sort().values, theirs.sort().values)
    close(cell_centers(theirs, *uncertainty.shape[1:]), units(f"on_grid/{kind}coords"), 1e-6)


def test_uncertainty(units: Units) -> None:
    logits, classes = units("uncertainty/logits"), units("uncertainty/classes")
    own = logits[torch.arange(4), classes][:, None]
    close(binary_uncertainty(own)[:, None], units("uncertainty/instance"))
    close(binary_uncertainty(logits[:, :1])[:, None], units("uncertainty/instance_agnostic"))
    close(margin_uncertainty(logits)[:, None], units("uncertainty/semantic"))


@pytest.mark.parametrize("tag", ["k3_b75", "k1_b0", "k10_b1", "k3_b75_n50"])
def test_the_random_selection_has_the_originals_statistics(units: Units, tag: str) -> None:
    count, oversample, importance = units(f"randomness/{tag}/params").tolist()
    classes = units("randomness/classes").long()
    coarse = units("randomness/coarse_logits")[torch.arange(3), classes][:, None]
    sampling = PointSampling(int(count), oversample, importance)
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(400):
        points = sample_training_points(coarse, sampling, binary_uncertainty, generator=generator)
        draws.append(point_sample(coarse, points)[:, 0].abs().mean(1))
    found = torch.stack(draws)
    expected = units(f"randomness/{tag}/mean_abs_logit").double()
    spread = units(f"randomness/{tag}/mean_abs_logit_std_of_draw").double()
    # Both means are of 400 draws: their difference has a standard deviation of spread * sqrt(2 / 400).
    assert ((found.double().mean(0) - expected).abs() < 4 * spread * (2 / 400) ** 0.5).all()
    assert ((found.double().std(0) / spread).log().abs() < 0.25).all()


@pytest.mark.parametrize("labels", ["soft", "ignore"])
def test_point_loss_and_its_gradient(units: Units, labels: str) -> None:
    logits = units("point_loss/logits").requires_grad_()
    classes = units("point_loss/classes").long()
    targets = units("point_loss/labels" if labels == "soft" else "point_loss/labels_with_ignore").float()
    # Detectron2 divides by all points, ignored ones included; so does our "all".
    loss = binary_point_loss(logits[torch.arange(5), classes], targets, normalize="all")
    loss.backward()
    close(loss, units(f"point_loss/{labels}"), 1e-6)
    assert logits.grad is not None
    close(logits.grad, units(f"point_loss/{labels}_grad"), 1e-6)


def test_soft_labels_from_masks(units: Units) -> None:
    masks = InstanceMasks.from_dense(units("labels/masks").bool())
    points = points_in_image(units("labels/coords"), units("labels/boxes"))
    close(masks.sample(torch.arange(3), points), units("labels/out"))


@pytest.mark.parametrize("every", [True, False])
def test_point_head(units: Units, every: bool) -> None:
    name = f"standard_head/each_{every}"
    head = PointHead(6, 4, width=10, coarse_each_layer=every)
    for ours, theirs in [
        *zip(head.layers, ("fc1", "fc2", "fc3"), strict=True),
        (head.predictor, "predictor"),
    ]:
        ours.load_state_dict({key: units(f"{name}/{theirs}.{key}") for key in ("weight", "bias")})
    close(head(units(f"{name}/fine"), units(f"{name}/coarse")), units(f"{name}/out"))


def test_semantic_losses(units: Units) -> None:
    targets = units("sem_loss/targets").long()
    upsampled = F.interpolate(
        units("sem_loss/coarse_logits"), scale_factor=4, mode="bilinear", align_corners=False
    )
    close(multiclass_point_loss(upsampled, targets), units("sem_loss/loss_sem_seg"), 1e-6)
    labels = point_sample(targets[:, None].float(), units("sem_loss/coords"), mode="nearest")[:, 0].long()
    assert torch.equal(labels, units("sem_loss/point_targets").long())
    close(
        multiclass_point_loss(units("sem_loss/point_logits"), labels),
        units("sem_loss/loss_sem_seg_point"),
        1e-6,
    )
