"""Table 2 of the paper: multiply-adds and activations of three mask heads, for one box and 80 classes.

    python benchmarks/flops.py

The heads of the built models run on the meta device (shapes without numbers) under torch's `FlopCounterMode`,
which counts a multiply-add as two operations. Bilinear sampling, upsampling and ranking are not counted.

What the numbers are made of (256 channels, K = 80, one multiply-add for each weight and output position):

    4x conv, 28x28 from 14x14
      3x3 convolutions    4 * 14^2 * 9 * 256^2 = 462 M
      2x2 deconvolution       28^2     * 256^2 =  51 M
      1x1 prediction          28^2  * 256 * 80 =  16 M
    4x conv, 224x224 from 112x112: 64 times all that
    PointRend, coarse head
      2x2 convolution          7^2 * 4 * 256^2 =  13 M
      fc1, fc2, prediction   12544 * 1024 + 1024^2 + 1024 * 3920 = 18 M
    PointRend, point head
      a point: 3 hidden layers of 256, from 256 + 80, and 80 outputs = 284928
      784 points each at 28x28, 56, 112, 224: 4 * 784 * 284928 = 893 M

The published 0.9 G is four rounds of 784, which is what the authors' code runs. Five steps from 7x7, as the
text has them (14x14 has but 196 cells), would be 0.98 G and round to 1.0.

Activations are numbers that layers put out. The paper does not say which are counted. Its three numbers come
out when the pooled features that a head starts from count too (without them 4x conv 224 has 29.7 M), and of
PointRend's rounds, which follow one another and can use the same memory, one (all four: 2.7 M). Features
sampled at points are not counted. The table shows the other conventions beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pointrend.core import subdivision_sizes
from pointrend.models.boxes import Regions
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.coarse import CoarseMaskHead
from pointrend.models.mask_heads.conv import ConvMaskHead
from pointrend.models.mask_heads.pointrend import PointRendMaskHead

CHANNELS, CLASSES = 256, 80
LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Cost:
    """What one box costs in a mask head."""

    name: str
    side: int
    """Of the square mask."""
    macs: int
    """Multiply-adds in all."""
    pooled: int
    """Numbers in the pooled features that the head starts from."""
    outputs: int
    """Numbers that convolutions and fully connected layers put out at a time: one round of points."""
    outputs_in_all: int
    """The same over all rounds."""

    @property
    def activations(self) -> int:
        """As the paper counts them."""
        return self.pooled + self.outputs


PAPER = {"4x conv 28": ("0.5", "0.5"), "4x conv 224": ("34", "33"), "PointRend 224": ("0.9", "0.7")}
"""Published multiply-adds in 10^9 and activations in 10^6."""


@contextmanager
def layer_outputs(module: nn.Module) -> Iterator[list[int]]:
    """Collects the number of elements that each layer puts out, call by call."""
    sizes: list[int] = []

    def note(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.numel())

    hooks = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, LAYERS)]
    try:
        yield sizes
    finally:
        for hook in hooks:
            hook.remove()


def in_place_product(total: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
    """Operations of ``addmm_``, which the fast point head uses; `FlopCounterMode` counts ``addmm`` alone."""
    return 2 * left[0] * left[1] * right[1]


def measure(module: nn.Module, run: Callable[[], object]) -> tuple[int, int]:
    """(multiply-adds, layer outputs) of one call of ``run``, which uses ``module``."""
    formulas = {torch.ops.aten.addmm_: in_place_product}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), counter, layer_outputs(module) as sizes:
        run()
    return counter.get_total_flops() // 2, sum(sizes)


def mask_head(name: str) -> CoarseMaskHead | ConvMaskHead:
    """The mask head of the whole model with this head and 80 classes, on the meta device."""
    config = InstanceConfig(tuple(map(str, range(CLASSES))), mask_head=name)  # type: ignore[arg-type]
    with torch.device("meta"):
        return InstanceSegmenter(config).mask_head


def conv_cost(side: int) -> Cost:
    """The 4x conv head with a mask of this side: RoIAlign to half of it, all classes predicted."""
    head = mask_head(f"conv{side}")
    pooled = torch.empty(1, CHANNELS, side // 2, side // 2, device="meta")
    macs, outputs = measure(head, lambda: head(pooled))
    return Cost("4x conv", side, macs, pooled.numel(), outputs, outputs)


def pointrend_cost() -> Cost:
    """PointRend's published head, all classes predicted at every point as in the original."""
    head = mask_head("pointrend")
    assert isinstance(head, PointRendMaskHead)
    config, sampled = head.config, 2 * head.config.coarse_size
    pooled = torch.empty(1, CHANNELS, sampled, sampled, device="meta")
    fine = torch.empty(1, CHANNELS, config.num_points, device="meta")
    coarse = torch.empty(1, CLASSES, config.num_points, device="meta")
    start = (config.start_size, config.start_size)
    rounds = 1 + len(subdivision_sizes(start, (config.mask_size, config.mask_size)))
    coarse_macs, coarse_outputs = measure(head, lambda: head.coarse_head(pooled))
    point_macs, point_outputs = measure(head, lambda: head.point_head(fine, coarse))
    return Cost(
        "PointRend",
        config.mask_size,
        coarse_macs + rounds * point_macs,
        pooled.numel(),
        coarse_outputs + point_outputs,
        coarse_outputs + rounds * point_outputs,
    )


def costs() -> list[Cost]:
    """The three rows of the paper's Table 2."""
    return [conv_cost(28), conv_cost(224), pointrend_cost()]


def macs_as_run(name: str) -> int:
    """Multiply-adds of ``predict`` for one box: only the box's class is computed at the last layer."""
    head = mask_head(name).to_empty(device="cpu")
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    features = {f"p{n}": torch.zeros(1, CHANNELS, 2 ** (8 - n), 2 ** (8 - n)) for n in (2, 3, 4, 5)}
    box = torch.tensor([[16.0, 16.0, 240.0, 240.0]])
    zero = torch.zeros(1, dtype=torch.int64)
    return measure(head, lambda: head.predict(features, Regions(box, zero, zero)))[0]


def rounded(value: float) -> str:
    """As the paper rounds: 0.53 -> "0.5", 33.87 -> "34"."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def main() -> None:
    print(
        "| head | mask | multiply-adds, G | activations, M | of layers only | in all rounds | multiply-adds as run |"
    )
    print("| --- | --- | --- | --- | ---: | ---: | ---: |")
    for cost, name in zip(costs(), ("conv28", "conv224", "pointrend"), strict=True):
        key = f"{cost.name} {cost.side}"
        columns = (
            *(
                f"{exact:.3f} ({paper})"
                for exact, paper in zip((cost.macs / 1e9, cost.activations / 1e6), PAPER[key], strict=True)
            ),
            *(
                f"{value:.3f}"
                for value in (cost.outputs / 1e6, cost.outputs_in_all / 1e6, macs_as_run(name) / 1e9)
            ),
        )
        print(f"| {cost.name} | {cost.side}x{cost.side} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
