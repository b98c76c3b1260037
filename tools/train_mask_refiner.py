"""Train the bundled mask refiner on people's clothing: 58 kinds of things with outlines true to the pixel.

    python -m tools.train_mask_refiner --data ../shared/data --out runs/refiner-0

Each sample is a label of `ccp`, or several, or the whole person, made worse as tools do it; the refiner learns to undo
that, and to leave a mask alone that was not made worse.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from pointrend.checkpoints.mask_refiner import load_refiner, save_refiner
from pointrend.cli.console import training
from pointrend.data.coco import CocoInstances
from pointrend.data.label_folders import SemanticFolder
from pointrend.data.transforms import (
    ColorJitter,
    Compose,
    RandomCrop,
    RandomFlip,
    RandomScale,
    happens,
    integer,
    uniform,
)
from pointrend.evaluation.semantic_metrics import BoundaryIoU, MeanIoU
from pointrend.masks.polygons import fill, mask_polygons
from pointrend.models.inputs import batch_images
from pointrend.models.mask_refiner import PIXELS, MaskPair, MaskRefiner, MaskRefinerConfig, guided_filter
from pointrend.structures import IGNORE_LABEL, Sample
from pointrend.training.data_loading import TrainingLoader
from pointrend.training.loop import train as run_training
from pointrend.training.recipe import Recipe

CROP = 256


def moved(mask: Tensor, pixels: float) -> Tensor:
    """Shifted into a random direction by up to so many pixels."""
    rows, columns = (round(uniform(-pixels, pixels)) for _ in range(2))
    return F.pad(mask[None], (columns, -columns, rows, -rows), mode="constant")[0]


def grown(mask: Tensor, pixels: int) -> Tensor:
    """Dilated, or with a negative number eroded."""
    if pixels < 0:
        return 1 - grown(1 - mask, -pixels)
    window = 2 * pixels + 1
    rows = F.max_pool2d(mask[None, None], (window, 1), 1, (pixels, 0))
    return F.max_pool2d(rows, (1, window), 1, (0, pixels))[0, 0]


def in_cells(mask: Tensor, cell: int) -> Tensor:
    """Averaged over cells of so many pixels, and interpolated again: probabilities, as of a coarse network."""
    height, width = mask.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = F.pad(mask[None, None], (0, columns * cell - width, 0, rows * cell - height), mode="replicate")
    small = F.avg_pool2d(padded, cell)
    return F.interpolate(small, scale_factor=cell, mode="bilinear")[0, 0, :height, :width]


def with_few_corners(mask: Tensor, tolerance: float) -> Tensor:
    """As a labeller's polygons, no corner left out farther than so many pixels from its edge."""
    if not mask.any():
        return mask
    window, (left, top) = fill(mask_polygons(mask > 0.5, (0, 0), tolerance), tuple(mask.shape))  # type: ignore[arg-type]
    found = torch.zeros_like(mask)
    found[top : top + window.shape[0], left : left + window.shape[1]] = window.float()
    return found


def warped(mask: Tensor, pixels: float, cell: int = 48) -> Tensor:
    """Outlines that wander by about so many pixels: a careless hand."""
    height, width = mask.shape
    offsets = torch.randn(1, 2, height // cell + 2, width // cell + 2) * pixels
    offsets = F.interpolate(offsets, size=(height, width), mode="bicubic")[0]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack(
        [(x + offsets[0] + 0.5) * 2 / width - 1, (y + offsets[1] + 0.5) * 2 / height - 1], dim=-1
    )
    return F.grid_sample(
        mask[None, None], grid[None], mode="nearest", padding_mode="border", align_corners=False
    )[0, 0]


def with_spots(mask: Tensor, count: int, radius: float) -> Tensor:
    """With holes and islands near the outline."""
    near = (grown(mask, 24) - grown(mask, -24)).nonzero()
    if not len(near):
        return mask
    y, x = torch.meshgrid(torch.arange(mask.shape[0]), torch.arange(mask.shape[1]), indexing="ij")
    for _ in range(count):
        row, column = near[integer(len(near))].tolist()
        across, along = (uniform(2, radius) for _ in range(2))
        spot = ((x - column) / across) ** 2 + ((y - row) / along) ** 2 < 1
        mask = torch.where(spot, 1 - mask[row, column], mask)
    return mask


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "true": lambda mask: mask,
    "cells of 8": lambda mask: in_cells(mask, 8),
    "cells of 16": lambda mask: in_cells(mask, 16),
    "shifted": lambda mask: moved(mask, 6),
    "dilated": lambda mask: grown(mask, 4),
    "eroded": lambda mask: grown(mask, -4),
    "few corners": lambda mask: with_few_corners(mask, 5),
    "careless": lambda mask: warped(mask, 3),
    "spots": lambda mask: with_spots(mask, 6, 10),
}
"""What is measured: each kind of error by itself, moderately."""


def made_worse(mask: Tensor) -> Tensor:
    """A mask (H, W) of 0 and 1 with random errors, as probabilities; one of five as it was."""
    if happens(0.2):
        return mask
    mask = mask.float()
    if happens(0.3):
        mask = with_few_corners(mask, uniform(2, 10))
    if happens(0.35):
        mask = warped(mask, uniform(1, 5), (24, 48, 96)[integer(3)])
    if happens(0.3):
        mask = moved(mask, 8)
    if happens(0.4):
        mask = grown(mask, (integer(8) + 1) * (1 if happens(0.5) else -1))
    if happens(0.3):
        mask = with_spots(mask, 1 + integer(6), uniform(3, 16))
    if happens(0.45):
        mask = in_cells(mask, (4, 8, 8, 16, 16, 24)[integer(6)])
        if happens(0.3):
            mask = (mask > 0.5).float()
    return mask


class WorseMasks(Dataset[Sample]):
    """Crops of photographs with a mask and its worse version."""

    def __init__(self, data: SemanticFolder) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[index]
        labels = sample.target.labels
        mask = chosen(labels)
        truth = mask.to(torch.uint8)
        truth[labels == IGNORE_LABEL] = IGNORE_LABEL
        return replace(sample, target=MaskPair(truth, made_worse(mask.float())))


def chosen(labels: Tensor) -> Tensor:
    """A random object of a label map: the person, one label, or some together."""
    counts = torch.bincount(labels.flatten().long(), minlength=256)
    present = [label for label in range(1, IGNORE_LABEL) if counts[label] >= 200]
    if not present or happens(0.3):
        return (labels != 0) & (labels != IGNORE_LABEL)
    if happens(0.5):
        return labels == present[integer(len(present))]
    some = [label for label in present if happens(0.5)] or present[:1]
    return torch.isin(labels, torch.tensor(some, dtype=labels.dtype))


def objects(data: Path, name: str, images: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Some images of a set's validation part, evenly spread, with masks of 1,000 pixels and more.

    Of `ccp` the person and its three largest labels, of `camvid` the four largest labels, of others every object.
    """
    if name in ("ccp", "camvid"):
        folder = SemanticFolder.from_list(data / name / "val.txt")
        for index in range(0, len(folder), -(-len(folder) // images)):
            sample = folder[index]
            labels = sample.target.labels
            counts = torch.bincount(labels.flatten().long(), minlength=256)
            if name == "camvid":
                counts[11] = 0  # void
            else:
                counts[0] = 0
            present = counts.argsort(descending=True)[: 4 if name == "camvid" else 3].tolist()
            masks = [labels == label for label in present if counts[label] >= 1000]
            yield sample.image, masks if name == "camvid" else [labels != 0, *masks]
    else:
        things = CocoInstances(data / name / "val", data / name / "instances_val.json")
        for index in range(len(things))[:images]:
            sample = things[index]
            yield sample.image, [mask for mask in sample.target.masks if int(mask.sum()) >= 1000]


def matted(image: Tensor, mask: Tensor) -> Tensor:
    """Closed-form matting (Levin, Lischinski, Weiss, PAMI 2008) within 10 pixels of the outline, by pymatting."""
    from pymatting import estimate_alpha_cf

    trimap = (grown((mask > 0.5).float(), 10) + grown((mask > 0.5).float(), -10)) / 2
    rows, columns = ((trimap > 0).any(axis).nonzero()[:, 0] for axis in (1, 0))
    window = tuple(
        slice(max(int(n[0]) - 16, 0), int(n[-1]) + 17) if len(n) else slice(None) for n in (rows, columns)
    )
    if not {0.0, 1.0} <= set(trimap[window].unique().tolist()):  # nothing is certain
        return mask > 0.5
    result = trimap > 0.5
    pixels = image[(slice(None), *window)].permute(1, 2, 0).double() / 255
    result[window] = (
        torch.from_numpy(estimate_alpha_cf(pixels.numpy(), trimap[window].double().numpy())) > 0.5
    )
    return result


def dense_crf(image: Tensor, mask: Tensor) -> Tensor:
    """Fully connected CRF (Kraehenbuehl, Koltun, NIPS 2011) by pydensecrf, with the numbers of its own example."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    height, width = mask.shape
    inside = mask.clamp(0.05, 0.95)  # as sure as a mask that may be wrong can be
    field = DenseCRF2D(width, height, 2)
    field.setUnaryEnergy(unary_from_softmax(torch.stack([1 - inside, inside]).numpy()))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image.permute(1, 2, 0).contiguous().numpy(), compat=10)
    return torch.from_numpy(np.array(field.inference(5))).view(2, height, width).argmax(0) > 0


OTHER_LIBRARIES = {"pymatting": ("matting", matted), "pydensecrf": ("dense CRF", dense_crf)}
"""Compared where they are installed."""
METHODS = (
    "interpolated",
    "guided filter",
    *(name for module, (name, _) in OTHER_LIBRARIES.items() if find_spec(module)),
    "refiner",
)


def score(refiner: MaskRefiner, data: Path, name: str, images: int) -> dict[str, Any]:
    """IoU and boundary IoU (3 and 10 px) by kind of error and method, in percent; seconds a mask by method."""
    refiner.eval()
    torch.manual_seed(0)
    counted: dict[tuple[str, str], list[Any]] = {
        (kind, method): [MeanIoU(2), BoundaryIoU(2, width=3), BoundaryIoU(2, width=10)]
        for kind in KINDS
        for method in METHODS
    }
    seconds = dict.fromkeys(METHODS, 0.0)
    changed = band_pixels = masks_seen = 0
    for image, masks in objects(data, name, images):
        pixels = batch_images([image], replace(PIXELS, divisor=1)).tensor
        for mask in masks:
            masks_seen += 1
            for kind, make_worse in KINDS.items():
                given = make_worse(mask.float())
                for method in METHODS:
                    started = time.process_time()
                    result: Tensor
                    if method == "interpolated":
                        result = given > 0.5
                    elif method == "guided filter":
                        result = guided_filter(pixels, given[None, None], 8, shrink=1)[0, 0] > 0.5
                    elif method == "refiner":
                        result = refiner.logits(image, given) > 0
                    else:
                        result = dict(OTHER_LIBRARIES.values())[method](image, given)
                    seconds[method] += time.process_time() - started
                    for evaluator in counted[kind, method]:
                        evaluator.update(result.int(), mask.int())
                    if kind == "true" and method == "refiner":
                        band = (grown(mask.float(), 10) - grown(mask.float(), -10)) > 0
                        changed += int((result != mask)[band].sum())
                        band_pixels += int(band.sum())
    table = {
        kind: {
            method: [round(100 * next(iter(e.per_class().values()))[1], 2) for e in counted[kind, method]]
            for method in METHODS
        }
        for kind in KINDS
    }
    worse = [kind for kind in KINDS if kind != "true"]
    table["mean of all but true"] = {
        method: [round(sum(table[kind][method][n] for kind in worse) / len(worse), 2) for n in range(3)]
        for method in METHODS
    }
    return {
        "IoU, boundary IoU at 3 px, at 10 px": table,
        "changed of a true mask's band, %": round(100 * changed / max(1, band_pixels), 3),
        "CPU seconds a mask": {m: round(s / max(1, masks_seen) / len(KINDS), 3) for m, s in seconds.items()},
        "masks": masks_seen,
    }


def recipe(steps: int, seed: int) -> Recipe:
    return Recipe(
        steps=steps,
        batch_size=8,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.01,
        warmup_steps=min(50, steps // 5),
        clip_gradient=5.0,
        precision="bfloat16",
        average=0.99,
        log_every=10,
        state_every=250,
        seed=seed,
    )


def provenance(command: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says about itself."""
    return {
        "name": "mask-refiner",
        "licence": "Apache-2.0 for the weights as such; the data's terms are named under data",
        "data": "753 photographs of Clothing Co-Parsing (bearpaw/clothing-co-parsing, Apache-2.0 by its repository; "
        "they show people, and their photographers' rights are not stated)",
        "command": command,
        "scores": scores,
        "torch": torch.__version__,
    }


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with ccp/, and to score on with fruits_nuts/ and camvid/, too",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", type=Path, help="score this refiner, and train nothing")
    parser.add_argument("--limit", type=int, help="images to train on, for a trial")
    parser.add_argument("--images", type=int, default=6, help="images of each set to score on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that read images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.score is None:
        torch.manual_seed(options.seed)
        refiner = MaskRefiner(MaskRefinerConfig())
        steps = [RandomScale(0.6, 1.75), RandomCrop(CROP, CROP), RandomFlip(), ColorJitter()]
        folder = SemanticFolder.from_list(options.data / "ccp" / "train.txt", transforms=Compose(steps))
        folder.pairs = folder.pairs[: options.limit]
        settings = recipe(options.steps, options.seed)
        loader = TrainingLoader(WorseMasks(folder), settings, workers=options.workers)
        with training(settings.steps) as report:
            run_training(refiner, loader, settings, out=options.out, report=report, device="cpu", resume=True)
    else:
        refiner = load_refiner(options.score)
    sets = [name for name in ("ccp", "fruits_nuts", "camvid") if (options.data / name).is_dir()]
    scores = {name: score(refiner, options.data, name, options.images) for name in sets}
    print(json.dumps(scores, indent=1))
    if options.score is None:
        command = "python -m tools.train_mask_refiner --data DATA --out OUT"
        command += f" --steps {options.steps} --seed {options.seed}"
        save_refiner(
            copy.deepcopy(refiner).half(),
            options.out / "mask-refiner.safetensors",
            extra=provenance(command, scores),
        )


if __name__ == "__main__":
    main()
