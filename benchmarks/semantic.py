"""Semantic subdivision from coarse logits to labels: the fast path against the textbook way, alternating in one run.

    python benchmarks/semantic.py --threads 2

"Textbook" is ``core.subdivision``, written as the papers' authors do: every step upsamples all classes, sorts them for
the two best, copies the grid to put the points back, and the labels are an arg max over the last grid. "Fast" is
``core.lazy_grid``. Both start from the same maps (channels-last, as a network run that way leaves them) and the same
coarse logits at stride 4: smooth random regions, with 8192 points a step and the published point head. Medians and
quartiles of wall time and processor time; each side's peak memory above rest in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import alternate, peak_above_rest
from torch import Tensor

from pointrend.core import PointRend

WAYS = ("textbook", "fast")


@torch.no_grad()
def scene(size: tuple[int, int], classes: int) -> tuple[PointRend, Tensor, Tensor]:
    """A point head, coarse logits (1, C, h, w) with regions of about 30 cells, and p2 (1, 256, h, w)."""
    torch.manual_seed(0)
    rows, columns = size[0] // 4, size[1] // 4
    blobs = torch.randn(1, classes, max(2, rows // 30), max(2, columns // 30))
    coarse = 4 * F.interpolate(blobs, size=(rows, columns), mode="bicubic")
    fine = torch.randn(1, 256, rows, columns).contiguous(memory_format=torch.channels_last)
    module = PointRend(256, classes, residual=False, num_points=8192).eval()
    torch.nn.init.normal_(module.head.predictor.weight, std=0.06)
    return module, coarse, fine


def way(name: str, size: tuple[int, int], classes: int) -> Callable[[], Tensor]:
    """A call that gives the labels (H, W)."""
    module, coarse, fine = scene(size, classes)
    module.head.fast = name == "fast"
    if name == "textbook":
        return lambda: module.refine(coarse, fine, size).argmax(1)[0]
    return lambda: module.render(coarse, fine, size)[0].label_map()


def peak(name: str, size: tuple[int, int], classes: int, threads: int) -> int:
    """Bytes above rest that the labels need, from the kernel's high-water mark (Linux)."""
    torch.set_num_threads(threads)
    call = way(name, size, classes)
    way(name, (64, 64), classes)()  # libraries' own workspaces
    return peak_above_rest(call)


def compare(size: tuple[int, int], classes: int, threads: int, repeats: int) -> None:
    """Print a row for each way."""
    calls = {name: way(name, size, classes) for name in WAYS}
    labels = {name: call() for name, call in calls.items()}  # also the warm-up
    wall, processor = alternate(calls, repeats), alternate(calls, repeats, "processor")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {name: pool.apply(peak, (name, size, classes, threads)) for name in WAYS}
    base = statistics.median(wall["textbook"])
    for name in WAYS:
        median, spread = statistics.median(wall[name]), statistics.quantiles(wall[name], n=4)
        print(
            f"| {size[0]}x{size[1]} | {classes} | {name} | {median:.3f} | {spread[0]:.3f}-{spread[2]:.3f} "
            f"| {statistics.median(processor[name]):.3f} | {base / median:.2f} | {peaks[name] / 2**20:.0f} |",
            flush=True,
        )
    apart = int((labels["fast"] != labels["textbook"]).sum())
    print(f"<!-- {size[0]}x{size[1]}, {classes} classes: {apart} of {size[0] * size[1]} labels differ -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["512x1024", "1024x2048"], metavar="HxW")
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| image | classes | way | seconds | quartiles | processor | times faster | peak MiB |")
    print("| --- | ---: | --- | ---: | --- | ---: | ---: | ---: |")
    for classes in arguments.classes:
        for size in arguments.sizes:
            rows, columns = (int(side) for side in size.split("x"))
            compare((rows, columns), classes, arguments.threads, arguments.repeats)


if __name__ == "__main__":
    main()
