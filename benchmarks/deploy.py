"""A model in torch, ONNX Runtime and OpenVINO: size of the file, seconds an image, products alone, memory.

    python benchmarks/deploy.py --threads 2 --files exported --json deploy.json
    python benchmarks/deploy.py --threads 2 --models R50 --repeats 3

"photo" and "shapes" are the bundled models on a sample photograph of 640x424, R50 and R101 those of `whole_model.py`
with random weights; their first row is the textbook way of that file, measured once. Seconds are those from pixels to
the result, resizing and pasting in them; ways take turns; medians. "Products" are the share of convolutions and matrix
products in the operators' time, by the profiler of torch or the runtime: seconds times this share is what no better
arrangement of the rest goes below. "As torch" is the share of pixels with the same label, or of objects with the same
class and a box of IoU 0.9, and their masks' mean IoU; of random weights in 8 bits it says nothing.

Files are written first, and kept in the folder `--files`, so that a second run only measures. 8 bits are calibrated
by four photographs or a quarter of the image: enough for the time, not for scores (docs/deploy.md has those). Needs
the extras export and openvino.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import alternate, peak_above_rest
from torch import Tensor
from torchvision.ops import box_iou
from whole_model import MODELS, Clock, build, instance_parts, make_image, semantic_parts

import pointrend
from pointrend import runtime
from pointrend.data.image_io import read_image
from pointrend.export import TRACED_SIZE, describe, export
from pointrend.export.graphs import build_graph
from pointrend.export.onnx_file import trace, write_onnx
from pointrend.export.openvino_file import write_openvino
from pointrend.export.verify import Check, photograph
from pointrend.models.devices import cpu_features
from pointrend.runtime.model import Instances
from pointrend.samples import SAMPLES

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
BUNDLED = {"photo": "photo-semantic", "shapes": "shapes-instance"}
# What multiplies matrices, by the names of the three profilers.
PRODUCTS = ("conv", "addmm", "aten::mm", "bmm", "linear", "gemm", "matmul", "fullyconnected")
TEXTBOOK = "as the originals compute"
WAYS = {"ONNX Runtime": ".onnx", "OpenVINO": ".xml", "OpenVINO, int8": "-int8.xml"}


def compare(short: str, folder: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    if short in BUNDLED:
        model, image = pointrend.load(BUNDLED[short]), read_image(SAMPLES["riders"].image)
    else:
        rows, columns = (round(side * chosen.scale / 32) * 32 for side in MODELS[short][1])
        model, image = build(MODELS[short][0], chosen.detections), make_image((rows, columns))
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    fast = model.optimize()
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: model.predict([image])[0],
        "torch, optimized": lambda: fast.predict([image])[0],
    }
    products: dict[str, Callable[[], Counter[str]]] = {
        way: lambda call=call: torch_kernels(call) for way, call in calls.items()
    }
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    sizes = dict.fromkeys(calls, weights)
    for way, suffix in WAYS.items():
        path = folder / f"{short}{suffix}"
        if not path.exists():
            started = time.perf_counter()
            write(model, short, image, path)
            print(f"{path.name}: written in {time.perf_counter() - started:.0f} s", flush=True)
        parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        sizes[way] = sum(part.stat().st_size for part in parts)
        calls[way] = runner(path, pixels, chosen.threads)
        products[way] = lambda path=path: runtime_kernels(path, image.numpy(), pixels, chosen.threads)
    if short == "R50":
        calls["torchvision's Mask R-CNN, 28x28"] = torchvision_call(image, chosen.detections)
    results = {way: call() for way, call in calls.items()}
    memory = {way: peak_above_rest(call) for way, call in calls.items()}
    times = alternate(calls, chosen.repeats, chosen.clock)
    if short in MODELS:  # once: it takes several times as long
        run: Any = instance_parts if model.task == "instance" else semantic_parts
        textbook = {TEXTBOOK: lambda: run(model, image, True, Clock(time.perf_counter))}
        times = alternate(textbook, 1, chosen.clock) | times
    first = statistics.median(times.get(TEXTBOOK, times["torch"]))
    rows = []
    for way, seconds in times.items():
        row: dict[str, Any] = {
            "model": short,
            "image": list(image.shape[1:]),
            "way": way,
            "megabytes": sizes[way] / 1e6 if way in sizes else None,
            "seconds": seconds,
            "median": statistics.median(seconds),
            "times_faster": first / statistics.median(seconds),
            "memory_mib": memory[way] / 2**20 if way in memory else None,
            "as_torch": agreement(results["torch"], results[way]) if way in sizes else "",
        }
        if way in products:
            kernels = products[way]()
            products_alone = sum(t for name, t in kernels.items() if any(p in name for p in PRODUCTS))
            row["products"] = products_alone / sum(kernels.values())
            row["kernels"] = dict(kernels.most_common(12))
        rows.append(row)
    show(short, rows)
    return rows


def show(short: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{short}, {rows[0]['image'][0]}x{rows[0]['image'][1]}\n")
    print(
        "| way | MB | seconds | lowest to highest | times faster | products | memory of a call, MiB | as torch |"
    )
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |")
    for row in rows:
        size = f"{row['megabytes']:.1f}" if row["megabytes"] else ""
        products = f"{row['products']:.0%}" if "products" in row else ""
        memory = f"{row['memory_mib']:.0f}" if row["memory_mib"] is not None else ""
        print(
            f"| {row['way']} | {size} | {row['median']:.3f} | {min(row['seconds']):.3f}-{max(row['seconds']):.3f} | "
            f"{row['times_faster']:.2f} | {products} | {memory} | {row['as_torch']} |",
            flush=True,
        )


class Unchecked(Check):
    """Of random weights scores are level, and rounding decides which boxes are kept."""

    def file(self, path: Path, suffix: str) -> None:
        pass


def write(model: Any, short: str, image: Tensor, path: Path) -> None:
    """As `export` does, but OpenVINO's files from the ONNX file beside them."""
    onnx, metadata = path.with_name(f"{short}.onnx"), describe(model, None, False)
    graph = build_graph(model, logits=False, num_points=None)
    if path != onnx:
        images = calibration(short, path.parent, image) if "int8" in path.stem else ()
        write_openvino(onnx, path, metadata, calibrate_by=images, check=Unchecked(graph, ()))
    elif short in BUNDLED:
        export(model, onnx)
    else:
        program = trace(graph, (photograph(TRACED_SIZE),), dynamic=True)
        write_onnx(program, onnx, ["image"], graph.outputs, metadata)


def calibration(short: str, folder: Path, image: Tensor) -> list[Path]:
    """Sample photographs, or the top left quarter of the image."""
    if short in BUNDLED:
        return [sample.image for sample in SAMPLES.values()]
    path = folder / f"{short}.png"
    quarter = image[:, : image.shape[1] // 2, : image.shape[2] // 2]
    Image.fromarray(quarter.permute(1, 2, 0).contiguous().numpy()).save(path)
    return [path]


def runner(path: Path, pixels: Any, threads: int) -> Callable[[], Any]:
    model = runtime.load(path, threads=threads)
    return lambda: model.find(pixels) if isinstance(model, runtime.InstanceModel) else model.predict(pixels)


def torchvision_call(image: Tensor, detections: int) -> Callable[[], Any]:
    """Its own Mask R-CNN R50-FPN with random weights, masks pasted into the image."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=81, box_score_thresh=0.0,
        box_detections_per_img=detections, min_size=min(image.shape[1:]), max_size=max(image.shape[1:]),
    ).eval()  # fmt: skip
    given = [image.float() / 255]

    def call() -> Any:
        with torch.no_grad():
            return model(given)

    return call


def torch_kernels(call: Callable[[], Any]) -> Counter[str]:
    """Seconds of each operator's own, in one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return Counter({one.key.lower(): one.self_cpu_time_total / 1e6 for one in profile.key_averages()})


def runtime_kernels(path: Path, image: Any, pixels: Any, threads: int) -> Counter[str]:
    """The same of a file, in its second run."""
    model = runtime.load(path, threads=threads)
    resized = model.resize(pixels).transpose(2, 0, 1)
    given = {"image": np.ascontiguousarray(resized), "size": np.array(pixels.shape[:2])}
    given = {name: given[name] for name in model.session.inputs}
    found: Counter[str] = Counter()
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = threads, True
        with TemporaryDirectory() as folder:
            options.profile_file_prefix = f"{folder}/profile"
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for _ in range(2):
                session.run(None, given)
            events = json.loads(Path(session.end_profiling()).read_text())
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        for event in kernels[len(kernels) // 2 :]:
            found[event["args"]["op_name"].lower()] += event["dur"] / 1e6
        return found
    import openvino

    hints = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
    for _ in range(2):
        request.infer(given)
    for node in request.profiling_info:
        found[node.node_type.lower()] += node.real_time.total_seconds()
    return found


def agreement(expected: Any, found: Any) -> str:
    """How near a result is to torch's."""
    expected = expected.numpy()
    found = found if isinstance(found, np.ndarray | Instances) else found.numpy()
    if isinstance(expected, np.ndarray):
        return f"{(expected == found).mean():.2%} of pixels"
    if isinstance(found, dict):
        boxes, labels, masks = found["boxes"], found["labels"], found["masks"]
    else:
        boxes, labels, masks = found.boxes, found.labels, found.masks()
    ious = []
    for box, label, mask in zip(expected["boxes"], expected["labels"], expected["masks"], strict=True):
        near = box_iou(torch.as_tensor(box)[None], torch.as_tensor(boxes))[0].numpy() * (labels == label)
        if len(near) and near.max() >= 0.9:
            other = masks[near.argmax()]
            ious.append((mask & other).sum() / max(1, (mask | other).sum()))
    if not ious:
        return f"0 of {len(expected['boxes'])} objects"
    return f"{len(ious)} of {len(expected['boxes'])} objects, mask IoU {np.mean(ious):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = [*BUNDLED, "R50", "R101"]
    parser.add_argument("--models", nargs="+", default=choices, choices=choices)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the large images' sides, for a quick look"
    )
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--files", type=Path, help="a folder to keep exported files in, for the next run")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = ", ".join(flag for flag in FLAGS if flag in cpu_features())
    print(f"{chosen.threads} threads; the processor has {found or 'none of ' + ', '.join(FLAGS)}")
    rows = []
    with TemporaryDirectory() as temporary:
        folder = chosen.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for short in chosen.models:
            rows += compare(short, folder, chosen)
            if chosen.json:
                chosen.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
