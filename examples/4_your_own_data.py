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
# # 4. Train on your own data
#
# Two kinds of folders need no configuration: images with label PNGs, and COCO JSON. This notebook writes a
# small one of each from generated scenes, so that you see what goes where; put your own files in their place.

# %%
# %matplotlib inline
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pointrend.cli import main
from pointrend.data.shapes import ShapeScenes
from pointrend.masks.rle import encode_windows
from pointrend.visualize.contact_sheet import contact_sheet

STEPS = os.environ.get("STEPS", "40")  # far too few for a good model; the tests do fewer still
folder = Path(tempfile.mkdtemp(prefix="pointrend-"))
os.chdir(folder)


def pointrend(*arguments: str) -> None:
    """The command `pointrend ...` of the shell."""
    assert main(arguments) == 0


# %% [markdown]
# ## Label maps
#
#     data/
#       images/train/0.png      images
#       labels/train/0.png      8-bit, one number for each pixel; 255 does not count
#       images/val/ labels/val/ the same, to score on
#       classes.json            names and colours, if you like

# %%
scenes = ShapeScenes(1)
classes = {"classes": scenes.class_names, "palette": scenes.palette}
Path("labelled").mkdir()
Path("labelled/classes.json").write_text(json.dumps(classes))
for split, first, count in (("train", 0, 24), ("val", 1_000_000, 6)):
    for kind in ("images", "labels"):
        Path("labelled", kind, split).mkdir(parents=True)
    for number, sample in enumerate(ShapeScenes(count, first=first, size=(96, 128))):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(f"labelled/images/{split}/{number}.png")
        Image.fromarray(sample.target.labels.numpy()).save(f"labelled/labels/{split}/{number}.png")

# %% [markdown]
# Look before you train: classes, sizes, and everything that is wrong with the files.

# %%
pointrend("data", "check", "labelled", "--sheet", "sheet.png")
Image.open("sheet.png").reduce(2)

# %% [markdown]
# In the shell: `pointrend train semantic-fpn-resnet18 --data labelled --out runs/labelled`

# %%
arguments = "--steps", STEPS, "--batch-size", "4", "--crop", "96", "128", "--device", "cpu"
pointrend("train", "semantic-fpn-resnet18", "--data", "labelled", *arguments, "--out", "runs/labelled")

# %% [markdown]
# ## Objects
#
#     data/
#       train/0.png             images
#       instances_train.json    COCO format: polygons or run lengths
#       val/  instances_val.json
#
# COCO fills the holes of polygons, so that things with holes are better given as run lengths, as here.

# %%
names = ShapeScenes(1, "instance").class_names
for split, first, count in (("train", 0, 16), ("val", 1_000_000, 4)):
    Path("objects", split).mkdir(parents=True)
    images, annotations = [], []
    for number, sample in enumerate(ShapeScenes(count, "instance", first=first, size=(96, 128))):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(f"objects/{split}/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
        found = sample.target
        for label, box, rle in zip(
            found.labels, found.boxes.tolist(), encode_windows(found.masks), strict=True
        ):
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            annotation["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]  # x, y, width, height
            annotations.append(annotation | {"segmentation": rle, "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    Path(f"objects/instances_{split}.json").write_text(json.dumps(document))

# %%
arguments = "--steps", STEPS, "--batch-size", "2", "--size", "96", "--device", "cpu"
pointrend("train", "instance-resnet18", "--data", "objects", *arguments, "--out", "runs/objects")

# %% [markdown]
# ## Using the model
#
# A checkpoint says itself what it is: the same command for both kinds.

# %%
pointrend(
    "predict", "labelled/images/val", "--model", "runs/labelled/model.safetensors", "--out", "predictions"
)
images = [np.asarray(Image.open(file)) for file in sorted(Path("predictions/overlays").glob("*.png"))]
Image.fromarray(contact_sheet(images, columns=3, tile=256))
