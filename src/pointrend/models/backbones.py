"""Feature extractors, the feature pyramid on top, and pretrained tensors to fill them with.

B images, H W rows and columns. A backbone returns one map per stage, named as in Detectron2: "stem" (stride 2),
"res2" (4), "res3" (8), "res4" (16), "res5" (32; less with `output_stride`); the pyramid "p2".."p5", and "p6" for
region proposals. How networks of torchvision become such stages is in :mod:`pointrend.models.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pointrend.models.stages import (
    STAGES,
    BackboneConfig,
    FrozenBatchNorm2d,
    build_stages,
    convolutions,
    torchvision_name,
)

__all__ = [
    "STAGES",
    "Backbone",
    "BackboneConfig",
    "FeaturePyramid",
    "FrozenBatchNorm2d",
    "build_backbone",
    "build_fpn",
    "freeze",
    "load_pretrained_backbone",
    "torchvision_name",
]


class Backbone(nn.Module):
    """Normalised pixels (B, 3, H, W) -> {"stem", .., "res5"}, each (B, channels, H / stride, W / stride).

    Sizes round up: a map of stride s has ceil(H / s) rows, so any H, W >= 1 works.
    """

    def __init__(self, config: BackboneConfig, stages: Mapping[str, nn.Module], pool: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.frozen_stages = 0
        self.pool = pool  # between the stem and res2; ResNets only
        for name in STAGES:
            self.add_module(name, stages[name])

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each stage's map."""
        return {name: _last_channels(getattr(self, name)) for name in STAGES}

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the input per cell of each stage's map."""
        return {name: min(2 ** (i + 1), self.config.output_stride) for i, name in enumerate(STAGES)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = {"stem": self.get_submodule("stem")(x)}
        x = self.pool(features["stem"])
        for name in STAGES[1:]:
            features[name] = x = getattr(self, name)(x)
        return features

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for name in STAGES[: self.frozen_stages]:
            getattr(self, name).eval()  # batch norm of frozen stages keeps its statistics
        return self


def freeze(backbone: Backbone, stages: int) -> None:
    """Stop the first `stages` stages from training: 0 none, 1 the stem, 2 stem and res2 (Detectron2's FREEZE_AT), .. 5.

    Their parameters need no gradient, their batch norms stay in evaluation mode.

    Raises:
        ValueError: for a number of stages that there is not.
    """
    if not 0 <= stages <= len(STAGES):
        raise ValueError(f"stages: expected 0 (nothing) to {len(STAGES)} (everything), got {stages}")
    backbone.frozen_stages = stages
    for i, name in enumerate(STAGES):
        getattr(backbone, name).requires_grad_(i >= stages)
    backbone.train(backbone.training)


def build_backbone(config: BackboneConfig) -> Backbone:
    """A randomly initialised backbone (torchvision's initialisation)."""
    return Backbone(config, *build_stages(config))


def _last_channels(stage: nn.Module) -> int:
    """Channels that a stage puts out: those of its last block's last convolution (a shortcut's are the same)."""
    return list(convolutions(stage))[-1].out_channels


class FeaturePyramid(FeaturePyramidNetwork):
    """torchvision's feature pyramid under Detectron2's names: {"res2": .., "res5": ..} -> {"p2": .., "p5": ..}.

    With ``extra_level`` also "p6" at twice the stride of "p5".
    """

    def __init__(
        self, levels: Sequence[str], in_channels: Sequence[int], channels: int, extra_level: bool
    ) -> None:
        super().__init__(list(in_channels), channels, LastLevelMaxPool() if extra_level else None)
        self.levels = tuple(levels)
        self.channels = channels

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        maps = super().forward({name: x[name] for name in self.levels})
        first = int(self.levels[0].removeprefix("res"))
        return {f"p{first + i}": level for i, level in enumerate(maps.values())}


def build_fpn(
    backbone_channels: Mapping[str, int],
    levels: Sequence[str] = ("res2", "res3", "res4", "res5"),
    channels: int = 256,
    extra_level: bool = False,
) -> FeaturePyramid:
    """A feature pyramid: 1x1 laterals, nearest upsampling and sum from the top, 3x3 outputs; with bias, no norm.

    Args:
        backbone_channels: `Backbone.channels`.
        levels: consecutive stages, finest first, which become "p2".. of the same number.
        channels: of every map of the pyramid.
        extra_level: one more, every other cell of the last output ("p6", for region proposals).

    Raises:
        ValueError: for levels that are no consecutive stages of the backbone.
    """
    unknown = [name for name in levels if name not in STAGES[1:] or name not in backbone_channels]
    numbers = [int(name.removeprefix("res")) for name in levels if name not in unknown]
    if unknown or not levels or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError(
            f"levels: expected consecutive stages out of {STAGES[1:]}, finest first, got {tuple(levels)}"
        )
    return FeaturePyramid(levels, [backbone_channels[name] for name in levels], channels, extra_level)


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
    from safetensors.torch import load_file

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
    targets = {}
    modules = dict(backbone.named_modules())
    names = list(modules)
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            norm = next(n for n in names[names.index(name) + 1 :] if hasattr(modules[n], "running_mean"))
            if ".conv" in name and backbone.config.name != "mobilenet_v2":  # the norm of conv2 is bn2
                norm = name.replace(".conv", ".bn")
            targets[torchvision_name(backbone.config, name)] = (module, cast(nn.BatchNorm2d, modules[norm]))
    return targets
