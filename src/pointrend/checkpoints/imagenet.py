"""ImageNet weights that published trainings start from, by whoever published them, into one of our backbones.

Caffe2 blobs (Detectron2's MSRA R-50.pkl and R-101.pkl, FAIR's X-101-32x8d.pkl), torchvision's and OpenMMLab's
`.pth` (resnet50_v1c: deep stem), and Detectron2's own names. The file decides nothing about the network:
MSRA's models want BGR pixels with std 1 and the stride in the 1x1 convolution, FAIR's BGR and torchvision's
and OpenMMLab's RGB with ImageNet's std and the stride in the 3x3, which `training.published` states for each.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pointrend.checkpoints.detectron2 import BACKBONE
from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, rename
from pointrend.checkpoints.native import compare
from pointrend.models.backbones import Backbone

_CAFFE2_NORMS = {
    "s": "weight",
    "gamma": "weight",
    "b": "bias",
    "beta": "bias",
    "rm": "running_mean",
    "riv": "running_var",
}
CAFFE2: list[Row] = [
    ("conv1_w", "stem.0.weight"),
    *((f"res_conv1_bn_{theirs}", f"stem.1.{ours}") for theirs, ours in _CAFFE2_NORMS.items()),
    *(
        row
        for branch, conv, norm in (
            ("1", "downsample.0", "downsample.1"),
            ("2a", "conv1", "bn1"),
            ("2b", "conv2", "bn2"),
            ("2c", "conv3", "bn3"),
        )
        for row in (
            (f"res{{s}}_{{b}}_branch{branch}_w", f"res{{s}}.{{b}}.{conv}.weight"),
            *(
                (f"res{{s}}_{{b}}_branch{branch}_bn_{theirs}", f"res{{s}}.{{b}}.{norm}.{ours}")
                for theirs, ours in _CAFFE2_NORMS.items()
            ),
        )
    ),
]
TORCH: list[Row] = [
    ("conv1.weight", "stem.0.weight"),
    ("bn1.{rest}", "stem.1.{rest}"),
    ("stem.{i}.{rest}", "stem.{i}.{rest}"),
    ("layer{s}.{b}.{rest}", "res{s+1}.{b}.{rest}"),
]
DETECTRON2: list[Row] = [
    (theirs.removeprefix("backbone.bottom_up."), ours.removeprefix("backbone."))
    for theirs, ours in BACKBONE
    if theirs.startswith("backbone.bottom_up.")
] + [  # DeepLab's stem of three convolutions
    ("stem.conv2.weight", "stem.3.weight"),
    ("stem.conv2.norm.{rest}", "stem.4.{rest}"),
    ("stem.conv3.weight", "stem.6.weight"),
    ("stem.conv3.norm.{rest}", "stem.7.{rest}"),
]
IGNORED = ["fc.{rest}", "fc1000_{rest}", "pred_{rest}", "{rest}_momentum", "lr", "model_iter", "conv1_b"]


def load_imagenet(backbone: Backbone, path: str | Path) -> None:
    """Fill a ResNet or ResNeXt from a published ImageNet checkpoint.

    Norms of which the file has scale and shift alone (Caffe2 folds the statistics in) get mean 0 and variance
    1 - eps, so that they are exactly that scale and shift.

    Raises FileNotFoundError, and ValueError for an unreadable file and for names or shapes that do not fit,
    listing all.
    """
    tensors = read_foreign(path).tensors
    renamed = rename(tensors, CAFFE2 + DETECTRON2 + TORCH, ignored=IGNORED, source=str(path))
    state = backbone.state_dict()
    modules = dict(backbone.named_modules())
    folded = not any(name.endswith("running_mean") for name in renamed)
    for name, tensor in state.items():
        norm, _, part = name.rpartition(".")
        if name in renamed:
            continue
        if part == "running_mean" and folded:
            renamed[name] = torch.zeros_like(tensor)
        elif part == "running_var" and folded:
            renamed[name] = torch.full_like(tensor, 1 - float(modules[norm].eps))
        elif part == "num_batches_tracked":
            renamed[name] = torch.zeros_like(tensor)
    if backbone.config.norm == "frozen":
        renamed = {name: t for name, t in renamed.items() if not name.endswith("num_batches_tracked")}
    compare(state, renamed, source=str(path))
    backbone.load_state_dict(renamed)
