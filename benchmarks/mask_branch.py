"""PointRend's mask branch: the fast path against the textbook way, in one run, on the same weights and features.

    python benchmarks/mask_branch.py --threads 2
    python benchmarks/mask_branch.py --threads 2 --classes 1 1203 --boxes 1 10 100

"Textbook" is written as the original does it: all class channels are upsampled, cloned and scattered, the coarse
prediction is concatenated to every layer's input, and all outputs of every point are computed. "Plain" is this
package's path of the paper's formulas with the box's class only; "fast" is ``core.fast_point_head``, "bfloat16" the
same under autocast. The sides alternate; medians and the range between the quartiles are printed, and each side's peak
memory above rest in a process of its own. The floor is the time of the two matrix products per point, all that is left
after the algebra, in the same run and precision. Weights and features are random, so every mask is noise: the mask IoU
printed below each table is that of outlines of the worst kind.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timing import alternate, peak_above_rest
from torch import Tensor

from pointrend.core import (
    cell_centers,
    most_uncertain_cells,
    point_sample,
    point_sample_boxes,
    regular_grid,
    subdivision_sizes,
)
from pointrend.models.boxes import Regions
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.mask_heads.pointrend import PointRendMaskHead

MAP = (200, 272)  # p2 of an 800x1088 image
STRIDE = 4


@torch.no_grad()
def textbook(head: PointRendMaskHead, features: dict[str, Tensor], regions: Regions) -> Tensor:
    """(R, S, S) logits of each box's class, by way of (R, K, S, S) logits of all."""
    coarse = head.coarse_logits(features, regions)
    classes = coarse.shape[1]
    own = torch.arange(len(regions))

    def predict_at(points: Tensor) -> Tensor:
        fine = point_sample_boxes([features["p2"]], [STRIDE], regions.boxes, regions.image_index, points)
        return head.point_head(fine, point_sample(coarse, points))

    side = head.config.start_size
    grid = regular_grid(side, side, regions=len(regions))
    logits = predict_at(grid).view(len(regions), classes, side, side)
    for size in subdivision_sizes((side, side), (head.config.mask_size, head.config.mask_size)):
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        index = most_uncertain_cells(-logits[own, regions.labels].abs(), head.config.num_points)
        new = predict_at(cell_centers(index, *size))
        expanded = index[:, None].expand(-1, classes, -1)
        logits = logits.flatten(2).scatter(2, expanded, new).view(len(regions), classes, *size)
    return logits[own, regions.labels]


def scene(boxes: int, classes: int) -> tuple[PointRendMaskHead, dict[str, Tensor], Regions]:
    torch.manual_seed(0)
    head = PointRendMaskHead({"p2": 256}, {"p2": STRIDE}, classes, MaskConfig()).eval()
    for parameter in head.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    features = {"p2": torch.randn(1, 256, *MAP)}
    corner = torch.rand(boxes, 2) * torch.tensor([800.0, 500])
    size = torch.rand(boxes, 2) * 250 + 20
    where = torch.cat((corner, corner + size), 1)
    return head, features, Regions.from_lists([where], [torch.randint(0, classes, (boxes,))])


def ways(
    head: PointRendMaskHead, features: dict[str, Tensor], regions: Regions
) -> dict[str, Callable[[], Tensor]]:
    def ours(fast: bool, half: bool = False) -> Tensor:
        head.point_head.fast = fast
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            return head.predict(features, regions)

    return {
        "textbook": lambda: textbook(head, features, regions),
        "plain": lambda: ours(False),
        "fast": lambda: ours(True),
        "bfloat16": lambda: ours(True, half=True),
    }


def floor(regions: int, dtype: torch.dtype, points: int = 784, rounds: int = 4) -> Callable[[], None]:
    """Two 256x256 products for every point, as large at a time as the fast path has them."""
    hidden, weight = torch.randn(min(regions, 10) * points, 256).to(dtype), torch.randn(256, 256).to(dtype)

    def products() -> None:
        for _ in range(2 * rounds * -(-regions // 10)):
            hidden @ weight

    return products


def peak(way: str, boxes: int, classes: int, threads: int) -> int:
    """Bytes above rest that one prediction needs, from the kernel's high-water mark (Linux)."""
    torch.set_num_threads(threads)
    call = ways(*scene(boxes, classes))[way]
    ways(*scene(1, classes))[way]()  # libraries' own workspaces
    return peak_above_rest(call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 10, 50, 100, 300])
    parser.add_argument("--classes", type=int, nargs="+", default=[80])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--skip-textbook-above", type=float, default=3e9, help="bytes of one grid of all classes"
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: for a machine shared with others",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| boxes | classes | way | seconds | quartiles | times faster | over the floor | peak MiB |")
    print("| ---: | ---: | --- | ---: | --- | ---: | ---: | ---: |")
    notes = [
        _compare(boxes, classes, arguments) for classes in arguments.classes for boxes in arguments.boxes
    ]
    print("", *notes, sep="\n")


def _compare(boxes: int, classes: int, arguments: argparse.Namespace) -> str:
    """Print the rows of one number of boxes and classes; how far the ways agree."""
    calls: dict[str, Callable[[], Any]] = dict(ways(*scene(boxes, classes)))
    note = f"- {boxes} boxes, {classes} classes:"
    needed = boxes * classes * 224 * 224 * 4
    if needed > arguments.skip_textbook_above:
        del calls["textbook"]
        note += f" textbook not run, it would hold several grids of {needed / 2**30:.1f} GiB;"
    outputs = {way: call() for way, call in calls.items()}  # also the warm-up
    floors = {"floor": floor(boxes, torch.float32), "bfloat16 floor": floor(boxes, torch.bfloat16)}
    times = alternate(calls | floors, arguments.repeats, arguments.clock)
    medians = {way: statistics.median(found) for way, found in times.items()}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {way: pool.apply(peak, (way, boxes, classes, arguments.threads)) for way in calls}
    for way in calls:
        quarter, _, three_quarters = statistics.quantiles(times[way], n=4)
        lowest = medians["bfloat16 floor" if way == "bfloat16" else "floor"]
        faster = f"{medians['textbook'] / medians[way]:.2f}" if "textbook" in medians else "-"
        print(
            f"| {boxes} | {classes} | {way} | {medians[way]:.3f} | {quarter:.3f}-{three_quarters:.3f} | {faster} "
            f"| {medians[way] / lowest:.2f} | {peaks[way] / 2**20:.0f} |",
            flush=True,
        )
    return f"{note} {_agreement(outputs)}"


def _agreement(outputs: Mapping[str, Tensor]) -> str:
    other = "textbook" if "textbook" in outputs else "plain"
    apart = (outputs["fast"].sigmoid() - outputs[other].sigmoid()).abs()
    return (
        f"probabilities of fast and {other} {apart.median():.0e} apart in the median, more than 1e-3 at "
        f"{(apart > 1e-3).float().mean():.1e} of the cells; mask IoU {mask_iou(outputs['fast'], outputs[other]):.5f}, "
        f"of bfloat16 with fast {mask_iou(outputs['bfloat16'], outputs['fast']):.4f}"
    )


def mask_iou(ours: Tensor, theirs: Tensor) -> float:
    """Mean over boxes of intersection over union of masks given as logits (R, S, S)."""
    ours, theirs = (ours > 0).flatten(1), (theirs > 0).flatten(1)
    union = (ours | theirs).sum(1)
    shared = (ours & theirs).sum(1) / union.clamp(min=1)
    return torch.where(union > 0, shared, 1.0).mean().item()


if __name__ == "__main__":
    main()
