"""A model in torch, ONNX Runtime and OpenVINO: size of the file, seconds an image, memory.

    python benchmarks/deploy.py --threads 2 --int8 PHOTOGRAPHS
    python benchmarks/deploy.py --threads 2 --models R50 --repeats 3

"photo" is the bundled model on a sample photograph, 640x427; the others are those of `whole_model.py` with random
weights. Ways take turns; medians. "From pixels to the result" is timed: resizing and pasting are in it. Needs the
extras export and openvino. With --int8 the first hundred images of a folder calibrate; `pointrend eval` scores files.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from timing import alternate, peak_above_rest
from whole_model import MODELS, build, make_image

import pointrend
from pointrend import runtime
from pointrend.data.image_io import read_image
from pointrend.export import export
from pointrend.models.devices import cpu_features
from pointrend.samples import SAMPLES

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def compare(short: str, folder: Path, chosen: argparse.Namespace) -> None:
    if short == "photo":
        model, image = pointrend.load("photo-semantic"), read_image(SAMPLES["riders"].image)
    else:
        model, image = build(MODELS[short][0], chosen.detections), make_image(MODELS[short][1])
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    fast = model.optimize()
    files = {"ONNX Runtime": ".onnx", "OpenVINO": ".xml"}
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: model.predict([image]),
        "torch, optimized": lambda: fast.predict([image]),
    }
    sizes = {"torch": sum(tensor.nbytes for tensor in model.state_dict().values())}
    for way, suffix in files.items():
        path = export(model, folder / f"{short}{suffix}")
        calls[way] = _runner(path, pixels, chosen.threads)
        sizes[way] = path.stat().st_size + sum(p.stat().st_size for p in folder.glob(f"{short}.bin"))
    if chosen.int8:
        images = sorted(path for path in chosen.int8.iterdir() if path.suffix in (".jpg", ".png"))[:100]
        path = export(model, folder / f"{short}-int8.xml", int8=images)
        calls["OpenVINO, int8"] = _runner(path, pixels, chosen.threads)
        sizes["OpenVINO, int8"] = sum(p.stat().st_size for p in folder.glob(f"{short}-int8.*"))
    for call in calls.values():
        call()
    memory = {way: peak_above_rest(call) for way, call in calls.items()}
    times = alternate(calls, chosen.repeats, chosen.clock)
    first = statistics.median(times["torch"])
    print(f"\n{short}, {image.shape[1]}x{image.shape[2]}\n")
    print("| way | file, MB | seconds | lowest to highest | times faster | memory of a call, MiB |")
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for way, seconds in times.items():
        size = f"{sizes[way] / 1e6:.1f}" if way in sizes else ""
        median = statistics.median(seconds)
        print(
            f"| {way} | {size} | {median:.3f} | {min(seconds):.3f}-{max(seconds):.3f} | {first / median:.2f} | "
            f"{memory[way] / 2**20:.0f} |",
            flush=True,
        )


def _runner(path: Path, pixels: Any, threads: int) -> Callable[[], Any]:
    model = runtime.load(path, threads=threads)
    return lambda: model.predict(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["photo", "R50"], choices=["photo", *MODELS])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--int8", type=Path, help="a folder of photographs to calibrate by")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = ", ".join(flag for flag in FLAGS if flag in cpu_features())
    print(f"{chosen.threads} threads; the processor has {found or 'none of ' + ', '.join(FLAGS)}")
    with TemporaryDirectory() as folder:
        for short in chosen.models:
            compare(short, Path(folder), chosen)
    print(
        f"\npeak of the whole process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    )


if __name__ == "__main__":
    main()
