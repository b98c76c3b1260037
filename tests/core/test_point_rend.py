from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.fast_point_head import predict_in_images
from pointrend.core.point_rend import PointRend
from pointrend.core.sampling import regular_grid
from pointrend.core.selection import PointSampling
from pointrend.core.subdivision import SubdivisionStep


def refiner(classes: int = 3, **options: object) -> PointRend:
    return PointRend([4, 2], classes, width=8, sampling=PointSampling(30), num_points=40, **options)


def inputs(classes: int = 3, images: int = 2) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.randn(images, classes, 5, 6), [
        torch.randn(images, 4, 10, 12),
        torch.randn(images, 2, 20, 24),
    ]


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (20, 24), (33, 17), (1, 200)])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_any_output_size_is_rendered_exactly(size: tuple[int, int], classes: int) -> None:
    coarse, maps = inputs(classes)
    assert refiner(classes).refine(coarse, maps, size).shape == (2, classes, *size)


def test_refining_every_cell_is_predicting_densely() -> None:
    module, (coarse, maps) = refiner(residual=False), inputs()
    dense = predict_in_images(module.head, maps, coarse)(regular_grid(21, 23, regions=2))
    refined = module.refine(coarse, maps, (21, 23), num_points=21 * 23)
    torch.testing.assert_close(refined, dense.view(2, 3, 21, 23))


def test_a_fresh_residual_refiner_is_bilinear_upsampling() -> None:
    coarse, maps = inputs()
    refined = refiner().refine(coarse, maps, (10, 12))
    upsampled = F.interpolate(coarse, size=(10, 12), mode="bilinear")
    torch.testing.assert_close(refined, upsampled, atol=1e-5, rtol=0)


def test_an_image_is_refined_alike_alone_and_in_a_batch() -> None:
    module, (coarse, maps) = refiner(residual=False), inputs()
    both = module.refine(coarse, maps, (20, 24))
    alone = module.refine(coarse[1:], [level[1:] for level in maps], (20, 24))
    torch.testing.assert_close(both[1:], alone)


def test_an_empty_batch_is_refined_to_nothing() -> None:
    coarse, maps = inputs(images=0)
    assert refiner().refine(coarse, maps, (20, 24)).shape == (0, 3, 20, 24)


def test_the_trace_tells_every_step() -> None:
    trace: list[SubdivisionStep] = []
    coarse, maps = inputs()
    refiner().refine(coarse, maps, (33, 40), trace=trace)
    assert [step.size for step in trace] == [(10, 12), (20, 24), (33, 40)]
    assert all(step.index.shape == (2, 40) for step in trace)


def test_the_loss_reaches_head_features_and_coarse_logits() -> None:
    module, (coarse, maps) = refiner(residual=False), inputs()
    tensors = [coarse.requires_grad_(), *(level.requires_grad_() for level in maps)]
    module.loss(coarse, maps, torch.randint(0, 3, (2, 40, 48))).backward()
    gradients = [tensor.grad for tensor in (*tensors, *module.parameters())]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_training_sharpens_what_the_coarse_prediction_blurs() -> None:
    truth = torch.zeros(1, 32, 32, dtype=torch.int64)
    truth[:, 9:23, 5:19] = 1
    image = truth[:, None].float() * 2 - 1
    coarse = F.adaptive_avg_pool2d(image, 4)
    coarse = torch.cat((-coarse, coarse), 1)
    module = PointRend(1, 2, width=16, depth=2, sampling=PointSampling(200), num_points=400)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        module.loss(coarse, image, truth).backward()
        optimizer.step()
    wrong = (F.interpolate(coarse, size=(32, 32), mode="bilinear").argmax(1) != truth).sum()
    refined_wrong = (module.refine(coarse, image, (32, 32)).argmax(1) != truth).sum()
    assert wrong > 30
    assert refined_wrong <= 2


def test_labels_that_are_all_ignored_give_a_zero_loss() -> None:
    coarse, maps = inputs()
    loss = refiner().loss(coarse, maps, torch.full((2, 9, 9), 255))
    assert loss.item() == 0
    assert loss.requires_grad


def test_binary_labels_may_be_ignored_too() -> None:
    coarse, maps = inputs(1)
    labels = torch.randint(0, 2, (2, 9, 9))
    labels[0] = 255
    assert torch.isfinite(refiner(1).loss(coarse, maps, labels))


@pytest.mark.parametrize("label", [3, -1, 254])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    coarse, maps = inputs()
    with pytest.raises(ValueError, match=rf"expected 0\.\.2 or 255.*{label}"):
        refiner().loss(coarse, maps, torch.full((2, 9, 9), label))


def test_maps_that_do_not_fit_are_refused() -> None:
    coarse, maps = inputs()
    with pytest.raises(ValueError, match="coarse"):
        refiner().refine(coarse[:, :2], maps, (20, 24))
    with pytest.raises(ValueError, match="6 channels"):
        refiner().refine(coarse, maps[0], (20, 24))
    with pytest.raises(ValueError, match="N = 2"):
        refiner().refine(coarse, [maps[0][:1], maps[1][:1]], (20, 24))
    with pytest.raises(ValueError, match="labels"):
        refiner().loss(coarse, maps, torch.zeros(1, 9, 9, dtype=torch.int64))


def test_autocast_changes_little() -> None:
    module, (coarse, maps) = refiner(residual=False), inputs()
    exact = module.refine(coarse, maps, (20, 24), num_points=480)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = module.refine(coarse, maps, (20, 24), num_points=480)
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, atol=2e-3, rtol=2e-2)
