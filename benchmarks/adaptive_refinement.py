"""What the opt-in economies of a trained instance model change in its masks, and what they gain.

    python benchmarks/adaptive_refinement.py model.safetensors images/ --limit 20

Images, features and boxes are computed once; then the mask branch runs with each setting, alternating. Time of the
mask branch against that at full refinement, points predicted, and the change: mean and worst IoU of each box's mask,
cut at 0.5 and pasted into the image, with the one that all points give.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import pointrend
from pointrend.models.mask_heads.pointrend import AdaptiveRefinement
from pointrend.models.paste_masks import paste_masks
from pointrend.predict import Predictor, find_images

SETTINGS: dict[str, AdaptiveRefinement | None] = {
    "none": None,
    "1 cell a pixel": AdaptiveRefinement(cells_per_pixel=1),
    "2 cells a pixel": AdaptiveRefinement(cells_per_pixel=2),
    "min_uncertainty -6": AdaptiveRefinement(min_uncertainty=-6),
    "min_uncertainty -4": AdaptiveRefinement(min_uncertainty=-4),
    "min_uncertainty -2": AdaptiveRefinement(min_uncertainty=-2),
    "1 cell a pixel, min_uncertainty -4": AdaptiveRefinement(cells_per_pixel=1, min_uncertainty=-4),
}


@contextmanager
def counted(head: Any) -> Iterator[list[int]]:
    """The number of points of every call of the point head."""
    points: list[int] = []
    predictor = head.predictor

    def counting(*arguments: Any) -> Any:
        predict_at = predictor(*arguments)

        def predict(where: Tensor, **options: Any) -> Tensor:
            points.append(where.shape[0] * where.shape[1])
            return predict_at(where, **options)

        return predict

    head.predictor = counting
    try:
        yield points
    finally:
        del head.predictor


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model: Any = pointrend.load(arguments.model)
    predictor = Predictor(model, device="cpu")
    scenes = []
    for path in find_images(arguments.images)[0][: arguments.limit]:
        batch = model.prepare([predictor.read(path)])
        features = model.features(batch)
        found = model.detect(features, model.propose(features, batch), batch)[0]
        scenes.append((features, found.boxes, found.labels, batch.sizes[0]))
    times: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.repeats):
        for name, setting in SETTINGS.items():
            model.mask_head.adaptive_refinement = setting
            started = time.perf_counter()
            for features, boxes, labels, _ in scenes:
                model.masks_for_boxes(features, [boxes], [labels])
            times[name].append(time.perf_counter() - started)
    print(f"{sum(len(boxes) for _, boxes, _, _ in scenes)} boxes in {len(scenes)} images")
    print("| setting | points | seconds | times faster | mean mask IoU | worst |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    full: list[Tensor] = []
    for name, setting in SETTINGS.items():
        model.mask_head.adaptive_refinement = setting
        masks: list[Tensor] = []
        with counted(model.mask_head) as points:
            for features, boxes, labels, size in scenes:
                logits = model.masks_for_boxes(features, [boxes], [labels])[0]
                masks += paste_masks(logits.sigmoid(), boxes, size).windows
        full = full or masks
        overlaps = [_iou(one, other) for one, other in zip(masks, full, strict=True)]
        seconds = statistics.median(times[name])
        print(
            f"| {name} | {sum(points):,} | {seconds:.2f} | {statistics.median(times['none']) / seconds:.2f} "
            f"| {statistics.mean(overlaps):.4f} | {min(overlaps):.3f} |"
        )


def _iou(one: Tensor, other: Tensor) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


if __name__ == "__main__":
    main()
