# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Measuring boundaries
#
# Most pixels lie inside of things, so that mIoU and mask AP hardly see whether a boundary is crisp. This
# notebook measures the same small model with and without points by scores that look at boundaries.

# %%
# %matplotlib inline
import os

from rich.console import Console
from rich.table import Table

from pointrend.data.shapes import ShapeScenes
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.evaluation.semantic_metrics import boundary_region
from pointrend.visualize import color_labels, plot_scores, side_by_side
from pointrend.zoo import load

SCENES = int(os.environ.get("SCENES", "24"))  # the tests look at fewer
model = load("shapes-semantic")
scenes = ShapeScenes(SCENES, first=1_000_000, size=(144, 192))

# %% [markdown]
# ## Scores
#
# `mIoU@3px` counts only pixels within 3 pixels of a boundary of the truth. Boundary IoU compares two bands:
# what lies within the prediction and near its boundary, with what lies within the truth and near its own.

# %%
variants = {
    "coarse, interpolated": {"refine": False},
    "64 points a step": {"num_points": 64},
    "512 points a step": {"num_points": 512},
}
rows = evaluate_semantic(model, scenes, variants, widths=(1, 2, 3, 5, 8, 12, 16))

shown = [name for name in rows[0].numbers if name.startswith("mIoU") or name == "boundary IoU"]
table = Table("per cent", *shown)
for row in rows:
    table.add_row(row.name, *(f"{100 * row.numbers[name]:.1f}" for name in shown))
Console(width=130).print(table)

# %% [markdown]
# As curves: the narrower the band about the boundary, the more of the gain is seen.

# %%
plot_scores(rows)

# %% [markdown]
# ## What is counted
#
# The band of 3 pixels about the boundaries of the truth, and the mistakes within it. Interpolation errs all
# along the boundary, PointRend here and there.

# %%
sample = scenes[1]
truth = sample.target.labels
band = boundary_region(truth.int(), 3, image_edge=False)
panels = {
    "image": sample.image.permute(1, 2, 0).numpy(),
    "truth, band of 3 px": color_labels(truth, scenes.palette),
}
panels["truth, band of 3 px"][~band] //= 4
for name, options in variants.items():
    [result] = model.predict([sample.image], **options)
    wrong = (result.labels != truth) & band
    shown = color_labels(result.labels, scenes.palette) // 4
    shown[band & ~wrong] = (70, 130, 90)
    shown[wrong] = (255, 70, 60)
    panels[f"{name}\n{100 * wrong.sum() / band.sum():.1f} % of the band wrong"] = shown
side_by_side(panels, width=2.6)

# %% [markdown]
# Your own models and data: `pointrend eval model.safetensors --data FOLDER` prints these scores for every
# model, and for instances mask AP, AP at high IoU, and Boundary AP. docs/evaluation.md defines each of them.
