"""From mask grids to COCO run lengths: windows of boxes against masks of the image's size.

    python benchmarks/paste.py --threads 2

"Textbook" does as the original: each 224x224 grid is pasted into a mask of the image's size, all masks are held, and
pycocotools encodes them. "Windows" is ``paste_masks`` and ``encode_windows``, what ``predict`` and ``eval`` run. The
same boxes lie in images of several sizes, and larger ones in a large image. The sides take turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from timing import alternate, peak_above_rest
from torch import Tensor

from pointrend.masks.rle import encode_windows
from pointrend.models.paste_masks import paste_masks, paste_window

IMAGES = ((800, 1088, 150), (2160, 3840, 150), (6000, 8000, 150), (6000, 8000, 2000))
"""Rows, columns, and the longest side of a box."""
WAYS = ("textbook", "windows")


def scene(rows: int, columns: int, side: int, boxes: int) -> tuple[Tensor, Tensor]:
    """Probabilities (D, 224, 224) of smooth blobs, and boxes (D, 4) inside the image."""
    torch.manual_seed(0)
    size = (0.3 + 0.7 * torch.rand(boxes, 2)) * side
    corner = torch.rand(boxes, 2) * (torch.tensor([columns, rows]) - size)
    blobs = 4 * torch.randn(boxes, 1, 6, 6)
    grids = F.interpolate(blobs, size=224, mode="bicubic")[:, 0].sigmoid()
    return grids, torch.cat((corner, corner + size), 1)


def textbook(grids: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """All masks at the image's size, then their run lengths."""
    masks = torch.zeros((len(grids), *size), dtype=torch.bool)
    for mask, grid, box in zip(masks, grids, boxes, strict=True):
        window, (x, y) = paste_window(grid, box, size)
        mask[y : y + window.shape[0], x : x + window.shape[1]] = window >= 0.5
    found: list[dict[str, Any]] = [
        coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks
    ]
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in found]


def call_of(way: str, image: tuple[int, int, int], boxes: int) -> Callable[[], list[dict[str, Any]]]:
    rows, columns, side = image
    grids, where = scene(rows, columns, side, boxes)
    if way == "textbook":
        return lambda: textbook(grids, where, (rows, columns))
    return lambda: list(encode_windows(paste_masks(grids, where, (rows, columns))))


def peak(way: str, image: tuple[int, int, int], boxes: int, threads: int) -> int:
    """Bytes above rest, in a process of its own."""
    torch.set_num_threads(threads)
    call = call_of(way, image, boxes)
    call_of(way, (100, 100, 50), 1)()
    return peak_above_rest(call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        "| image | boxes up to | way | seconds | lowest to highest | times faster | peak MiB | run lengths |"
    )
    print("| --- | ---: | --- | ---: | --- | ---: | ---: | ---: |")
    for image in IMAGES:
        rows, columns, side = image
        calls = {way: call_of(way, image, arguments.boxes) for way in WAYS}
        ours, theirs = (calls[way]() for way in reversed(WAYS))  # also the warm-up
        same = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
        times = alternate(calls, arguments.repeats)
        base = statistics.median(times["textbook"])
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = {way: pool.apply(peak, (way, image, arguments.boxes, arguments.threads)) for way in WAYS}
        for way in WAYS:
            median = statistics.median(times[way])
            print(
                f"| {rows}x{columns} | {side} px | {way} | {median:.3f} | {min(times[way]):.3f}-{max(times[way]):.3f} "
                f"| {base / median:.2f} | {peaks[way] / 2**20:.0f} | {same} of {len(ours)} equal |",
                flush=True,
            )


if __name__ == "__main__":
    main()
