"""Mask heads on the true boxes of real objects: how good masks are where no detector stands in the way.

    python benchmarks/true_boxes.py --data ../shared/data --set person --runs runs/person-conv28-0 ..

For every object of the validation images the mask branch of each model (model.safetensors in the folder of a run of
benchmarks/instances.py) draws a mask in the object's own box: mean mask IoU and mean Boundary IoU (dilation ratio
0.02), by the object's size. With --image the largest objects are drawn: the truth, then each model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from instances import SETS
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from pointrend.checkpoints.native import load
from pointrend.data.coco import CocoInstances
from pointrend.evaluation.semantic_metrics import boundary_region, boundary_width
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.paste_masks import paste_masks

SIZES = {"all": 0, "large": 96, "200 px and above": 200}
"""Smallest square root of the area."""


@dataclass(frozen=True)
class Drawn:
    """One object and what a model drew."""

    side: float
    """Square root of the area in pixels."""
    iou: float
    boundary_iou: float
    image: int
    box: Tensor
    truth: Tensor
    mask: Tensor
    """(H, W) bool, like the truth."""


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def boundary(mask: Tensor) -> Tensor:
    return mask & boundary_region(mask.long(), boundary_width(*mask.shape))


@torch.no_grad()
def draw(model: InstanceSegmenter, data: CocoInstances) -> Iterator[Drawn]:
    """Every object that is not a crowd region, in order."""
    for number in range(len(data)):
        sample = data[number]
        target = sample.target
        keep = (~target.crowd).nonzero().flatten()
        if not len(keep):
            continue
        boxes, labels = target.boxes[keep].float(), target.labels[keep]
        batch = model.prepare([sample.image])
        (rows, columns), original = batch.sizes[0], sample.image.shape[1:]
        scale = boxes.new_tensor([columns / original[1], rows / original[0]]).repeat(2)
        logits = model.masks_for_boxes(model.features(batch), [boxes * scale], [labels])[0]
        masks = paste_masks(logits.sigmoid(), boxes, (original[0], original[1])).dense().bool()
        truths = target.masks[keep].dense().bool()
        for box, truth, mask in zip(boxes, truths, masks, strict=True):
            yield Drawn(
                float(truth.sum()) ** 0.5,
                overlap(truth, mask),
                overlap(boundary(truth), boundary(mask)),
                number,
                box,
                truth,
                mask,
            )


def sheet(found: list[list[Drawn]], data: CocoInstances, count: int, side: int = 240) -> Tensor:
    """(3, H, W) uint8: a row for each of the largest objects; the truth, then each model."""
    order = sorted(range(len(found[0])), key=lambda number: -found[0][number].side)[:count]
    rows = []
    for number in order:
        first = found[0][number]
        image = data[first.image].image
        left, top, right, bottom = (int(value) for value in first.box)
        tiles = []
        for mask in (first.truth, *(model[number].mask for model in found)):
            painted = draw_segmentation_masks(image, mask, alpha=0.55, colors="orange")
            tile = painted[:, top : bottom + 1, left : right + 1].float()[None]
            tile = torch.nn.functional.interpolate(tile, size=(side, side), mode="bilinear")
            tiles.append(torch.nn.functional.pad(tile[0].round().byte(), (2, 2, 2, 2), value=255))
        rows.append(torch.cat(tiles, 2))
    return torch.cat(rows, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds coco_mini/ and fruits_nuts/"
    )
    parser.add_argument("--set", choices=SETS, default="person")
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image", type=Path, help="PNG of the largest objects to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, categories = SETS[arguments.set]
    root = arguments.data / folder
    data = CocoInstances(root / "val", root / "instances_val.json", categories=categories)
    print("| run | objects | number | mask IoU | boundary IoU |\n| --- | --- | ---: | ---: | ---: |")
    models = []
    for run in arguments.runs:
        model = load(run / "model.safetensors")
        if not isinstance(model, InstanceSegmenter) or len(model.config.class_names) != len(data.class_names):
            raise SystemExit(f"{run}: not a model of instances of these classes: {data.class_names}")
        found = list(draw(model.eval(), data))
        models.append(found)
        for name, least in SIZES.items():
            some = [one for one in found if one.side >= least]
            iou = sum(one.iou for one in some) / max(1, len(some))
            edge = sum(one.boundary_iou for one in some) / max(1, len(some))
            print(f"| {run.name} | {name} | {len(some)} | {100 * iou:.2f} | {100 * edge:.2f} |", flush=True)
    if arguments.image:
        from torchvision.io import write_png

        write_png(sheet(models, data, 8), str(arguments.image))


if __name__ == "__main__":
    main()
