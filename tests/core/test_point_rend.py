from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pointrend.core.fast_point_head import predict_in_images
from pointrend.core.point_rend import PointRend
from pointrend.core.sampling import point_sample, regular_grid
from pointrend.core.selection import PointSampling
from pointrend.core.subdivision import SubdivisionStep


def refiner(classes: int = 3, **options: object) -> PointRend:
    options = {"sampling": PointSampling(30), **options}
    return PointRend([4, 2], classes, width=8, num_points=40, **options)


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
    with pytest.raises(
        ValueError, match=r"expected maps \(N, C, H, W\).*turn maps \(N, H, W, C\) by movedim"
    ):
        refiner().refine(coarse, [level.movedim(1, -1) for level in maps], (20, 24))
    with pytest.raises(ValueError, match=r"expected maps \(N, C, H, W\)"):  # tokens
        refiner().refine(coarse, [level.flatten(2).mT for level in maps], (20, 24))
    with pytest.raises(ValueError, match="N = 4"):
        refiner().refine(torch.cat((coarse, coarse)), maps, (20, 24))
    with pytest.raises(ValueError, match="labels"):
        refiner().loss(coarse, maps, torch.zeros(1, 9, 9, dtype=torch.int64))


def test_autocast_changes_little() -> None:
    module, (coarse, maps) = refiner(residual=False), inputs()
    exact = module.refine(coarse, maps, (20, 24), num_points=480)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = module.refine(coarse, maps, (20, 24), num_points=480)
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, atol=2e-3, rtol=2e-2)


def test_a_single_number_is_a_square_and_maps_may_have_names() -> None:
    coarse, maps = inputs()
    named = OrderedDict(zip(("0", "1"), maps, strict=True))
    torch.testing.assert_close(refiner().refine(coarse, named, 24), refiner().refine(coarse, maps, (24, 24)))
    assert torch.isfinite(refiner().loss(coarse, named, torch.zeros(2, 9, 9, dtype=torch.int64)))


@pytest.mark.parametrize("size", [24.0, "24", (24,), (1, 2, 3), (24, 2.5)])
def test_another_size_is_refused(size: object) -> None:
    coarse, maps = inputs()
    with pytest.raises(ValueError, match="size: expected rows and columns"):
        refiner().refine(coarse, maps, size)


def test_masks_may_share_the_maps_of_one_image() -> None:
    coarse, maps = inputs()
    shared = [level[:1] for level in maps]
    spread = [level.expand(2, -1, -1, -1) for level in shared]
    module = refiner()
    torch.testing.assert_close(module.refine(coarse, shared, 24), module.refine(coarse, spread, 24))
    for ours, theirs in zip(
        module.render(coarse, shared, 24), module.render(coarse, spread, 24), strict=True
    ):
        assert torch.equal(ours.label_map(), theirs.label_map())
    labels, draws = torch.randint(0, 3, (2, 9, 9)), [torch.Generator().manual_seed(1) for _ in range(2)]
    losses = [
        module.loss(coarse, level, labels, generator=own)
        for level, own in zip((shared, spread), draws, strict=True)
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("fast", [True, False])
def test_a_box_is_refined_as_its_part_of_the_image(fast: bool) -> None:
    """Coarse logits of a box that covers the image are those of the image; of a half, those of the half."""
    module = PointRend(4, 1, width=8, num_points=10**4).double()
    torch.nn.init.normal_(module.head.predictor.weight)
    module.head.fast = fast
    coarse, maps = torch.randn(2, 1, 5, 6).double(), torch.randn(2, 4, 10, 12).double()
    boxes, options = torch.tensor([[0.0, 0, 48, 40], [24, 0, 48, 40]]).double(), {"image_size": (40, 48)}
    index = torch.tensor([1, 0])
    both = module.refine(coarse, maps, (20, 24), boxes=boxes, image_index=index, **options)
    torch.testing.assert_close(both[:1], module.refine(coarse[:1], maps[1:], (20, 24)))
    alone = module.refine(coarse[1:], maps[:1], (20, 24), boxes=boxes[1:], **options)
    torch.testing.assert_close(both[1:], alone)
    points = regular_grid(20, 24)
    half = torch.stack((0.5 + points[..., 0] / 2, points[..., 1]), -1)
    fine, own = point_sample(maps[:1], half), point_sample(coarse[1:], points, padding="border")
    torch.testing.assert_close(alone, module.head(fine, own).view(1, 1, 20, 24), atol=1e-4, rtol=1e-4)


def test_a_boxs_labels_are_those_of_the_image_below_it() -> None:
    module = PointRend(1, 1, width=8, sampling=PointSampling.uniform(500))
    labels = torch.zeros(2, 20, 20)
    labels[:, :, 10:] = 1
    coarse, maps = torch.full((2, 1, 7, 7), 9.0), torch.zeros(1, 1, 5, 5)  # sure of an object
    boxes = torch.tensor([[0.0, 0, 10, 20], [10, 0, 20, 20]])
    wrong, right = (
        module.loss(coarse[:1], maps, labels[:1], boxes=box[None], image_size=(20, 20)) for box in boxes
    )
    assert wrong.item() > 6
    assert right.item() < 0.1


def test_boxes_come_with_the_size_of_their_image() -> None:
    coarse, maps = inputs()
    boxes = torch.tensor([[0.0, 0, 1, 1]] * 2)
    for options in ({"boxes": boxes}, {"image_size": (4, 4)}, {"image_index": torch.zeros(2).long()}):
        with pytest.raises(ValueError, match="together"):
            refiner().refine(coarse, maps, 24, **options)
    with pytest.raises(ValueError, match=r"boxes: expected \(2, 4\)"):
        refiner().refine(coarse, maps, 24, boxes=boxes[:1], image_size=(4, 4))
    with pytest.raises(ValueError, match="one image, or image_index"):
        refiner().refine(coarse, maps, 24, boxes=boxes, image_size=(4, 4))
    empty = refiner().refine(
        coarse[:0], [level[:1] for level in maps], 24, boxes=boxes[:0], image_size=(4, 4)
    )
    assert empty.shape == (0, 3, 24, 24)


def test_classes_that_do_not_exclude_one_another() -> None:
    module = PointRend(4, 3, width=8, residual=False, num_points=30, multilabel=True)
    coarse, maps = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 10, 12)
    trace: list[SubdivisionStep] = []
    assert module.refine(coarse, maps, (10, 12), trace=trace).shape == (2, 3, 10, 12)
    nearest = trace[0].upsampled.abs().amin(1).flatten(1)  # of any class to its decision
    chosen = nearest.gather(1, trace[0].index).amax(1)
    assert torch.equal(chosen, nearest.sort(1).values[:, 29])
    labels = torch.randint(0, 2, (2, 3, 9, 9))
    labels[:, 0] = 255
    loss = module.loss(coarse, maps, labels)
    loss.backward()
    weight = module.head.predictor.weight.grad
    assert weight is not None
    assert not weight[0].any()  # ignored everywhere
    assert weight[1:].any()
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        module.loss(coarse, maps, labels[:, 0])
    with pytest.raises(ValueError, match="no label map"):
        module.render(coarse, maps, 24)


def test_a_binary_mask_may_have_a_channel_and_be_true_or_soft() -> None:
    coarse, maps = inputs(1)
    labels = torch.randint(0, 2, (2, 9, 9))
    options = {"generator": None}
    losses = []
    for given in (labels, labels[:, None], labels.bool(), labels.float()):
        options["generator"] = torch.Generator().manual_seed(3)
        losses.append(refiner_of_one(1).loss(coarse, maps, given, **options).item())
    assert len(set(losses)) == 1
    assert torch.isfinite(refiner(1).loss(coarse, maps, torch.full((2, 9, 9), 0.5)))
    for wrong in (torch.full((2, 9, 9), 1.5), torch.full((2, 9, 9), 3)):
        with pytest.raises(ValueError, match=r"expected 0\.\.1 or 255"):
            refiner(1).loss(coarse, maps, wrong)


def refiner_of_one(seed: int) -> PointRend:
    torch.manual_seed(seed)
    return refiner(1)


def test_masks_of_0_and_255_are_refused_with_two_ways_out() -> None:
    coarse, maps = inputs(1)
    labels = torch.zeros(2, 9, 9, dtype=torch.uint8)
    labels[:, 2:5] = 255
    with pytest.raises(ValueError, match=r"divide the labels by 255.*ignore_label"):
        refiner(1).loss(coarse, maps, labels)
    assert torch.isfinite(refiner(1).loss(coarse, maps, labels // 255))
    assert torch.isfinite(
        refiner(1).loss(coarse, maps, labels.int() - labels.int() // 255 * 256, ignore_label=-1)
    )
    module = refiner(1)
    labels[0, 0] = 1
    module.loss(coarse, maps, labels)
    labels[0, 0] = 0
    assert torch.isfinite(module.loss(coarse, maps, labels))  # by now it is known what 255 means


def test_exclusive_classes_are_integers() -> None:
    coarse, maps = inputs()
    with pytest.raises(ValueError, match=r"expected integers.*\.long\(\)"):
        refiner().loss(coarse, maps, torch.zeros(2, 9, 9))


def test_volumes_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="slice by slice"):
        refiner().refine(torch.zeros(1, 3, 4, 5, 6), torch.zeros(1, 6, 4, 5, 6), 24)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_coarse_logits_that_are_not_finite_are_an_error(value: float) -> None:
    coarse, maps = inputs()
    coarse[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        refiner().refine(coarse, maps, 24)
    with pytest.raises(ValueError, match="NaN or infinite"):
        refiner().render(coarse, maps, 24)


fake_cuda = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 6) and not torch.cuda.is_available(),
    reason="up to torch 2.5, fake CUDA tensors need a driver",
)


@fake_cuda
def test_on_a_gpu_labels_are_looked_at_once() -> None:
    """Fake tensors have no values: a step that reads one raises an error."""
    with FakeTensorMode(), torch.device("cuda"):
        for classes, options in ((3, {}), (1, {}), (3, {"multilabel": True})):
            module = refiner(classes, **options)
            module._check_labels.done = True
            coarse, maps = (
                torch.zeros(2, classes, 5, 6),
                [torch.zeros(2, 4, 10, 12), torch.zeros(2, 2, 20, 24)],
            )
            labels = torch.zeros((2, 3, 9, 9) if options else (2, 9, 9), dtype=torch.int64)
            assert module.loss(coarse, maps, labels).shape == ()


def test_a_wrong_binary_label_that_was_not_looked_at_makes_the_loss_nan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coarse, maps = inputs(1)
    module = refiner(1)
    monkeypatch.setattr(module._check_labels, "_check_binary", lambda *_: None)
    assert module.loss(coarse, maps, torch.full((2, 9, 9), 7)).isnan()


def test_sparse_labels_are_learnt_from_at_every_labelled_pixel_and_nowhere_else() -> None:
    coarse, maps = inputs()
    point_rend = refiner(sampling=PointSampling(50, strategy="labelled"))
    labels = torch.full((2, 24, 32), 255)
    labels[0, 3, 4], labels[0, 20, 31], labels[1, 0, 0] = 0, 1, 2
    counted: list[torch.Tensor] = []
    loss = point_rend.loss(coarse, maps, labels, counted=counted)
    assert counted == [3]
    centres = torch.tensor([[[4.5, 3.5], [31.5, 20.5]], [[0.5, 0.5], [0.5, 0.5]]]) / torch.tensor([32.0, 24])
    logits = predict_in_images(point_rend.head, maps, coarse)(centres)
    expected = F.cross_entropy(torch.cat([logits[0].T, logits[1, :, :1].T]), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(loss, expected)


def test_labelled_points_are_those_of_a_whole_image() -> None:
    coarse, maps = inputs(classes=1)
    point_rend = refiner(1, sampling=PointSampling(50, strategy="labelled"))
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 2)
    with pytest.raises(ValueError, match="without boxes"):
        point_rend.loss(
            coarse,
            maps,
            torch.zeros(2, 24, 32),
            boxes=boxes,
            image_size=(24, 32),
            image_index=torch.tensor([0, 1]),
        )
