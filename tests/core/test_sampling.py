from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.gather import point_sample_boxes
from pointrend.core.sampling import point_sample, regular_grid, sample_maps


def linear_field(height: int, width: int) -> torch.Tensor:
    """f(x, y) = 3x - 2y + 1 at the cell centres of a grid: (1, 1, H, W) float64."""
    points = regular_grid(height, width)[0].double()
    return (3 * points[:, 0] - 2 * points[:, 1] + 1).reshape(1, 1, height, width)


def test_sampling_at_cell_centres_returns_the_cells() -> None:
    features = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    sampled = point_sample(features, regular_grid(5, 7, regions=2).double())
    torch.testing.assert_close(sampled, features.flatten(2), atol=1e-5, rtol=0)  # centres are float32


def test_a_linear_field_is_reproduced_between_the_outermost_centres() -> None:
    points = torch.rand(1, 200, 2, dtype=torch.float64) * 0.8 + 0.1
    sampled = point_sample(linear_field(8, 6), points)[0, 0]
    torch.testing.assert_close(sampled, 3 * points[0, :, 0] - 2 * points[0, :, 1] + 1)


def test_outside_of_the_map_values_fade_to_zero_or_continue() -> None:
    ones = torch.ones(1, 1, 4, 4)
    points = torch.tensor([[[0.5, 0.5], [0.0, 0.5], [0.0, 0.0], [-0.125, 0.5], [2.0, 0.5]]])
    assert point_sample(ones, points)[0, 0].tolist() == [1.0, 0.5, 0.25, 0.0, 0.0]
    assert point_sample(ones, points, padding="border")[0, 0].tolist() == [1.0] * 5


def test_shapes_alone_are_sampled_on_the_meta_device() -> None:
    with torch.device("meta"):
        sampled = point_sample(torch.empty(2, 3, 5, 7), regular_grid(4, 4, regions=2, device="meta"))
    assert (sampled.shape, sampled.device.type) == ((2, 3, 16), "meta")


def test_border_padding_is_what_bilinear_upsampling_does() -> None:
    features = torch.randn(1, 2, 5, 6)
    upsampled = F.interpolate(features, size=(20, 24), mode="bilinear", align_corners=False)
    sampled = point_sample(features, regular_grid(20, 24), padding="border")
    torch.testing.assert_close(sampled.view_as(upsampled), upsampled, atol=1e-5, rtol=0)


def test_nearest_keeps_labels_whole() -> None:
    labels = torch.randint(0, 256, (1, 1, 9, 9)).float()
    sampled = point_sample(labels, torch.rand(1, 100, 2), mode="nearest")
    assert set(sampled.unique().tolist()) <= set(labels.unique().tolist())


def test_a_map_of_one_pixel_can_be_sampled() -> None:
    assert point_sample(torch.full((1, 1, 1, 1), 7.0), torch.tensor([[[0.5, 0.5]]])).item() == 7.0


def test_no_points_and_no_regions_give_empty_results() -> None:
    assert point_sample(torch.rand(2, 3, 4, 4), torch.rand(2, 0, 2)).shape == (2, 3, 0)
    assert point_sample(torch.rand(0, 3, 4, 4), torch.rand(0, 5, 2)).shape == (0, 3, 5)


def test_flipping_map_and_points_gives_the_same_values() -> None:
    features, points = torch.randn(1, 3, 6, 9), torch.rand(1, 50, 2)
    mirrored = point_sample(features.flip(-1), torch.stack((1 - points[..., 0], points[..., 1]), -1))
    torch.testing.assert_close(mirrored, point_sample(features, points), atol=1e-5, rtol=0)


def test_several_maps_at_other_strides_are_sampled_at_the_same_place() -> None:
    points = torch.rand(1, 20, 2, dtype=torch.float64) * 0.5 + 0.25
    both = sample_maps([linear_field(8, 8), linear_field(16, 32)], points)
    torch.testing.assert_close(both[:, 0], both[:, 1])


def test_half_precision_maps_are_interpolated_in_float32() -> None:
    # A bfloat16 grid of 224 columns would be off by up to half a cell: the field's value by 0.5.
    columns = torch.arange(224.0).expand(1, 1, 4, 224)
    points = torch.stack((torch.linspace(0.6, 0.99, 100), torch.full((100,), 0.5)), -1)[None]
    right = point_sample(columns, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(point_sample(columns, points), right)
    rounded = point_sample(columns, points.bfloat16().float())
    assert (rounded - right).abs().max() > 0.25
    assert point_sample(columns.bfloat16(), points).dtype == torch.bfloat16


def test_half_precision_points_are_refused() -> None:
    with pytest.raises(ValueError, match="half precision"):
        point_sample(torch.rand(1, 1, 4, 4), torch.rand(1, 5, 2).bfloat16())


@pytest.mark.parametrize("shape", [(1, 5, 3), (2, 5, 2), (5, 2)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected features"):
        point_sample(torch.rand(1, 1, 4, 4), torch.rand(shape))


def test_boxes_sample_the_map_of_their_own_image() -> None:
    maps = torch.stack([torch.full((1, 8, 8), 1.0), torch.full((1, 8, 8), 2.0)])
    boxes = torch.tensor([[8.0, 8, 24, 24]]).expand(3, 4)
    values = point_sample_boxes([maps], [4], boxes, torch.tensor([1, 0, 1]), torch.full((3, 1, 2), 0.5))
    assert values.flatten().tolist() == [2, 1, 2]


def test_a_box_over_the_whole_map_is_the_whole_map() -> None:
    level = torch.randn(1, 3, 8, 12)
    boxes = torch.tensor([[0.0, 0, 48, 32]])
    points = torch.rand(1, 40, 2)
    sampled = point_sample_boxes([level], [4], boxes, torch.tensor([0]), points)
    torch.testing.assert_close(sampled, point_sample(level, points), atol=1e-5, rtol=0)


def test_points_of_a_box_outside_of_the_image_are_zero() -> None:
    boxes = torch.tensor([[-40.0, -40, -20, -20]])
    sampled = point_sample_boxes([torch.ones(1, 2, 8, 8)], [4], boxes, torch.tensor([0]), torch.rand(1, 9, 2))
    assert sampled.eq(0).all()


@pytest.mark.parametrize("images", [1, 3])
def test_no_boxes_give_no_features(images: int) -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    sampled = point_sample_boxes(
        [torch.rand(images, 5, 8, 8)], [4], torch.zeros(0, 4), empty, torch.zeros(0, 9, 2)
    )
    assert sampled.shape == (0, 5, 9)


def test_gradients_reach_the_features_of_every_image() -> None:
    maps = torch.randn(2, 3, 8, 8, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 32, 32], [4, 4, 20, 20]])
    point_sample_boxes([maps], [4], boxes, torch.tensor([0, 1]), torch.rand(2, 9, 2)).sum().backward()
    assert maps.grad is not None
    assert maps.grad.flatten(1).abs().sum(1).gt(0).all()
