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
# # 1. Quick start
#
# From an image to crisp labels, masks and files. It needs no download: a small model that comes with the
# package and knows generated scenes does the work. For photographs load one that was trained on some:
# `pointrend.load("pointrend_rcnn_R_50_FPN_3x_coco")`, or your own file; everything below is the same.

# %%
# %matplotlib inline
import json

import torch
from PIL import Image

import pointrend
from pointrend.data.shapes import ShapeScenes
from pointrend.masks.export import from_labelme
from pointrend.visualize import compare_results, draw, explain, plot_overview, variants
from pointrend.zoo.bundled import load_bundled

scenes = ShapeScenes(100, first=1_000_000, size=(144, 192))  # never trained on
image = scenes[45].image  # uint8 (3, H, W), RGB
Image.fromarray(image.permute(1, 2, 0).numpy()).resize((384, 288))

# %% [markdown]
# ## Every pixel
#
# A `SemanticSegmenter` labels every pixel. `Predictor` takes tensors, file names, or lists of them.

# %%
semantic = load_bundled("shapes-semantic")
predictor = pointrend.Predictor(semantic, device="cpu")
labels = predictor(image)
print(labels.labels.shape, labels.class_names)
labels.plot(image, width=6)

# %% [markdown]
# What PointRend does for it: the same network's coarse prediction, interpolated, beside the refined one.

# %%
compare_results(image, variants(semantic, image), width=3)

# %% [markdown]
# ## Every object
#
# An `InstanceSegmenter` finds objects, each with box, class, score and mask, best first.

# %%
instance = load_bundled("shapes-instance")
image = scenes[40].image
[objects] = pointrend.Predictor(instance, device="cpu")([image])
objects = objects[objects.scores > 0.5]
for box, label, score in zip(objects.boxes, objects.labels, objects.scores, strict=True):
    print(f"{objects.class_names[label]:8} {score:.2f}", [round(side) for side in box.tolist()])
Image.fromarray(draw(image, objects)).resize((384, 288))

# %% [markdown]
# ## Into files, and into other programs
#
# `predictor.save(["photos/"], "predictions")` writes overlays and label maps or COCO JSON. In Python:

# %%
rle = objects.to_rle()  # COCO run lengths; objects.to_coco(image_id) has whole records
geojson = objects.to_geojson(tolerance=1.0)  # polygons, at most one pixel off
exact = objects.to_labelme()  # polygons along pixel edges: exactly the masks
print(len(json.dumps(rle)), len(json.dumps(geojson)), len(json.dumps(exact)), "characters")

# %%
again = from_labelme(exact, objects.class_names)
print("the same masks:", torch.equal(again.masks.dense(), objects.masks.dense()))

# %% [markdown]
# ## How it came about
#
# `pointrend explain image.png --model model.safetensors` draws the whole way of a prediction. The same in
# Python:

# %%
plot_overview(explain(semantic, image))
