"""COCO evaluation at COCO's size, ours beside pycocotools': seconds, peak memory, and that the numbers agree.

    python benchmarks/evaluation.py                    # 5,000 images x 100 detections, three times each
    python benchmarks/evaluation.py --images 200 --repeats 1

Ground truth and detections are generated: ellipses of COCO's sizes, detections shifted, relabelled, added at random.
The tools take turns, each time in a process of its own that reads the same two files, so that memory and imports are
its own, and on the same number of processors. Ours checks every record; pycocotools trusts what it reads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (480, 640)
CLASSES = 80
OBJECTS = 7  # of an image, as in COCO
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TOOLS = ("pointrend", "pycocotools")


class Shape:
    """A filled ellipse; sizes spread as COCO's, small ones often."""

    def __init__(self, random: np.random.Generator) -> None:
        self.height, self.width = np.exp(random.uniform(np.log(8), np.log(300), 2)).astype(int).tolist()
        rows, columns = np.ogrid[: self.height, : self.width]
        radius = ((rows + 0.5) / self.height * 2 - 1) ** 2 + ((columns + 0.5) / self.width * 2 - 1) ** 2
        lengths = (radius <= 1).sum(0)
        self.area = int(lengths.sum())
        top = (self.height - lengths) // 2
        starts = np.arange(self.width) * SIZE[0] + top
        edges = np.stack([starts, starts + lengths], 1).ravel()
        self.runs = np.diff(edges, prepend=0, append=SIZE[0] * SIZE[1])  # in the top left corner of the image

    def corner(self, random: np.random.Generator) -> tuple[int, int]:
        """A random (x, y) that leaves it within the image, and a pixel below it."""
        x, y = random.integers(0, (SIZE[1] - self.width, SIZE[0] - self.height))
        return int(x), int(y)

    def record(self, image_id: int, label: int, corner: tuple[int, int]) -> dict[str, Any]:
        """COCO's record of it."""
        from pointrend.masks.rle import compress  # here, so that the other tool's process does without it

        x, y = corner
        runs = self.runs.copy()
        runs[0] += x * SIZE[0] + y
        runs[-1] -= x * SIZE[0] + y
        return {
            "image_id": image_id,
            "category_id": label,
            "bbox": [x, y, self.width, self.height],
            "segmentation": {"size": list(SIZE), "counts": compress(runs)},
        }


def generate(folder: Path, imgs: int, detections: int) -> None:
    """Write truth.json and results.json, detections image by image."""
    random = np.random.default_rng(0)
    pool = [Shape(random) for _ in range(2000)]
    annotations: list[dict[str, Any]] = []
    with (folder / "results.json").open("w") as file:
        for image_id in range(1, imgs + 1):
            shapes = [pool[n] for n in random.integers(0, len(pool), random.poisson(OBJECTS))]
            corners = [shape.corner(random) for shape in shapes]
            labels = random.integers(1, CLASSES + 1, len(shapes)).tolist()
            for shape, corner, label in zip(shapes, corners, labels, strict=True):
                own = {"id": len(annotations) + 1, "area": shape.area, "iscrowd": 0}
                annotations.append({**shape.record(image_id, label, corner), **own})
            found = image_results(
                random, pool, list(zip(shapes, corners, labels, strict=True)), detections, image_id
            )
            text = ",".join(json.dumps(record) for record in found)
            file.write(("[" if image_id == 1 else ",\n") + text)
        file.write("]")
    images = [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in range(1, imgs + 1)]
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))


def image_results(
    random: np.random.Generator,
    pool: list[Shape],
    objects: list[tuple[Shape, tuple[int, int], int]],
    detections: int,
    image_id: int,
) -> Iterator[dict[str, Any]]:
    """Two attempts at each object, a little beside it and seven times in ten of its class; the rest anywhere."""
    for number in range(detections):
        label = int(random.integers(1, CLASSES + 1))
        if number < 2 * len(objects):
            shape, (x, y), own = objects[number % len(objects)]
            corner = int(np.clip(x + random.integers(-6, 7), 0, SIZE[1] - shape.width)), y
            label = own if random.random() < 0.7 else label
        else:
            shape = pool[random.integers(0, len(pool))]
            corner = shape.corner(random)
        yield {**shape.record(image_id, label, corner), "score": round(float(random.random()), 4)}


def score_pointrend(folder: Path) -> dict[str, float]:
    """With everything that we check on the way."""
    from pointrend.evaluation.coco_ap import CocoEvaluator

    evaluator = CocoEvaluator(folder / "truth.json", metrics=("mask",))
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
    """Print one tool's seconds (imports included), those of its processors, peak memory in MB and numbers as JSON."""
    started = time.perf_counter()
    numbers = score_pointrend(folder) if tool == "pointrend" else score_pycocotools(folder)
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "cpu_seconds": time.process_time(), "peak_mb": peak_memory()}
    print(json.dumps({**{key: round(value, 2) for key, value in found.items()}, "numbers": numbers}))


def peak_memory() -> float:
    """Of this process, in MB."""
    try:  # what getrusage says includes the parent's, from before this program was started
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(images: int, detections: int, *, threads: int = 1, repeats: int = 1) -> dict[str, Any]:
    """Both tools in turns on the same generated data; raises where they differ by more than 1e-6.

    Returns:
        For each tool `seconds`, `cpu_seconds` and `peak_mb` as (lowest, median, highest), and `numbers`.
    """
    found: dict[str, Any] = {"images": images, "detections": detections, "threads": threads}
    with tempfile.TemporaryDirectory() as name:
        ask("generate", name, threads, "--images", str(images), "--detections", str(detections))
        answers: dict[str, list[dict[str, Any]]] = {tool: [] for tool in TOOLS}
        for repeat in range(repeats):
            for tool in TOOLS if repeat % 2 == 0 else TOOLS[::-1]:
                answers[tool].append(json.loads(ask(tool, name, threads)))
    for tool, several in answers.items():
        found[tool] = {
            key: spread([one[key] for one in several]) for key in ("seconds", "cpu_seconds", "peak_mb")
        }
        found[tool]["numbers"] = several[0]["numbers"]
    ours, theirs = (found[tool]["numbers"] for tool in TOOLS)
    for key in NAMES:
        if abs(ours[key] - theirs[key]) > 1e-6:
            raise AssertionError(f"{key}: {ours[key]} here, {theirs[key]} by pycocotools")
    return found


def ask(what: str, folder: str, threads: int, *more: str) -> str:
    """The last line that a process of its own prints."""
    command = [sys.executable, __file__, "--tool", what, "--folder", folder, "--threads", str(threads), *more]
    limits = {"OMP_NUM_THREADS": str(threads)}
    answer = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(f"{what}: {answer.stderr}")
    return answer.stdout.rstrip().rpartition("\n")[2]


def spread(values: list[float]) -> tuple[float, float, float]:
    """Lowest, median, highest."""
    return min(values), round(statistics.median(values), 2), max(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--threads", type=int, default=1, help="processors that each tool may use")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tool", choices=("generate", *TOOLS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tool and hasattr(os, "sched_setaffinity"):  # some threads do not ask for OMP_NUM_THREADS
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    if given.tool == "generate":
        generate(given.folder, given.images, given.detections)
    elif given.tool:
        measure(given.tool, given.folder)
    else:
        found = run(given.images, given.detections, threads=given.threads, repeats=given.repeats)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
