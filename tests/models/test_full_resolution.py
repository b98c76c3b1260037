"""Images larger than the network's input: labels are sharp in the image's own pixels, which are read at points only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pointrend.core.lazy_grid import DenseLogits
from pointrend.core.sampling import point_sample
from pointrend.models.backbones import BackboneConfig
from pointrend.models.full_resolution import LayerAtPoints, continue_to_size
from pointrend.models.inputs import Preprocessing, batch_images
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter
from pointrend.models.semantic_heads import SemanticPointRendConfig
from tests.helpers import random_image

LONG = 64
PIXELS = Preprocessing(long_edge=LONG, divisor=32)


def model(*features: str, full_resolution: bool = True, num_points: int = 500) -> SemanticSegmenter:
    """A tiny network with random weights; its point head sees the features named."""
    torch.manual_seed(0)
    config = SemanticConfig(
        ("nothing", "one", "two"),
        backbone=BackboneConfig("resnet10_w16"),
        preprocessing=PIXELS,
        fpn_channels=8,
        decoder_channels=8,
        point_rend=SemanticPointRendConfig(
            features, width=8, depth=1, full_resolution=full_resolution, num_points=num_points
        ),
    )
    return SemanticSegmenter(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["image", "stem"])
@pytest.mark.parametrize("size", [(90, 130), (91, 75)])
def test_a_layer_at_points_has_the_values_of_the_dense_map(name: str, size: tuple[int, int]) -> None:
    layer, stride = model("p2").layers_at_points[name]
    pixels = batch_images([random_image(*size)], replace(PIXELS, divisor=1)).tensor
    pixels = F.pad(pixels, (0, 160 - size[1], 0, 128 - size[0]))  # points see the padding as the network does
    dense = pixels if layer is None else layer(pixels)
    # Within 8 pixels of the edge of the padded image a stem sees zeros of its own.
    points = 0.07 + 0.86 * torch.rand(1, 700, 2)
    found = LayerAtPoints(random_image(*size), PIXELS, (128.0, 160.0), layer, stride).at(points)
    torch.testing.assert_close(found, point_sample(dense, points), rtol=1e-4, atol=1e-4)


def test_outlines_follow_the_image_in_its_own_pixels() -> None:
    # A point head that calls bright pixels "one": with a point for every pixel, labels are those of the large image.
    sharp = model("image", num_points=10**6)
    assert sharp.point_rend is not None
    head = sharp.point_rend.head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.layers[0].weight[0, 0] = 1.0
        head.predictor.weight[1, 0], head.predictor.bias[1], head.predictor.bias[2] = 9.0, -1.0, -9.0  # type: ignore[index]
    rows, columns = torch.meshgrid(torch.arange(300), torch.arange(200), indexing="ij")
    bright = (rows + 2 * columns) % 400 < 150
    pixels = (bright * 255).to(torch.uint8).expand(3, -1, -1).contiguous()
    labels = sharp.predict([pixels])[0].labels
    assert torch.equal(labels == 1, bright)
    sharp.config = replace(sharp.config, point_rend=replace(sharp.config.point_rend, full_resolution=False))
    assert not torch.equal(sharp.predict([pixels])[0].labels == 1, bright)


def test_what_the_network_sees_whole_is_predicted_as_ever() -> None:
    small = random_image(40, 60)
    results = [model("image", "p2", full_resolution=wanted).predict([small])[0] for wanted in (True, False)]
    assert torch.equal(results[0].labels, results[1].labels)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (97, 203), (65, 64)])
def test_any_size_alone_and_in_a_batch(size: tuple[int, int]) -> None:
    tiny = model("image", "stem", "p2", num_points=50)
    alone = tiny.predict([random_image(*size)], uncertainty=True)[0]
    assert alone.labels.shape == size
    assert alone.uncertainty is not None
    assert alone.uncertainty.shape == size
    beside = tiny.predict([random_image(*size), random_image(64, 64)])
    assert [result.labels.shape for result in beside] == [size, (64, 64)]
    assert tiny.predict([random_image(*size)], refine=False)[0].labels.shape == size


def test_only_classes_of_the_networks_own_grid_take_part() -> None:
    logits = torch.full((5, 6, 8), -3.0)
    logits[1, :, :4], logits[3, :, 4:] = 2.0, 2.0
    all_two = torch.zeros(1, 5, 1)
    all_two[:, 2] = 9.0  # class 2 would win at every point, and is nowhere in the grid
    grid = continue_to_size(
        (30, 40),
        DenseLogits(logits),
        lambda points: all_two.expand(-1, -1, points.shape[1]),
        num_points=20,
        min_uncertainty=None,
    )
    assert grid.label_map().unique().tolist() == [1, 3]
    assert torch.equal(grid.rows(0, 30).argmax(0).unique(), torch.tensor([1, 3]))


def test_an_image_of_one_class_stays_so() -> None:
    logits = torch.zeros(3, 4, 4)
    logits[2] = 5.0
    grid = continue_to_size(
        (9, 9),
        DenseLogits(logits),
        lambda points: torch.zeros(1, 3, points.shape[1]),
        num_points=0,
        min_uncertainty=None,
    )
    assert (grid.label_map() == 2).all()
