"""How PointRend's cost grows: with the output resolution, the boxes, the classes and the image.

    python benchmarks/growth.py --threads 2 --plot docs/images/growth.png

Only PointRend's own part is run, on random weights and features: for masks ``mask_head.predict`` (coarse head, 28x28
start, subdivision with N = 784) on p2 of an 800x1088 image, for whole images coarse logits to labels (19 classes,
8192 points a step, coarse logits at stride 4). Medians of seconds, the number of points predicted beside the paper's
N log2(M / M0), and the peak memory above rest of one call, read from the kernel (Linux).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import alternate, peak_above_rest

from pointrend.core import PointRend
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.pointrend import PointRendMaskHead

SIDES = (28, 56, 112, 224, 448, 896, 1792)
BOXES = (1, 3, 10, 30, 100, 300, 1000)
CLASSES = (1, 20, 80, 365, 1203)
AXES = ("resolution", "boxes", "classes", "image", "image, 150 classes")
IMAGES = ((512, 640), (1024, 1024), (1024, 2048), (2048, 4096), (4096, 8192))


@dataclass(frozen=True)
class Cost:
    """One measured point of a curve."""

    at: float
    """Where on its axis."""
    name: str
    points: int
    """Predicted in all."""
    cells: int
    """Of the finest grid."""
    seconds: float
    peak: int
    """Bytes above rest."""


def measure(call: Callable[[], Any], repeats: int) -> tuple[float, int]:
    """Median seconds of a call after one to warm up, and the peak of another."""
    call()
    times = alternate({"call": call}, repeats)["call"]
    return statistics.median(times), peak_above_rest(call)


@torch.no_grad()
def masks(boxes: int, classes: int, side: int, repeats: int) -> tuple[int, float, int]:
    """Points predicted for each box, seconds and peak of rendering masks of so many cells a side."""
    torch.manual_seed(0)
    head = PointRendMaskHead({"p2": 256}, {"p2": 4}, classes, MaskConfig(mask_size=side)).eval()
    corner = torch.rand(boxes, 2) * torch.tensor([800.0, 500])
    where = torch.cat((corner, corner + torch.rand(boxes, 2) * 250 + 20), 1)
    regions = Regions.from_lists([where], [torch.randint(0, classes, (boxes,))])
    features = {"p2": torch.randn(1, 256, 200, 272)}
    points = head.config.start_size**2 + sum(min(head.config.num_points, h * w) for h, w in head.sizes)
    return points, *measure(lambda: head.predict(features, regions), repeats)


@torch.no_grad()
def make_image(size: tuple[int, int], classes: int, repeats: int) -> tuple[int, float, int]:
    """Points predicted, seconds and peak from coarse logits to the labels of a whole image."""
    torch.manual_seed(0)
    rows, columns = size[0] // 4, size[1] // 4
    blobs = torch.randn(1, classes, max(2, rows // 30), max(2, columns // 30))
    coarse = F.interpolate(blobs, size=(rows, columns), mode="bicubic").mul_(4)
    fine = torch.randn(1, rows, columns, 256).permute(0, 3, 1, 2)  # channels-last
    module = PointRend(256, classes, residual=False).eval()
    return 2 * module.num_points, *measure(lambda: module.render(coarse, fine, size)[0].label_map(), repeats)


def curves(axes: Sequence[str], repeats: int) -> dict[str, list[Cost]]:
    """The chosen axes, each from one end to the other; printed as it comes."""
    found: dict[str, list[Cost]] = {axis: [] for axis in axes}

    def add(axis: str, cost: Cost) -> None:
        found[axis].append(cost)
        print(
            f"| {axis} | {cost.name} | {cost.points:,} | {cost.points / cost.cells:.4f} | {cost.seconds:.3f} "
            f"| {cost.peak / 2**20:.0f} |",
            flush=True,
        )

    print("| axis | at | points | of all cells | seconds | peak MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for side in SIDES if "resolution" in axes else ():
        points, *cost = masks(10, 80, side, repeats)
        paper = round(784 * log2(side / 28))
        add("resolution", Cost(side, f"{side} (paper: 784 + {paper:,})", points, side**2, *cost))
    for boxes in BOXES if "boxes" in axes else ():
        points, *cost = masks(boxes, 80, 224, 1 if boxes > 100 else repeats)
        add("boxes", Cost(boxes, str(boxes), points * boxes, 224**2 * boxes, *cost))
    for classes in CLASSES if "classes" in axes else ():
        points, *cost = masks(10, classes, 224, repeats)
        add("classes", Cost(classes, str(classes), points * 10, 224**2 * 10, *cost))
    for axis, classes, sizes in (("image", 19, IMAGES), ("image, 150 classes", 150, IMAGES[::2])):
        for size in sizes if axis in axes else ():
            cells = size[0] * size[1]
            points, *cost = make_image(size, classes, 1 if cells * classes > 1e9 else repeats)
            add(axis, Cost(cells / 1e6, f"{cells / 1e6:.1f} megapixels", points, cells, *cost))
    return found


def plot(found: dict[str, list[Cost]], path: Path) -> None:
    """Four panels: points by resolution with the paper's line, seconds by boxes, classes and image size."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    resolution = found["resolution"]
    sides = [cost.at for cost in resolution]
    axes[0].plot(sides, [cost.points for cost in resolution], "o-", label="points predicted")
    axes[0].plot(sides, [784 + 784 * log2(side / 28) for side in sides], "k:", label="784 + N log2(M / 28)")
    axes[0].plot(sides, [cost.cells for cost in resolution], "--", color="0.6", label="all cells, M x M")
    axes[0].set(title="points of one box", xlabel="output resolution M")
    axes[0].legend(fontsize=8)
    titles = {
        "boxes": "boxes (80 classes, 224x224)",
        "classes": "classes (10 boxes)",
        "image": "megapixels (19 classes; grey: 150)",
    }
    for axis, (name, title) in zip(axes[1:], titles.items(), strict=True):
        axis.plot([cost.at for cost in found[name]], [cost.seconds for cost in found[name]], "o-")
        if name == "image":
            many = found["image, 150 classes"]
            axis.plot([cost.at for cost in many], [cost.seconds for cost in many], "s--", color="0.6")
        axis.set(title=f"seconds by {name}", xlabel=title)
    for axis, name in zip(axes, ("resolution", *titles), strict=True):
        axis.set(xscale="log", yscale="log")
        ticks = [cost.at for cost in found[name]]
        axis.set_xticks(
            ticks, [f"{tick:.3g}" if tick < 100 else f"{tick:.0f}" for tick in ticks], rotation=45
        )
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[1:]:
        low, high = axis.get_ylim()
        # Whole decades: a flat line is to look flat, and the axis to have numbers.
        axis.set_ylim(10 ** floor(log10(low)), 10 ** ceil(log10(high)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=AXES, metavar="AXIS")
    parser.add_argument("--plot", type=Path, help="PNG to write, where all axes are measured")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = curves(arguments.axes, arguments.repeats)
    if arguments.plot and set(arguments.axes) == set(AXES):
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
