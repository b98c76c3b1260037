"""ImageNet weights that published trainings start from, by whoever published them, into one of our backbones.

Caffe2 blobs (Detectron2's MSRA R-50.pkl and R-101.pkl, FAIR's X-101-32x8d.pkl), torchvision's and OpenMMLab's
`.pth` (resnet50_v1c: deep stem), and Detectron2's own names. The file decides nothing about the network:
MSRA's models want BGR pixels with std 1 and the stride in the 1x1 convolution, FAIR's BGR and torchvision's
and OpenMMLab's RGB with ImageNet's std and the stride in the 3x3, which `training.published` states for each.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pointrend.checkpoints.detectron2 import BACKBONE
from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, rename
from pointrend.checkpoints.native import compare
from pointrend.models.backbones import MOBILENET_STAGES, Backbone, BackboneConfig

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


def load_pretrained_backbone(backbone: Backbone, path: str | Path) -> list[str]:
    """Fill a backbone from a safetensors file of ImageNet tensors with folded batch norm, names as in torchvision.

    Each convolution of the file has `weight` and `bias`, any float dtype. The kernel goes to the convolution;
    the norm behind it becomes "add the bias": scale 1, mean 0, variance 1 - eps, so that evaluating it is
    exactly that. With norm="batch" the first training step replaces these statistics by the batch's; "frozen"
    keeps them.

    Returns:
        The backbone's state-dict names that the file does not have, left as they are (such as "res5.*" for a file
        that ends with layer3).

    Raises:
        ValueError: for tensors that the backbone has no place for, or of another shape.
    """
    tensors = load_file(str(path))
    targets = _folded_targets(backbone)
    names = {name.rsplit(".", 1)[0] for name in tensors}
    ignored = {"features.18.0"} if backbone.config.name == "mobilenet_v2" else {"fc"}
    problems = [
        f"{name}: no such convolution in this backbone" for name in sorted(names - set(targets) - ignored)
    ]
    for name in sorted(names & set(targets)):
        conv, _ = targets[name]
        shape = tuple(tensors[f"{name}.weight"].shape) if f"{name}.weight" in tensors else None
        if shape != tuple(conv.weight.shape) or f"{name}.bias" not in tensors:
            problems.append(
                f"{name}: expected weight {tuple(conv.weight.shape)} and a bias, got weight {shape}"
            )
    if problems or not names & set(targets):
        raise ValueError(
            f"{path}: does not fit {backbone.config.name} (deep_stem={backbone.config.deep_stem}):\n  "
            + "\n  ".join(problems or ["none of its convolutions is in the file"])
        )
    filled: set[int] = set()
    with torch.no_grad():
        for name in names & set(targets):
            conv, norm = targets[name]
            conv.weight.copy_(tensors[f"{name}.weight"])
            norm.weight.fill_(1.0)
            norm.bias.copy_(tensors[f"{name}.bias"])
            cast(Tensor, norm.running_mean).zero_()
            cast(Tensor, norm.running_var).fill_(1.0 - norm.eps)
            filled |= {id(conv), id(norm)}
    modules = dict(backbone.named_modules())
    return [key for key in backbone.state_dict() if id(modules[key.rsplit(".", 1)[0]]) not in filled]


def _folded_targets(backbone: Backbone) -> dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """torchvision's name of each convolution -> that convolution and the norm behind it."""
    targets: dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]] = {}
    for name, module in backbone.named_modules():  # in the order of execution
        if isinstance(module, nn.Conv2d):
            conv = (torchvision_name(backbone.config, name), module)
        elif hasattr(module, "running_mean"):
            targets[conv[0]] = (conv[1], cast(nn.BatchNorm2d, module))
    return targets


def torchvision_name(config: BackboneConfig, name: str) -> str:
    """What torchvision calls a module or tensor of ours: "res3.0.conv1" is "layer2.0.conv1"."""
    stage, _, rest = name.partition(".")
    if config.name == "mobilenet_v2":
        block, _, tail = rest.partition(".")
        return ".".join(filter(None, ("features", str(int(block) + MOBILENET_STAGES[stage][0]), tail)))
    if stage != "stem":
        return f"layer{int(stage.removeprefix('res')) - 1}.{rest}"
    if config.deep_stem:
        return name
    head, _, tail = rest.partition(".")
    return ".".join(filter(None, ({"0": "conv1", "1": "bn1"}[head], tail)))
