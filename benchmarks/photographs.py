"""Time and memory of `predict` for photographs from 0.3 to 50 megapixels.

    python benchmarks/photographs.py --threads 1

A photograph of the package, enlarged by Lanczos and saved as JPEG, through the bundled model; processor seconds and
memory above that of the loaded model, each size in a process of its own. "Labels" is `model.predict` on pixels in
memory; "files" is what `pointrend predict` does without overlays: read the JPEG, predict, write the label map.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from timing import peak_above_rest

import pointrend
from pointrend.predict import Output, Predictor
from pointrend.samples import SAMPLES

SIZES = {0.3: (640, 480), 2: (1632, 1224), 3: (2048, 1536), 12: (4000, 3000), 50: (8160, 6120)}
WAYS = ("interpolated", "points", "full resolution")


def measure(way: str, size: tuple[int, int], threads: int) -> tuple[float, float, float]:
    """Processor seconds for labels and for files, and MiB for the labels above the loaded model."""
    torch.set_num_threads(threads)
    model = pointrend.load("photo-semantic")
    config = model.config
    model.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)])  # libraries' own workspaces
    if way == "interpolated":
        model.config = replace(config, point_rend=replace(config.point_rend, full_resolution=False))
    elif way == "full resolution":
        model.config = replace(config, preprocessing=replace(config.preprocessing, long_edge=None))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.open(SAMPLES["riders"].image).convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path)
        predictor = Predictor(model, device="cpu", max_pixels=2**26)
        image = predictor.read(path)
        started = time.process_time()
        memory = peak_above_rest(lambda: model.predict([image]))
        labels = time.process_time() - started
        started = time.process_time()
        predictor.save([str(path)], Path(folder) / "out", Output(overlays=False))
        return labels, time.process_time() - started, memory / 2**20


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 2, 12, 50])
    parser.add_argument("--ways", nargs="+", default=list(WAYS[:2]), choices=WAYS)
    options = parser.parse_args()
    print("| megapixels | way | labels, CPU s | files, CPU s | MiB above the loaded model |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for megapixels in options.megapixels:
        for way in options.ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (way, SIZES[megapixels], options.threads))
            print(
                f"| {megapixels:g} | {way} | {found[0]:.2f} | {found[1]:.2f} | {found[2]:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
