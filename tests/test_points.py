"""The point tools give what the originals give, bit for bit with the same random draws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointrend import points


def original_sample(features: Tensor, coords: Tensor) -> Tensor:
    """As Detectron2 writes it: one column of a grid, in -1..1."""
    return F.grid_sample(features, 2.0 * coords.unsqueeze(2) - 1.0, align_corners=False).squeeze(3)


def original_draw(logits: Tensor, count: int, oversample: float, importance: float) -> Tensor:
    """As Detectron2 writes it: indices shifted into one flat list of points."""
    boxes = logits.shape[0]
    sampled = int(count * oversample)
    coords = torch.rand(boxes, sampled, 2)
    uncertainty = -original_sample(logits, coords).abs()
    important = int(importance * count)
    chosen = torch.topk(uncertainty[:, 0, :], k=important, dim=1)[1]
    chosen += (sampled * torch.arange(boxes))[:, None]
    coords = coords.view(-1, 2)[chosen.view(-1), :].view(boxes, important, 2)
    if count > important:
        coords = torch.cat([coords, torch.rand(boxes, count - important, 2)], dim=1)
    return coords


@pytest.mark.parametrize(
    ("count", "oversample", "importance"),
    [(196, 3, 0.75), (1, 1, 0.0), (50, 10, 1.0), (7, 1.5, 0.5), (9, 2, 0)],
)
@pytest.mark.parametrize("regions", [0, 1, 3])
def test_random_points_are_the_originals_and_leave_the_generator_where_it_does(
    count: int, oversample: float, importance: float, regions: int
) -> None:
    logits = torch.randn(regions, 1, 13, 7)
    torch.manual_seed(5)
    expected, after = original_draw(logits, count, oversample, importance), torch.rand(3)
    torch.manual_seed(5)
    ours = points.get_uncertain_point_coords_with_randomness(
        coarse_logits=logits,
        uncertainty_func=points.calculate_uncertainty,
        num_points=count,
        oversample_ratio=oversample,
        importance_sample_ratio=importance,
    )
    assert torch.equal(ours, expected)
    assert torch.equal(torch.rand(3), after)


def test_samples_are_the_originals() -> None:
    features, coords = torch.randn(2, 3, 9, 5), torch.rand(2, 40, 2) * 1.2 - 0.1
    assert torch.equal(
        points.point_sample(features, coords, align_corners=False), original_sample(features, coords)
    )
    square = points.point_sample(features, coords.view(2, 8, 5, 2))
    assert torch.equal(square.flatten(2), original_sample(features, coords))


@pytest.mark.parametrize("size", [(4, 5), (1, 1), (30, 7)])
def test_uncertain_cells_are_the_originals(size: tuple[int, int]) -> None:
    uncertainty = torch.randn(3, 1, *size)
    index, coords = points.get_uncertain_point_coords_on_grid(uncertainty, num_points=11)
    expected = torch.topk(uncertainty.flatten(1), k=min(11, size[0] * size[1]), dim=1)[1]
    assert torch.equal(index, expected)
    step_x, step_y = 1.0 / size[1], 1.0 / size[0]
    x = step_x / 2.0 + (expected % size[1]).float() * step_x
    y = step_y / 2.0 + torch.div(expected, size[1], rounding_mode="floor").float() * step_y
    assert torch.equal(coords, torch.stack((x, y), -1))


@pytest.mark.parametrize("scale", [0.25, 1 / 14])
@pytest.mark.parametrize("counts", [(1, 1), (0, 3), (0, 0)])
def test_features_in_boxes_of_several_images_are_the_originals(counts: tuple[int, ...], scale: float) -> None:
    maps = [torch.randn(2, 3, 16, 12)]
    boxes = [torch.rand(count, 4) * 20 + torch.tensor([0.0, 0.0, 20.0, 20.0]) for count in counts]
    coords = torch.rand(sum(counts), 6, 2)
    found, pixels = points.point_sample_fine_grained_features(maps, [scale], boxes, coords)
    assert torch.equal(pixels, points.get_point_coords_wrt_image(torch.cat(boxes), coords))
    extent = torch.tensor([12, 16]) / scale
    expected = [
        original_sample(maps[0][image : image + 1], one[None] / extent)
        for image, own in enumerate(pixels.split(counts))
        for one in own
    ]
    assert torch.equal(found, torch.cat([torch.zeros(0, 3, 6), *expected]))


def test_points_have_no_gradient_to_the_boxes() -> None:
    boxes = torch.tensor([[3.0, 5, 40, 30]], requires_grad=True)
    assert not points.get_point_coords_wrt_image(boxes, torch.rand(1, 4, 2)).requires_grad


def test_a_grid_has_its_cells_centres() -> None:
    grid = points.generate_regular_grid_point_coords(R=2, side_size=2, device="cpu")
    assert grid.shape == (2, 4, 2)
    assert grid[1].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_costs_of_pairs_are_the_losses_of_pairs() -> None:
    queries, targets = torch.randn(4, 30), (torch.rand(3, 30) > 0.5).float()
    for cost, loss in (
        (points.batch_sigmoid_ce_loss, points.sigmoid_ce_loss),
        (points.batch_dice_loss, points.dice_loss),
    ):
        found = cost(queries, targets)
        expected = [[loss(q[None], t[None], 1) for t in targets] for q in queries]
        torch.testing.assert_close(found, torch.tensor(expected))
        assert cost(queries[:0], targets).shape == (0, 3)
        assert cost(queries, targets[:0]).shape == (4, 0)


def test_what_would_be_silently_wrong_is_refused() -> None:
    features, coords = torch.randn(1, 3, 9, 5), torch.rand(1, 4, 2)
    with pytest.raises(ValueError, match="half precision"):
        points.point_sample(features.half(), coords.half())
    with pytest.raises(ValueError, match="align_corners"):
        points.point_sample(features, coords, align_corners=True)
    for ratios in ((0.5, 0.5), (3, 1.5), (3, -0.1)):
        with pytest.raises(ValueError, match="ratio"):
            points.get_uncertain_point_coords_with_randomness(
                features[:, :1], points.calculate_uncertainty, 4, *ratios
            )
