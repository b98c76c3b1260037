"""Multiply-adds of every published model, for one image.

    python benchmarks/zoo_flops.py
    python benchmarks/zoo_flops.py --detections 20

Models are built and run on the meta device (shapes without numbers) under torch's `FlopCounterMode`, and what it
counts is halved: Detectron2's "FLOPs" are multiply-adds as well. Convolutions and matrix products are counted;
interpolation, sampling, pooling, norms, NMS and ranking are not.

A number needs an image's size and, for instances, how many boxes there are: 1000 proposals go through the box
head, and so many detections (100, the most that a model keeps) get a mask. The point head is counted as its
authors run it: sampled features through every layer, all classes at every point. `predict` does less (the class of
the box alone, and first layers on the maps where that is less work): benchmarks/flops.py, docs/performance.md.

Detectron2's averages over 100 validation images, from its model pages: 464 G for
pointrend_rcnn_R_50_FPN_1x_cityscapes and 300 G for pointrend_rcnn_R_101_FPN_3x_coco. They depend on those
images' sizes and on how much was found in each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pointrend.checkpoints.native import build
from pointrend.core import subdivision_sizes
from pointrend.models.inputs import ImageBatch
from pointrend.models.instance import PROPOSED, InstanceSegmenter
from pointrend.models.mask_heads.implicit import FREQUENCIES, ImplicitMaskHead
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.semantic import SemanticSegmenter
from pointrend.zoo import ZOO, Entry
from pointrend.zoo.entries import COUNTED_SIZES

PROPOSALS = 1000
SIZES = COUNTED_SIZES
"""Of the network's input, without padding. COCO: 427x640 images; ADE20K: 4:3 ones."""
PUBLISHED = {"pointrend_rcnn_R_50_FPN_1x_cityscapes": 464, "pointrend_rcnn_R_101_FPN_3x_coco": 300}
"""10^9, averages over 100 inputs on Detectron2's model pages."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one image, by part."""

    name: str
    size: tuple[int, int]
    trunk: int
    """Backbone, pyramid, and the coarse semantic head."""
    boxes: int
    """Proposals and box head; 0 for semantic models."""
    masks: int
    """Coarse masks (or, for Implicit PointRend, predicted weights) and points."""

    @property
    def total(self) -> int:
        return self.trunk + self.boxes + self.masks


def macs(run: Callable[[], object]) -> int:
    """Multiply-adds of one call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def cost(entry: Entry, size: tuple[int, int] | None = None, detections: int = 100) -> Cost:
    """What one image costs. size: of the network's input; its data set's in SIZES if not given."""
    size = size or SIZES[entry.data]
    with torch.device("meta"):
        model = build(entry.config()).eval()
        batch = blank(size, model.config.preprocessing.divisor)
        if isinstance(model, InstanceSegmenter):
            return _instance_cost(entry.name, model, batch, detections)
        assert isinstance(model, SemanticSegmenter)
        return _semantic_cost(entry.name, model, batch)


def blank(size: tuple[int, int], divisor: int) -> ImageBatch:
    """An image without numbers, padded."""
    rows, columns = (-(-edge // divisor) * divisor for edge in size)
    return ImageBatch(torch.empty(1, 3, rows, columns, device="meta"), [size])


def _instance_cost(name: str, model: InstanceSegmenter, batch: ImageBatch, detections: int) -> Cost:
    features: dict[str, Tensor] = {}
    trunk = macs(lambda: features.update(model.features(batch)))
    channels, pool = model.config.fpn_channels, model.box_head.pool_size
    pooled = torch.empty(PROPOSALS, channels, pool, pool)
    boxes = macs(lambda: model.rpn([features[level] for level in PROPOSED]))
    boxes += macs(lambda: model.box_head(pooled))
    return Cost(name, batch.sizes[0], trunk, boxes, detections * mask_macs(model))


def mask_macs(model: InstanceSegmenter) -> int:
    """Multiply-adds of the mask of one box."""
    head, config, channels = model.mask_head, model.config.masks, model.config.fpn_channels
    sampled = torch.empty(1, channels, 2 * config.coarse_size, 2 * config.coarse_size)
    rounds = 1 + len(subdivision_sizes((config.start_size,) * 2, (config.mask_size,) * 2))
    fine = torch.empty(1, channels, config.num_points)
    if isinstance(head, ImplicitMaskHead):
        a_point = 2 * FREQUENCIES + sum(after * before for after, before in head.point_head.shapes)
        return macs(lambda: head.parameter_head(sampled)) + rounds * config.num_points * a_point
    assert isinstance(head, PointRendMaskHead)
    coarse = torch.empty(1, head.masks, config.num_points)
    return macs(lambda: head.coarse_head(sampled)) + rounds * macs(lambda: head.point_head(fine, coarse))


def _semantic_cost(name: str, model: SemanticSegmenter, batch: ImageBatch) -> Cost:
    features: dict[str, Tensor] = {}
    coarse: list[Tensor] = []
    trunk = macs(lambda: features.update(model.features(batch.tensor)))
    trunk += macs(lambda: coarse.append(model.coarse(features)))
    rend, settings = model.point_rend, model.config.point_rend
    assert rend is not None
    assert settings is not None
    rows, columns = coarse[0].shape[-2:]
    sizes = [(rows * 2**step, columns * 2**step) for step in range(1, (settings.subdivision_steps or 0) + 1)]
    points = sum(min(settings.num_points, height * width) for height, width in sizes)
    fine = torch.empty(1, sum(features[name].shape[1] for name in settings.features), points)
    every = torch.empty(1, coarse[0].shape[1], points)
    return Cost(name, batch.sizes[0], trunk, 0, macs(lambda: rend.head(fine, every)))


def table(costs: Sequence[Cost]) -> str:
    """Markdown, in 10^9 multiply-adds."""
    lines = ["| model | input | trunk | boxes | masks | in all | published average |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for one in costs:
        numbers = (one.trunk, one.boxes, one.masks, one.total)
        published = PUBLISHED.get(one.name)
        lines.append(
            f"| `{one.name}` | {one.size[0]}x{one.size[1]} | "
            + " | ".join(f"{number / 1e9:.1f}" for number in numbers)
            + f" | {published or ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--detections", type=int, default=100, help="boxes that get a mask")
    wanted = parser.parse_args().detections
    print(f"10^9 multiply-adds for an image, {PROPOSALS} proposals, {wanted} detections\n")
    print(table([cost(entry, detections=wanted) for entry in ZOO.values()]))


if __name__ == "__main__":
    main()
