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
# From a photograph to crisp labels, masks and files. It needs no download: a model that knows the 21 classes of
# PASCAL VOC comes with the package. Everything below is the same with your own file, or with a published model:
# `pointrend.load("pointrend_rcnn_R_50_FPN_3x_coco")`.

# %%
# %matplotlib inline
import json

import torch
from PIL import Image

import pointrend
from pointrend.data.shapes import ShapeScenes
from pointrend.formats.labelme import from_labelme
from pointrend.samples import SAMPLES
from pointrend.visualize import compare_results, draw, explain, plot_overview, variants

photograph = SAMPLES["riders"].image  # a file
Image.open(photograph).convert("RGB")

# %% [markdown]
# ## Every pixel
#
# A `SemanticSegmenter` labels every pixel. `Predictor` takes file names, tensors, or lists of them.

# %%
semantic = pointrend.load("photo-semantic")
predictor = pointrend.Predictor(semantic, device="cpu")
image = predictor.read(photograph)  # uint8 (3, H, W), RGB
labels = predictor(image)
print(labels.labels.shape, [semantic.config.class_names[label] for label in labels.labels.unique()])
labels.plot(image, width=6)

# %% [markdown]
# What PointRend does for it: the same network's coarse prediction, interpolated, beside the refined one.

# %%
compare_results(image, variants(semantic, image), width=5)

# %% [markdown]
# ## Every step of a prediction
#
# `pointrend explain photo.jpg --model photo-semantic` draws every step of a prediction. The same in Python:

# %%
plot_overview(explain(semantic, image))

# %% [markdown]
# ## Every object
#
# An `InstanceSegmenter` finds objects, each with box, class, score and mask, best first. The bundled one is small and
# knows generated scenes only.

# %%
instance = pointrend.load("shapes-instance")
image = ShapeScenes(100, first=1_000_000, size=(144, 192))[40].image  # never trained on
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
