"""COCO evaluation at COCO's size, ours beside pycocotools': seconds, peak memory, and that the numbers agree.

    python benchmarks/evaluation.py                        # 5,000 pictures x 100 detections
    python benchmarks/evaluation.py --pictures 200

Ground truth and detections are generated: ellipses of COCO's sizes, detections shifted, relabelled, added at random.
Each tool scores them in a process of its own, reading the same two files, so that memory and imports are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (480, 640)
CLASSES = 80
OBJECTS = 7  # of a picture, as in COCO
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TOOLS = ("pointrend", "pycocotools")


def ellipse(random: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """A filled ellipse's window (h, w) and the (x, y) of its corner; sizes spread as COCO's, small ones often."""
    height, width = np.exp(random.uniform(np.log(8), np.log(300), 2)).astype(int)
    rows, columns = np.ogrid[:height, :width]
    radius = ((rows + 0.5) / height * 2 - 1) ** 2 + ((columns + 0.5) / width * 2 - 1) ** 2
    corner = random.integers(0, SIZE[1] - width + 1), random.integers(0, SIZE[0] - height + 1)
    return radius <= 1, (int(corner[0]), int(corner[1]))


def records(
    image_id: int, shapes: list[tuple[np.ndarray, tuple[int, int]]], labels: list[int]
) -> list[dict[str, Any]]:
    """COCO records of masks."""
    import torch  # here, so that the other tool's process does without it

    from pointrend.rle import encode_windows
    from pointrend.structures import InstanceMasks

    masks = InstanceMasks(
        [torch.from_numpy(window) for window, _ in shapes],
        torch.tensor([corner for _, corner in shapes], dtype=torch.int64).reshape(-1, 2),
        SIZE,
    )
    made = []
    for (window, (x, y)), label, rle in zip(shapes, labels, encode_windows(masks), strict=True):
        box = [x, y, window.shape[1], window.shape[0]]
        made.append({"image_id": image_id, "category_id": label, "bbox": box, "segmentation": rle})
    return made


def generate(folder: Path, pictures: int, detections: int) -> None:
    """Write truth.json and results.json."""
    random = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(1, pictures + 1):
        count = int(random.poisson(OBJECTS))
        shapes = [ellipse(random) for _ in range(count)]
        labels = [int(random.integers(1, CLASSES + 1)) for _ in range(count)]
        for record, (window, _) in zip(records(image_id, shapes, labels), shapes, strict=True):
            annotations.append(
                {**record, "id": len(annotations) + 1, "area": int(window.sum()), "iscrowd": 0}
            )
        found, names = [], []
        for number in range(detections):
            if number < 2 * count:  # two attempts at each object
                window, (x, y) = shapes[number % count]
                x = int(np.clip(x + random.integers(-6, 7), 0, SIZE[1] - window.shape[1]))
                found.append((window, (x, y)))
                names.append(labels[number % count] if random.random() < 0.7 else int(random.integers(1, 81)))
            else:
                found.append(ellipse(random))
                names.append(int(random.integers(1, CLASSES + 1)))
        for record in records(image_id, found, names):
            results.append({**record, "score": round(float(random.random()), 4)})
    images = [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in range(1, pictures + 1)]
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))


def score_pointrend(folder: Path) -> dict[str, float]:
    """With everything that we check on the way."""
    from pointrend.evaluation.coco_ap import CocoEvaluator

    evaluator = CocoEvaluator(folder / "truth.json", kinds=("mask",))
    evaluator.update_from_file(folder / "results.json")
    numbers = evaluator.compute()
    return {name: numbers[f"mask {name}"] for name in NAMES}


def score_pycocotools(folder: Path) -> dict[str, float]:
    """As its demo does."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "truth.json"))
    found = json.loads((folder / "results.json").read_text())
    for record in found:
        del record["bbox"]  # otherwise it would take the boxes' areas
    scorer = COCOeval(truth, truth.loadRes(found), "segm")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return dict(zip(NAMES, map(float, scorer.stats[:6]), strict=True))


def measure(tool: str, folder: Path) -> None:
    """Print one tool's seconds (imports included), peak memory in MB and numbers as a line of JSON."""
    started = time.perf_counter()
    numbers = score_pointrend(folder) if tool == "pointrend" else score_pycocotools(folder)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": round(seconds, 2), "peak_mb": round(peak_memory()), "numbers": numbers}))


def peak_memory() -> float:
    """Of this process, in MB."""
    try:  # what getrusage says includes the parent's, from before this program was started
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(pictures: int, detections: int, threads: int) -> dict[str, Any]:
    """Both tools on the same generated data; raises where they differ by more than 1e-6."""
    found: dict[str, Any] = {"pictures": pictures, "detections": detections, "threads": threads}
    with tempfile.TemporaryDirectory() as name:
        generate(Path(name), pictures, detections)
        for tool in TOOLS:
            command = [sys.executable, __file__, "--tool", tool, "--folder", name]
            limits = {"OMP_NUM_THREADS": str(threads)}
            answer = subprocess.run(
                command, env={**os.environ, **limits}, capture_output=True, text=True, check=False
            )
            if answer.returncode:
                raise RuntimeError(f"{tool}: {answer.stderr}")
            found[tool] = json.loads(answer.stdout.splitlines()[-1])
    ours, theirs = (found[tool]["numbers"] for tool in TOOLS)
    for key in NAMES:
        assert abs(ours[key] - theirs[key]) < 1e-6, (key, ours[key], theirs[key])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each picture")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tool:
        measure(given.tool, given.folder)
    else:
        print(json.dumps(run(given.pictures, given.detections, given.threads), indent=1))


if __name__ == "__main__":
    main()
