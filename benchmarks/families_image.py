"""Label maps of one image by the networks that families.py trained on, without and with points.

    python benchmarks/families_image.py IMAGE --data DATA --runs runs --window 120 60 240 180 --out families.png

Takes the runs FAMILY-plain-SEED and FAMILY-points-SEED of every family that has both. The image itself is not drawn:
CamVid's may not be passed on with this package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from families import FAMILIES, go_on_from, without_points

from pointrend.data.image_io import read_image
from pointrend.data.label_folders import SemanticFolder
from pointrend.visualize.colors import as_palette, color_labels
from pointrend.visualize.figures import add_class_legend, new_figure, save_figure, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds camvid/ and weights/")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, nargs=4, required=True, help="left, top, width, height")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    classes = SemanticFolder.from_list(arguments.data / "camvid" / "val.txt").class_names
    palette = as_palette(None, len(classes))
    image = read_image(arguments.image)
    left, top, width, height = arguments.window
    runs = {
        family: [arguments.runs / f"{family}-{way}-{arguments.seed}" for way in ("plain", "points")]
        for family in FAMILIES
    }
    runs = {family: pair for family, pair in runs.items() if all(run.is_dir() for run in pair)}
    if not runs:
        parser.error(
            f"--runs: expected folders FAMILY-plain-{arguments.seed} and FAMILY-points-{arguments.seed}"
        )
    figure = new_figure(2.4 * len(runs), 4.8 * height / width + 1.2, dpi=100)
    panels = figure.subplots(2, len(runs), squeeze=False)
    extent = (left, left + width, top + height, top)
    inside = (slice(top, top + height), slice(left, left + width))
    present = set[int]()
    for column, (family, pair) in enumerate(runs.items()):
        for row, run in enumerate(pair):
            model = FAMILIES[family](classes, arguments.data / "weights")
            if row == 0:
                model = without_points(model)
            go_on_from(model, run / "model.safetensors")
            with torch.inference_mode():
                (result,) = model.eval().predict([image])
            labels = result.labels[inside]
            present |= set(labels.unique().tolist())
            title = f"{family}, {'without' if row == 0 else 'with'} points"
            show(panels[row, column], color_labels(labels, palette), extent, title)
    shown = sorted(present)
    add_class_legend(figure, [classes[one] for one in shown], palette[shown], columns=11)
    save_figure(figure, arguments.out, [arguments.out.suffix[1:]])


if __name__ == "__main__":
    main()
