"""Random heads, maps, grids and boxes: the fast path renders what the textbook path renders, and never waits."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pointrend.core.fast_point_head import FastPointHead
from pointrend.core.gather import point_sample_boxes
from pointrend.core.point_head import PointHead
from pointrend.core.sampling import point_sample
from pointrend.core.selection import binary_uncertainty
from pointrend.core.subdivision import PredictAt, SubdivisionStep, subdivide


class Scene:
    """A point head, maps of a batch of images, boxes inside, across and outside of them, some without area."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        chance = random.Random(seed)
        torch.manual_seed(seed)
        self.classes = chance.choice([1, 2, 7, 40])
        self.images = chance.choice([1, 1, 2, 3])
        self.regions = chance.choice([1, 2, 5])
        self.strides = chance.choice([[4], [2, 8], [4, 4, 16]])
        height, width = 16 * chance.randint(1, 5), 16 * chance.randint(1, 5)
        self.maps = [
            torch.randn(self.images, chance.randint(1, 6), height // stride, width // stride, dtype=dtype)
            for stride in self.strides
        ]
        if chance.random() < 0.3:
            self.maps = [level.contiguous(memory_format=torch.channels_last) for level in self.maps]
        self.head = PointHead(
            sum(level.shape[1] for level in self.maps),
            self.classes,
            width=chance.choice([1, 8, 16]),
            depth=chance.choice([1, 2, 3]),
            coarse_each_layer=chance.random() < 0.7,
            residual=chance.random() < 0.3,
        ).to(dtype)
        for parameter in self.head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        corner = torch.rand(self.regions, 2, dtype=dtype) * 80 - 20
        size = torch.rand(self.regions, 2, dtype=dtype) * 60 * (torch.rand(self.regions, 2) < 0.8)
        self.boxes = torch.cat((corner, corner + size), 1)
        self.image = torch.randint(0, self.images, (self.regions,)).sort().values
        self.labels = torch.randint(0, self.classes, (self.regions,))
        side = chance.choice([1, 3, 7])
        self.coarse = torch.randn(self.regions, self.classes, side, side, dtype=dtype)
        self.expected = chance.choice([1, 30, 10**5])
        start = chance.choice([2, 5, 7])
        self.start = torch.randn(self.regions, 1, start, start, dtype=dtype)
        steps = chance.randint(1, 4)
        self.sizes = [
            (start * 2**step, start * 2**step + chance.choice([0, 1])) for step in range(1, steps + 1)
        ]
        self.count = chance.choice([1, 10, 49, 10**4])

    def fast(self) -> PredictAt:
        return FastPointHead(
            self.head,
            self.maps,
            self.strides,
            self.boxes,
            self.image,
            self.coarse,
            self.labels,
            expected_points=self.expected,
        )

    def textbook(self, points: Tensor) -> Tensor:
        rough = point_sample(self.coarse, points, padding=self.head.coarse_padding)
        fine = point_sample_boxes(self.maps, self.strides, self.boxes, self.image, points)
        logits: Tensor = self.head(fine, rough, self.labels)
        return logits

    def render(
        self,
        predict_at: PredictAt,
        *,
        trace: list[SubdivisionStep] | None = None,
        follow: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """The mask; ``follow`` predicts where another run did, after a check that its doubts were the largest."""
        before = iter(follow or ())

        def exactly(points: Tensor) -> Tensor:  # grids are float32
            return predict_at(points.to(self.boxes.dtype))

        def followed(logits: Tensor) -> Tensor:
            doubt = binary_uncertainty(logits)
            index = next(before).index
            chosen = doubt.flatten(1).gather(1, index)
            largest = doubt.flatten(1).topk(index.shape[1], 1).values
            torch.testing.assert_close(chosen.sort(1).values, largest.sort(1).values, atol=1e-4, rtol=0)
            return torch.zeros_like(doubt).flatten(1).scatter(1, index, 1.0).view_as(doubt)

        return subdivide(
            self.start,
            exactly,
            sizes=self.sizes,
            num_points=self.count,
            uncertainty=binary_uncertainty if follow is None else followed,
            trace=trace,
        )


def both_ways(scene: Scene) -> tuple[Tensor, Tensor]:
    """Masks of both paths; of equally uncertain cells, the textbook predicts those that the fast path predicted."""
    steps: list[SubdivisionStep] = []
    fast = scene.render(scene.fast(), trace=steps)
    return fast, scene.render(scene.textbook, follow=steps)


@pytest.mark.parametrize("seed", range(40))
def test_masks_are_the_textbooks_to_a_billionth(seed: int) -> None:
    fast, textbook = both_ways(Scene(seed))
    torch.testing.assert_close(fast, textbook, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_float32_probabilities_are_the_textbooks_to_a_ten_thousandth(seed: int) -> None:
    fast, textbook = both_ways(Scene(seed, torch.float32))
    torch.testing.assert_close(fast.sigmoid(), textbook.sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_half_precision_moves_logits_by_its_rounding(seed: int) -> None:
    scene = Scene(seed, torch.float32)
    points = torch.rand(scene.regions, 300, 2)
    exact = scene.fast()(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = scene.fast()(points)
    assert half.dtype == torch.float32
    scale = exact.abs().mean() + scene.coarse.abs().mean()
    assert (half - exact).abs().mean() < 0.02 * scale


def test_autocast_changes_what_is_computed_and_float64_heads_are_left_alone() -> None:
    for dtype, changes in ((torch.float32, True), (torch.float64, False)):
        scene = Scene(3, dtype)
        points = torch.rand(scene.regions, 50, 2)
        exact = scene.fast()(points)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(scene.fast()(points), exact) is not changes


fake_cuda = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 6) and not torch.cuda.is_available(),
    reason="up to torch 2.5, fake CUDA tensors need a driver",
)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", torch.float32),
        ("cpu", torch.bfloat16),
        pytest.param("cuda", torch.float32, marks=fake_cuda),
    ],
)
def test_subdivision_never_waits_for_the_device(device: str, precision: torch.dtype) -> None:
    """Fake tensors have shapes and no values: a value that is read, or decides a shape, raises an error."""
    with FakeTensorMode(), torch.device(device):
        head = PointHead(6, 5, width=8)
        features = [torch.randn(1 if device == "cpu" else 2, 6, 40, 60)]
        boxes, index = torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)
        with torch.autocast(device, dtype=precision, enabled=precision != torch.float32):
            fast = FastPointHead(
                head, features, [4], boxes, index, torch.rand(3, 5, 7, 7), index, expected_points=3000
            )
            sizes = [(14, 14), (28, 28)]
            masks = subdivide(
                torch.rand(3, 1, 7, 7), fast, sizes=sizes, num_points=49, uncertainty=binary_uncertainty
            )
    assert masks.shape == (3, 1, 28, 28)
