"""PointRend's mask branch: the fast path against the textbook way, in one run, on the same weights and features.

    python benchmarks/mask_branch.py --boxes 1 10 50 100 --classes 80

"Textbook" is written as the original does it: all class channels are upsampled, cloned and scattered, the coarse
prediction is concatenated to every layer's input, and all outputs of every point are computed. "Plain" is this
package's path of the paper's formulas with the box's class only; "fast" is ``core.projection``. The sides alternate;
medians and the range between the quartiles are printed, and each side's peak memory above rest in a process of its own.
The floor is the time of the two matrix products per point, all that is left after the algebra, in the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
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
from pointrend.models.mask_head import MaskConfig, PointRendMaskHead

MAP = (200, 272)  # p2 of an 800x1088 picture
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

    side = head.config.start_side
    grid = regular_grid(side, side, regions=len(regions))
    logits = predict_at(grid).view(len(regions), classes, side, side)
    for size in subdivision_sizes((side, side), (head.config.side, head.config.side)):
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        index = most_uncertain_cells(-logits[own, regions.labels].abs(), head.config.points)
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
    def ours(fast: bool) -> Tensor:
        head.fast = fast
        return head.predict(features, regions)

    return {
        "textbook": lambda: textbook(head, features, regions),
        "plain": lambda: ours(False),
        "fast": lambda: ours(True),
    }


def floor(regions: int, points: int = 784, rounds: int = 4) -> float:
    """Seconds of two 256x256 products for every point."""
    hidden, weight = torch.randn(regions * points, 256), torch.randn(256, 256)
    started = time.perf_counter()
    for _ in range(2 * rounds):
        hidden @ weight
    return time.perf_counter() - started


def peak(way: str, boxes: int, classes: int, threads: int) -> int:
    """Bytes above rest that one prediction needs, from the kernel's high-water mark (Linux)."""
    torch.set_num_threads(threads)
    call = ways(*scene(boxes, classes))[way]
    ways(*scene(1, classes))[way]()  # libraries' own workspaces
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 10, 50, 100, 300])
    parser.add_argument("--classes", type=int, nargs="+", default=[80])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-textbook-above", type=float, default=6e9, help="bytes of all class grids")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| boxes | classes | way | seconds | quartiles | times faster | over the floor | peak MiB |")
    print("| ---: | ---: | --- | ---: | --- | ---: | ---: | ---: |")
    for classes in arguments.classes:
        for boxes in arguments.boxes:
            _compare(boxes, classes, arguments)


def _compare(boxes: int, classes: int, arguments: argparse.Namespace) -> None:
    head, features, regions = scene(boxes, classes)
    calls = ways(head, features, regions)
    if boxes * classes * 224 * 224 * 4 > arguments.skip_textbook_above:
        del calls["textbook"]
    times: dict[str, list[float]] = {way: [] for way in calls}
    floors = []
    outputs = {way: call() for way, call in calls.items()}  # also the warm-up
    for _ in range(arguments.repeats):
        for way, call in calls.items():
            started = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - started)
        floors.append(floor(boxes))
    medians = {way: statistics.median(found) for way, found in times.items()}
    base = medians.get("textbook")
    lowest = statistics.median(floors)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {way: pool.apply(peak, (way, boxes, classes, arguments.threads)) for way in calls}
    for way, median in medians.items():
        quarter, _, three_quarters = statistics.quantiles(times[way], n=4)
        faster = f"{base / median:.2f}" if base else "-"
        print(
            f"| {boxes} | {classes} | {way} | {median:.3f} | {quarter:.3f}-{three_quarters:.3f} | {faster} "
            f"| {median / lowest:.2f} | {peaks[way] / 2**20:.0f} |",
            flush=True,
        )
    other = outputs.get("textbook", outputs["plain"])
    apart = (outputs["fast"].sigmoid() - other.sigmoid()).abs()
    print(
        f"<!-- {boxes} boxes, {classes} classes: probabilities of fast and textbook: "
        f"{(apart > 1e-3).float().mean():.1e} of the pixels more than 1e-3 apart, median {apart.median():.1e} -->"
    )


if __name__ == "__main__":
    main()
