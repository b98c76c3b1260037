from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.losses import binary_point_loss, multiclass_point_loss


def test_binary_loss_is_the_mean_cross_entropy_with_soft_targets() -> None:
    logits, targets = torch.randn(3, 20), torch.rand(3, 20)
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(binary_point_loss(logits, targets), expected)


def test_ignored_points_do_not_count() -> None:
    logits, targets = torch.randn(2, 10), torch.rand(2, 10)
    few = binary_point_loss(logits[:, :4], targets[:, :4])
    targets[:, 4:] = -1
    torch.testing.assert_close(binary_point_loss(logits, targets), few)
    torch.testing.assert_close(binary_point_loss(logits, targets, normalize="all"), few * 0.4)


def test_multiclass_loss_is_torchs_and_can_divide_by_all_points() -> None:
    logits, labels = torch.randn(2, 5, 30), torch.randint(0, 5, (2, 30))
    labels[:, 15:] = 255
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(multiclass_point_loss(logits, labels), expected)
    torch.testing.assert_close(multiclass_point_loss(logits, labels, normalize="all"), expected / 2)


def test_maps_are_taken_like_points() -> None:
    logits, labels = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    expected = multiclass_point_loss(logits.flatten(2), labels.flatten(1))
    torch.testing.assert_close(multiclass_point_loss(logits, labels), expected)


@pytest.mark.parametrize("points", [0, 7])
def test_without_a_point_that_counts_the_loss_is_zero_and_connected(points: int) -> None:
    logits = torch.randn(2, 3, points, requires_grad=True)
    for loss in (
        multiclass_point_loss(logits, torch.full((2, points), 255)),
        binary_point_loss(logits[:, 0], torch.full((2, points), -1.0)),
    ):
        loss.backward()
        assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected labels"):
        multiclass_point_loss(torch.randn(2, 3, 4), torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected targets"):
        binary_point_loss(torch.randn(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="normalize"):
        binary_point_loss(torch.randn(2, 3), torch.zeros(2, 3), normalize="some")  # type: ignore[arg-type]
