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
# # 2. Which points?
#
# PointRend computes few points and chooses them well. This notebook begins with a photograph: a mask of 28 x 28
# cells, as standard heads predict it, beside PointRend's. It then takes the stages apart, for one object of a
# generated scene: the coarse mask, the uncertainty of its interpolation, the points of each step, the rendered
# mask. It ends with the points of training.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from pointrend.core.sampling import cell_centers
from pointrend.core.selection import binary_uncertainty, most_uncertain_cells
from pointrend.core.subdivision import SubdivisionStep, put_back, subdivide
from pointrend.data.image_io import read_image
from pointrend.data.shapes import ShapeScenes
from pointrend.models.paste_masks import crop_masks, paste_masks
from pointrend.samples import SAMPLES
from pointrend.structures import InstanceMasks
from pointrend.visualize import (
    draw_labels,
    explain,
    largest_differences,
    plot_resolutions,
    plot_steps,
    plot_training_points,
    side_by_side,
    training_choices,
    variants,
)
from pointrend.zoo import load

# %% [markdown]
# ## A photograph
#
# Mask R-CNN's standard head predicts 28 x 28 cells for each box, whatever its size. The model for photographs that
# comes with the package labels pixels and has no such head; published instance models are 230 MB. So the second image
# is what a perfect head of 28 x 28 would give: PointRend's mask of the person, cropped to that grid as the targets of
# training are, and put back into its box. The first is the network's own coarse prediction.

# %%
photo = read_image(SAMPLES["motorcyclist"].image)
semantic = load("photo-semantic")
results = {name: result["person"] for name, result in variants(semantic, photo).items()}
person = InstanceMasks.from_dense(results["PointRend"][None])
left, top = person.offsets[0].tolist()
rows, columns = person.windows[0].shape
boxes = torch.tensor([[left, top, left + columns, top + rows]], dtype=torch.float32)
standard = paste_masks(crop_masks(person, torch.tensor([0]), boxes, 28), boxes, person.image_size)

masks = {
    "coarse prediction": results["coarse"],
    "28 x 28 cells": standard.full(0),
    "PointRend": results["PointRend"],
}
windows = largest_differences(masks["28 x 28 cells"], masks["PointRend"], size=rows // 4, count=2)
label = semantic.config.class_names.index("person")
panels = {name: draw_labels(photo, label * mask, semantic.config.palette) for name, mask in masks.items()}
side_by_side(panels, windows=windows, width=4)

# %% [markdown]
# The points of each step. Where the prediction is certain, interpolation is enough.

# %%
explanation = explain(semantic, photo)
plot_steps(explanation.steps, image=photo, box=explanation.box, palette=semantic.config.palette)

# %% [markdown]
# With a published model and a checkpoint of Mask R-CNN, the same for the objects that both find:
#
#     pointrend explain photo.jpg --model pointrend_rcnn_R_50_FPN_3x_coco --baseline mask_rcnn.pkl
#
# Below is a model that knows objects, small enough to come with the package: of generated scenes.

# %%
model = load("shapes-instance")
image = ShapeScenes(100, first=1_000_000, size=(144, 192))[40].image
explanation = explain(model, image, instance=0)  # every intermediate result of one mask
print(explanation.title, [round(side) for side in explanation.box])

# %% [markdown]
# ## From coarse to fine
#
# The coarse head predicts 7 x 7 logits over the box. Before the first step all cells of a 28 x 28 grid are
# predicted by the point head.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7, 3.5))
for panel, grid in zip(panels, (explanation.coarse, explanation.start), strict=True):
    panel.imshow(grid[0].sigmoid().numpy(), cmap="gray", vmin=0, vmax=1)
    panel.set_title(f"{grid.shape[1]} x {grid.shape[2]}")

# %% [markdown]
# ## One step by hand
#
# Upsample; ask which cells are most uncertain; predict there; put the predictions back. Uncertainty is minus the
# distance to the decision at logit 0, measured on the *interpolated* logits.

# %%
upsampled = F.interpolate(explanation.start[None], scale_factor=2, mode="bilinear", align_corners=False)
uncertainty = binary_uncertainty(upsampled)  # (1, 56, 56)
cells = most_uncertain_cells(uncertainty, 784)  # (1, 784), flat indices
points = cell_centers(cells, 56, 56)  # (1, 784, 2), (x, y) in the unit square of the box

figure, panels = plt.subplots(1, 2, figsize=(7, 3.5))
panels[0].imshow(uncertainty[0].numpy(), cmap="plasma")
panels[0].set_title("uncertainty")
panels[1].imshow(upsampled[0, 0].sigmoid().numpy(), cmap="gray")
panels[1].scatter(*(56 * points[0] - 0.5).T.numpy(), s=3, c="red")
panels[1].set_title("the 784 most uncertain cells")

# %% [markdown]
# That is all there is to a step, and it is the first step of the model's own trace:

# %%
step = explanation.steps[0]
print("the same cells:", set(cells[0].tolist()) == set(step.index[0].tolist()))
values = step.logits.flatten(2).gather(2, cells[:, None])  # what the point head said there
print("the same grid:", torch.equal(put_back(upsampled, cells, values), step.logits))

# %% [markdown]
# ## All steps
#
# `subdivide` repeats it. Any function of points can stand in for the point head; here one that knows the
# truth, a disc:

# %%


def disc(points: torch.Tensor) -> torch.Tensor:
    """Logits (N, 1, P) at points (N, P, 2): positive within 0.4 of the middle."""
    return (40 * (0.4 - (points - 0.5).norm(dim=-1)))[:, None]


coarse = torch.full((1, 1, 8, 8), -6.0)
coarse[..., 1:-1, 1:-1] = 6.0  # a rough square
trace: list[SubdivisionStep] = []
rendered = subdivide(
    coarse,
    disc,
    sizes=[(16, 16), (32, 32), (64, 64), (128, 128)],
    num_points=200,
    uncertainty=binary_uncertainty,
    trace=trace,
)
truth = disc(cell_centers(torch.arange(128**2)[None], 128, 128)).view(1, 1, 128, 128) > 0
right = ((rendered > 0) == truth).float().mean()
print(f"{4 * 200} points instead of {128**2}: {right:.1%} of the cells are right")
plot_steps(trace)

# %% [markdown]
# The model's mask at any resolution: stop earlier, or go on.

# %%
plot_resolutions(explanation)

# %% [markdown]
# ## Points of training
#
# Training cannot iterate. It draws `k N` points at random, keeps the `beta N` most uncertain of them, and
# fills up with random ones (section 3.1 of the paper). Four strategies on the same coarse prediction:

# %%
choices = training_choices(explanation.coarse[None], 196)
plot_training_points(explanation.coarse[None], choices, image=image, box=explanation.box)
