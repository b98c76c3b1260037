from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pointrend.core.selection import PointSampling
from pointrend.core.subdivision import SubdivisionStep
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import ImageBatch, Preprocessing
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.structures import SemanticTarget
from tests.helpers import random_image

POINTS = SemanticPointRendConfig(width=8, sampling=PointSampling(20), num_points=50)
FPN = SemanticConfig(
    class_names=("road", "sky", "tree"),
    backbone=BackboneConfig("mobilenet_v2"),
    fpn_channels=8,
    decoder_channels=8,
    point_rend=POINTS,
)
DEEPLAB = replace(
    FPN,
    backbone=BackboneConfig("resnet18", output_stride=16),
    decoder="deeplab",
    point_rend=replace(POINTS, features=("res2",)),
)


def target(height: int, width: int, classes: int = 3) -> SemanticTarget:
    return SemanticTarget(torch.randint(0, classes, (height, width), dtype=torch.uint8))


@pytest.mark.parametrize(
    ("config", "stride"),
    [
        (FPN, 4),
        (replace(FPN, levels=("p3", "p4", "p5")), 8),
        (replace(FPN, coarse_stride=8), 8),
        (replace(FPN, coarse_stride=32), 32),
        (replace(FPN, decoder_norm="BN"), 4),
        (DEEPLAB, 16),
        (replace(DEEPLAB, backbone=BackboneConfig("resnet18", output_stride=8), rates=(12, 24, 36)), 8),
        (replace(DEEPLAB, backbone=BackboneConfig("resnet50", output_stride=16, deep_stem=True)), 16),
    ],
)
def test_every_architecture_predicts_coarsely_and_refines(config: SemanticConfig, stride: int) -> None:
    model = SemanticSegmenter(config).eval()
    maps = model.features(torch.randn(1, 3, 64, 96))
    assert model.coarse(maps).shape == (1, 3, 64 // stride, 96 // stride)
    assert model.predict([random_image(64, 96)])[0].labels.shape == (64, 96)


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (97, 31)])
def test_a_coarser_prediction_still_sees_every_level(size: tuple[int, int]) -> None:
    """Odd sizes too: 25 rows are halved to 13, where the next level has 13."""
    model = SemanticSegmenter(replace(FPN, coarse_stride=8))
    assert model.predict([random_image(*size)])[0].labels.shape == size
    sum(model.loss([random_image(33, 50)], [target(33, 50)]).values()).backward()
    for level in ("p2", "p3", "p4", "p5"):
        assert all(parameter.grad.any() for parameter in model.decoder.branches[level].parameters())  # type: ignore[union-attr]


def test_the_stride_of_the_coarse_prediction_is_one_of_the_levels() -> None:
    with pytest.raises(ValueError, match=r"coarse stride: expected .* one of \[8, 16, 32\], got 4"):
        SemanticSegmenter(replace(FPN, levels=("p3", "p4", "p5"), coarse_stride=4))
    with pytest.raises(ValueError, match="coarse_stride: expected None, got 8"):
        SemanticSegmenter(replace(DEEPLAB, coarse_stride=8))


@pytest.mark.parametrize("steps", [None, 1, 3])
@pytest.mark.parametrize("refine", [False, True])
def test_the_fast_path_gives_the_textbooks_labels(steps: int | None, refine: bool) -> None:
    config = replace(
        FPN, point_rend=replace(POINTS, subdivision_steps=steps), preprocessing=Preprocessing(short_edge=48)
    )
    model = SemanticSegmenter(config).eval()
    assert model.point_rend is not None
    for parameter in model.point_rend.parameters():
        torch.nn.init.normal_(parameter)
    images = [random_image(60, 80), random_image(90, 61), random_image(48, 48)]
    fast = model.predict(images, refine=refine, uncertainty=True)
    model.point_rend.head.fast = False
    textbooks = model.predict(images, refine=refine, uncertainty=True, trace=[])
    for ours, textbook in zip(fast, textbooks, strict=True):
        assert torch.equal(ours.labels, textbook.labels)
        assert ours.labels.dtype == torch.uint8
        torch.testing.assert_close(ours.uncertainty, textbook.uncertainty, atol=1e-4, rtol=0)


def test_without_pointrend_the_coarse_prediction_is_interpolated() -> None:
    model = SemanticSegmenter(replace(FPN, point_rend=None)).eval()
    assert model.point_rend is None
    assert set(model.loss([random_image(32, 32)], [target(32, 32)])) == {"coarse"}
    assert model.predict([random_image(40, 50)])[0].labels.shape == (40, 50)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 51), (100, 7)])
def test_odd_sizes_come_back_in_their_own_size(size: tuple[int, int]) -> None:
    model = SemanticSegmenter(replace(FPN, preprocessing=Preprocessing(divisor=1))).eval()
    result = model.predict([random_image(*size)], uncertainty=True)[0]
    assert result.labels.shape == size
    assert result.labels.max() < 3
    assert result.uncertainty is not None
    assert result.uncertainty.shape == size
    assert result.uncertainty.min() >= 0
    assert result.uncertainty.max() <= 1


def test_images_of_different_sizes_share_a_batch() -> None:
    model = SemanticSegmenter(replace(FPN, preprocessing=Preprocessing(short_edge=48))).eval()
    results = model.predict([random_image(30, 40), random_image(90, 60)])
    assert [tuple(result.labels.shape) for result in results] == [(30, 40), (90, 60)]
    assert model.predict([]) == []


def test_the_last_subdivision_step_is_exactly_the_padded_image_or_a_published_number_of_doublings() -> None:
    def sizes(config: SemanticConfig) -> list[tuple[int, int]]:
        trace: list[SubdivisionStep] = []
        SemanticSegmenter(config).eval().predict([random_image(41, 57)], trace=trace)
        return [step.size for step in trace]

    unpadded = replace(FPN, preprocessing=Preprocessing(divisor=1))
    assert sizes(unpadded) == [(22, 30), (41, 57)]
    assert sizes(replace(unpadded, point_rend=replace(POINTS, subdivision_steps=2))) == [(22, 30), (44, 60)]
    assert sizes(replace(FPN, point_rend=replace(POINTS, subdivision_steps=2))) == [(32, 32), (64, 64)]


def test_training_lowers_the_loss() -> None:
    model = SemanticSegmenter(
        replace(FPN, point_rend=replace(POINTS, features=("p2", "stem", "image", "coarse")))
    )
    labels = torch.zeros(48, 48, dtype=torch.uint8)
    labels[10:30, 8:40] = 1
    image = labels.expand(3, -1, -1) * 200
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        total = sum(model.loss([image] * 2, [SemanticTarget(labels)] * 2).values())
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_smaller_images_are_padded_with_ignored_labels() -> None:
    model = SemanticSegmenter(replace(FPN, point_rend=None)).eval()
    small, large = random_image(32, 32), random_image(64, 64)
    both = model.loss(
        [small, large], [target(32, 32), SemanticTarget(torch.full((64, 64), 255, dtype=torch.uint8))]
    )
    assert torch.isfinite(both["coarse"])
    nothing = model.loss([large], [SemanticTarget(torch.full((64, 64), 255, dtype=torch.uint8))])
    assert nothing["coarse"].item() == 0


def test_dividing_by_all_pixels_makes_the_loss_of_half_ignored_labels_half() -> None:
    config = replace(FPN, point_rend=None)
    labels = target(32, 32).labels
    labels[:16] = 255
    model = SemanticSegmenter(config).eval()
    image = random_image(32, 32)
    valid = model.loss([image], [SemanticTarget(labels)])["coarse"].item()
    model.config = replace(config, loss_normalize="all")
    assert model.loss([image], [SemanticTarget(labels)])["coarse"].item() == pytest.approx(valid / 2)


def test_bad_input_is_named() -> None:
    model = SemanticSegmenter(FPN)
    with pytest.raises(ValueError, match=r"0\.\.2 or 255"):
        model.loss([random_image(32, 32)], [target(32, 32, 200)])
    with pytest.raises(ValueError, match=r"image's size \(32, 32\)"):
        model.loss([random_image(32, 32)], [target(32, 31)])
    with pytest.raises(ValueError, match="a target for each of 1"):
        model.loss([random_image(32, 32)], [])
    with pytest.raises(ValueError, match="uint8"):
        model.predict([torch.rand(3, 32, 32)])
    with pytest.raises(ValueError, match="two exclusive classes"):
        SemanticSegmenter(replace(FPN, class_names=("all",)))
    with pytest.raises(ValueError, match="levels"):
        SemanticSegmenter(replace(FPN, levels=("p1",)))
    with pytest.raises(ValueError, match="point head features"):
        SemanticSegmenter(replace(DEEPLAB, point_rend=replace(POINTS, features=("p1",))))
    with pytest.raises(ValueError, match="at least 2 images"):
        SemanticSegmenter(DEEPLAB).loss([random_image(32, 32)], [target(32, 32)])


def test_autocast_gives_float32_losses_near_the_exact_ones() -> None:
    model = SemanticSegmenter(replace(FPN, point_rend=None)).eval()
    batch = [random_image(64, 64)], [target(64, 64)]
    exact = model.loss(*batch)["coarse"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = model.loss(*batch)["coarse"]
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, rtol=0.05, atol=0)


def test_an_image_that_cannot_fit_is_refused_before_it_is_computed() -> None:
    model = SemanticSegmenter(replace(FPN, class_names=tuple(map(str, range(150))))).eval()
    one = torch.zeros(1, dtype=torch.uint8)
    huge = ImageBatch(one.expand(1, 3, 2**20, 2**20), [(2**20, 2**20)])  # a terapixel that takes one byte
    with pytest.raises(ValueError, match=r"150 classes x 1048576x1048576 pixels needs at least .* GiB"):
        model.logits(huge)
    with pytest.raises(ValueError, match=r"1048576x1048576 pixels needs at least .* GiB"):
        model.grids(huge)


def test_points_beside_deeplab_may_read_a_pyramid() -> None:
    point_rend = SemanticPointRendConfig(features=("stem", "p2"), width=8, depth=1, num_points=32)
    config = SemanticConfig(
        ("a", "b"),
        backbone=BackboneConfig("resnet18", norm="batch", output_stride=16),
        decoder="deeplab",
        rates=(),
        decoder_channels=8,
        fpn_channels=8,
        point_rend=point_rend,
    )
    model = SemanticSegmenter(config).eval()
    assert model.predict([torch.zeros(3, 40, 50, dtype=torch.uint8)])[0].labels.shape == (40, 50)
    assert SemanticSegmenter(replace(config, point_rend=None)).fpn is None


def test_a_model_of_stride_16_predicts_at_8_with_the_same_weights():
    """Table 6: res4 and res5 are dilated, ASPP looks as far in pixels, one step of subdivision less."""
    torch.manual_seed(0)
    rend = SemanticPointRendConfig(features=("res2",), width=8, num_points=20, subdivision_steps=4)
    config = replace(
        DEEPLAB, backbone=BackboneConfig("resnet18", output_stride=16), rates=(6, 12, 18), point_rend=rend
    )
    model = SemanticSegmenter(config).eval()
    finer = model.with_output_stride(8)
    assert (finer.config.rates, finer.config.point_rend.subdivision_steps) == ((12, 24, 36), 3)
    image = torch.zeros(1, 3, 64, 64)
    assert finer.coarse(finer.features(image)).shape[-1] == 2 * model.coarse(model.features(image)).shape[-1]
    assert all(torch.equal(finer.state_dict()[name], t) for name, t in model.state_dict().items())
    again = finer.with_output_stride(16)
    assert again.config == config
    with pytest.raises(ValueError, match="fixed strides"):
        SemanticSegmenter(FPN).with_output_stride(8)


@pytest.mark.parametrize("base", [FPN, DEEPLAB], ids=["fpn", "deeplab"])
def test_a_few_labelled_pixels_train_both_predictions(base: SemanticConfig) -> None:
    rend = replace(POINTS, features=base.point_rend.features, sampling=PointSampling(20, strategy="labelled"))
    model = SemanticSegmenter(replace(base, point_rend=rend))
    sparse = torch.full((33, 50), 255, dtype=torch.uint8)
    sparse[0, 0], sparse[32, 49], sparse[10, 20] = 0, 1, 2
    losses = model.loss([random_image(33, 50)] * 2, [SemanticTarget(sparse)] * 2)
    assert losses.counts["points"] == losses.counts["coarse"] == 6
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.point_rend.parameters())
    nothing = SemanticTarget(torch.full_like(sparse, 255))
    assert all(value.item() == 0 for value in model.loss([random_image(33, 50)] * 2, [nothing] * 2).values())
