"""Mask heads on one frozen network, persons of `ccp` in their true boxes: three studies of many heads side by side.

    python benchmarks/frozen_masks.py --data ../shared/data --study selection --seed 0 --out runs/masks

"selection": the four strategies of the paper's Table 4 with N = 7x7, 14x14, 28x28 training points. "head": depth and
width of the point head. "labels": masks against labelled points (PointSup), 4x conv and PointRend. All heads read the
feature maps of the bundled `photo-semantic`, which are computed once and kept in OUT, and see the same
images, boxes and number of updates; training boxes are moved and scaled by up to a tenth. Scores, mean IoU and
boundary IoU over the persons in percent, go to OUT/STUDY-SEED/scores.json; benchmarks/tables.py prints them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from runs import print_progress, training_parser, write_result
from torch import Tensor, nn
from true_boxes import overlap

import pointrend
from pointrend.core.selection import PointSampling
from pointrend.data.image_io import read_image
from pointrend.data.label_folders import Pair, SemanticFolder, read_pairs
from pointrend.evaluation.semantic_metrics import boundary_region
from pointrend.models.boxes import Regions
from pointrend.models.inputs import batch_images
from pointrend.models.mask_heads.base import MaskConfig, MaskHead
from pointrend.models.mask_heads.conv import ConvMaskHead
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.mask_heads.targets import MaskTargets, PointsInBoxes, TrueMasks
from pointrend.models.paste_masks import paste_masks
from pointrend.structures import InstanceMasks, LabelledPoints

LEVELS = ("p2", "p3", "p4", "p5")
STRIDE = 4
"""Of p2."""
WIDTHS = {"boundary IoU": 20, "boundary IoU 3 px": 3}
"""20 pixels are 0.02 of the images' diagonal, as in Boundary IoU."""
SMALL = MaskConfig(width=128, coarse_width=256)
POINTS = 20
"""Labelled points of each person; the runs with fewer take the first of them."""
STRATEGIES = {
    "grid": PointSampling.regular,
    "uniform": PointSampling.uniform,
    "mild": PointSampling.mildly_biased,
    "heavy": PointSampling.heavily_biased,
}


@dataclass(frozen=True)
class Plan:
    """A mask head and what it learns from."""

    head: type[MaskHead]
    config: MaskConfig = SMALL
    points: int = 0
    """Labelled points of each person; 0: its mask."""
    drawn: int = 0
    """How many of these are drawn in each update; 0: all."""


STUDIES = {
    "selection": {
        f"{name}, N={side}x{side}": Plan(PointRendMaskHead, replace(SMALL, sampling=choose(side**2)))
        for side in (7, 14, 28)
        for name, choose in STRATEGIES.items()
    },
    "head": {
        f"depth {depth}, width {width}": Plan(
            PointRendMaskHead, replace(SMALL, depth=depth, point_width=width)
        )
        for depth, width in ((1, 128), (2, 128), (3, 128), (5, 128), (3, 32), (3, 64), (3, 256))
    },
    "labels": {
        f"{name}, {label}": Plan(head, points=points, drawn=drawn)
        for name, head in (("conv28", ConvMaskHead), ("pointrend", PointRendMaskHead))
        for label, points, drawn in (
            ("masks", 0, 0),
            ("1 point", 1, 0),
            ("5 points", 5, 0),
            ("10 points", 10, 0),
            ("10 points, 5 drawn", 10, 5),
            ("20 points", 20, 0),
        )
    },
}


@dataclass(frozen=True)
class Person:
    """One image: its feature maps and the person in it."""

    maps: dict[str, Tensor]
    """(1, C, H, W) float16 by level."""
    mask: InstanceMasks
    """One mask."""
    box: Tensor
    """(4,) the mask's tight box."""
    points: LabelledPoints


def people(data: Path, part: str, limit: int, out: Path) -> list[Person]:
    """The first images of a part of `ccp`, without those where less than 32x32 pixels are labelled."""
    kept = out / f"{part}-{limit}.pt"
    if not kept.is_file():
        torch.save(feature_maps(read_pairs(data / "ccp" / f"{part}.txt")[:limit]), kept)
    maps = torch.load(kept, mmap=True, weights_only=True)
    drawing = torch.Generator().manual_seed(12345)
    samples = SemanticFolder.from_list(data / "ccp" / f"{part}.txt")
    found = []
    for number, own in enumerate(maps):
        labels = samples[number].target.labels
        masks = InstanceMasks.from_dense((labels != 0)[None])
        rows, columns = masks.windows[0].shape
        if rows < 32 or columns < 32:
            continue
        left, top = masks.offsets[0].tolist()
        box = torch.tensor([left, top, left + columns, top + rows], dtype=torch.float32)
        places = (box[:2] + torch.rand(POINTS, 2, generator=drawing) * (box[2:] - box[:2])).long()
        labelled = (labels[places[:, 1], places[:, 0]] != 0).float()
        points = LabelledPoints(places[None] + 0.5, labelled[None])
        found.append(Person(own, masks, box, points))
    return found


@torch.inference_mode()
def feature_maps(pairs: Sequence[Pair]) -> list[dict[str, Tensor]]:
    """(1, C, H, W) float16 by level, of images at their own size."""
    model = pointrend.load("photo-semantic")
    found = []
    for image, _ in pairs:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = model.features(batch_images([read_image(image)], model.config.preprocessing).tensor)
        found.append({level: maps[level].half().clone() for level in LEVELS})
    return found


def batch(persons: Sequence[Person]) -> dict[str, Tensor]:
    """Maps (B, C, H, W) float32 by level, with zeros where an image is smaller than others."""
    sizes = {level: torch.tensor([one.maps[level].shape[2:] for one in persons]).amax(0) for level in LEVELS}
    joined = {}
    for level, size in sizes.items():
        rests = [(size - torch.tensor(one.maps[level].shape[2:])).tolist() for one in persons]
        padded = [
            nn.functional.pad(one.maps[level], (0, rest[1], 0, rest[0]))
            for one, rest in zip(persons, rests, strict=True)
        ]
        joined[level] = torch.cat(padded).float()
    return joined


def regions(boxes: Sequence[Tensor]) -> Regions:
    """One box in each image."""
    return Regions.from_lists(
        [box[None] for box in boxes], [torch.zeros(1, dtype=torch.int64) for _ in boxes]
    )


def moved(box: Tensor, generator: torch.Generator) -> Tensor:
    """The box with each side moved by up to a tenth of its size, either way."""
    size = (box[2:] - box[:2]).repeat(2)
    return box + (torch.rand(4, generator=generator) - 0.5) * 0.2 * size


def loss(
    plan: Plan, head: MaskHead, maps: dict[str, Tensor], persons: Sequence[Person], where: Regions, seed: int
) -> Tensor:
    """Sum of a head's losses; random points are the same for all heads that draw as many."""
    own, drawing = torch.zeros(len(where), dtype=torch.int64), torch.Generator().manual_seed(seed)
    targets: MaskTargets = TrueMasks(where, own, [one.mask for one in persons])
    if plan.points:
        labelled = []
        for one in persons:
            chosen = torch.randperm(plan.points, generator=drawing)[: plan.drawn or None]
            labelled.append(LabelledPoints(one.points.coords[:, chosen], one.points.labels[:, chosen]))
        targets = PointsInBoxes.of(labelled, where, own)
    return torch.stack(list(head.loss(maps, targets, generator=drawing).values())).sum()


def train(
    plans: dict[str, Plan], heads: nn.ModuleList, persons: Sequence[Person], arguments: argparse.Namespace
) -> None:
    """All heads on the same images and boxes, each with its own loss and gradient."""
    optimizer = torch.optim.AdamW(heads.parameters(), lr=arguments.lr, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.lr, total_steps=arguments.steps, pct_start=0.05
    )
    drawing = torch.Generator().manual_seed(arguments.seed)
    for step in range(arguments.steps):
        order = torch.randperm(len(persons), generator=drawing)[: arguments.batch].tolist()
        chosen = [persons[number] for number in order]
        where = regions([moved(one.box, drawing) for one in chosen])
        maps, losses = batch(chosen), {}
        optimizer.zero_grad()
        for (name, plan), head in zip(plans.items(), heads, strict=True):
            found = loss(plan, head, maps, chosen, where, arguments.seed * arguments.steps + step)
            found.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 5.0)
            losses[name] = found.item()
        optimizer.step()
        rate.step()
        print_progress(step, losses)


@torch.inference_mode()
def score(
    names: Sequence[str], heads: nn.ModuleList, persons: Sequence[Person]
) -> dict[str, dict[str, float]]:
    """Means over the persons in percent, by head."""
    totals = {name: {"mask IoU": 0.0, **dict.fromkeys(WIDTHS, 0.0)} for name in names}
    for one in persons:
        maps, where, truth = batch([one]), regions([one.box]), one.mask.full(0)
        margin = max(WIDTHS.values()) + 1
        left, top = (max(0, int(value) - margin) for value in one.box[:2])
        right, bottom = (int(value) + margin for value in one.box[2:])
        cut = (slice(top, bottom), slice(left, right))  # nothing of either mask lies within a width of a cut
        for name, head in zip(names, heads, strict=True):
            logits = head.predict(maps, where)
            mask = paste_masks(logits.sigmoid(), where.boxes, one.mask.image_size).full(0)
            totals[name]["mask IoU"] += overlap(mask, truth)
            for way, width in WIDTHS.items():
                edges = [found[cut] & boundary_region(found[cut].short(), width) for found in (mask, truth)]
                totals[name][way] += overlap(*edges)
    return {
        name: {way: round(100 * total / len(persons), 3) for way, total in found.items()}
        for name, found in totals.items()
    }


def main() -> None:
    parser = training_parser(__doc__, data="ccp/", steps=150, batch=8, lr=1e-3)
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--images", type=int, default=100, help="to train on")
    parser.add_argument("--held-out", type=int, default=108, help="images to score on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)

    training = people(arguments.data, "train", arguments.images, arguments.out)
    held_out = people(arguments.data, "val", arguments.held_out, arguments.out)
    maps = training[0].maps
    channels = {level: maps[level].shape[1] for level in LEVELS}
    strides = {level: STRIDE * maps["p2"].shape[2] // maps[level].shape[2] for level in LEVELS}
    plans, heads = STUDIES[arguments.study], nn.ModuleList()
    for plan in plans.values():
        torch.manual_seed(arguments.seed)
        heads.append(plan.head(channels, strides, 1, plan.config))
    started = time.time()
    train(plans, heads, training, arguments)
    seconds = time.time() - started
    arguments.out /= f"{arguments.study}-{arguments.seed}"
    arguments.out.mkdir(exist_ok=True)
    write_result(score(list(plans), heads.eval(), held_out), seconds, arguments)


if __name__ == "__main__":
    main()
