"""CamVid: what each subdivision step of the models of ``benchmarks/camvid.py`` adds.

    python benchmarks/camvid_steps.py --data ../shared/data --runs runs/c16-0 runs/c16-1

After 0, 1, .. all steps the rest of the way is interpolated; scores on the whole validation set go to steps.json in
each run's folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from runs import SemanticScores

from pointrend.checkpoints.native import load
from pointrend.core.subdivision import subdivision_sizes
from pointrend.data.label_folders import SemanticFolder
from pointrend.models.inputs import batch_images
from pointrend.models.semantic import SemanticSegmenter

SHOWN = ("mIoU", "boundary IoU", "mIoU@1px", "mIoU@3px", "mIoU@5px")


@torch.no_grad()
def score(model: SemanticSegmenter, data: SemanticFolder, count: int) -> dict[str, dict[str, float]]:
    """Scores by the size of the last grid that points were predicted on, in percent."""
    if model.point_rend is None or model.config.point_rend is None:
        raise ValueError("expected a model with PointRend: a run of another --variant than none")
    scores = SemanticScores(len(data.class_names))
    for number in range(len(data)):
        sample = data[number]
        batch = batch_images([sample.image], model.config.preprocessing)
        maps = model.features(batch.tensor)
        coarse = model.coarse(maps)
        fine = [maps[name] for name in model.config.point_rend.features]
        sizes = subdivision_sizes(tuple(coarse.shape[-2:]), batch.padded_size)  # type: ignore[arg-type]
        predictions = {"interpolated": F.interpolate(coarse, size=batch.padded_size, mode="bilinear")}
        for step, size in enumerate(sizes, start=1):
            logits = model.point_rend.refine(coarse, fine, size, sizes=sizes[:step], num_points=count)
            predictions[f"{step} to {size[0]}x{size[1]}"] = F.interpolate(
                logits, size=batch.padded_size, mode="bilinear"
            )
        scores.update(predictions, sample.target.labels)
    return scores.percent()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds camvid/")
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=8192, help="points in each step")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = SemanticFolder.from_list(arguments.data / "camvid" / "val.txt")
    print("| run | steps | " + " | ".join(SHOWN) + " |")
    print("| --- | --- |" + " ---: |" * len(SHOWN))
    for run in arguments.runs:
        found = score(load(run / "model.safetensors"), data, arguments.count)
        (run / "steps.json").write_text(json.dumps(found, indent=1))
        for way, numbers in found.items():
            row = " | ".join(f"{numbers[name]:.2f}" for name in SHOWN)
            print(f"| {run.name} | {way} | {row} |", flush=True)


if __name__ == "__main__":
    main()
