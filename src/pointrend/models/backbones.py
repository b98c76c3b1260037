"""Backbones of the published models.

B images, H W rows and columns. A backbone returns one map per stage, named as in Detectron2: "stem" (stride 2),
"res2" (4), "res3" (8), "res4" (16), "res5" (32; less with `output_stride`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenetv2, resnet

STAGES = ("stem", "res2", "res3", "res4", "res5")


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
        # Of a stage's last convolution; a shortcut's are the same.
        return {name: [*convolutions(self.get_submodule(name))][-1].out_channels for name in STAGES}

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the input per cell of each stage's map."""
        return {name: min(2 ** (i + 1), self.config.output_stride) for i, name in enumerate(STAGES)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.to(next(self.parameters()).dtype)  # of models in half or double precision
        features = {"stem": self.get_submodule("stem")(x)}
        x = self.pool(features["stem"])
        for name in STAGES[1:]:
            features[name] = x = getattr(self, name)(x)
        return features

    def freeze(self, stages: int) -> None:
        """Stop the first stages from training: 0 none, 1 the stem, 2 stem and res2 (Detectron2's FREEZE_AT), .. 5.

        Their parameters need no gradient, their batch norms stay in evaluation mode.

        Raises:
            ValueError: for a number of stages that there is not.
        """
        if not 0 <= stages <= len(STAGES):
            raise ValueError(f"stages: expected 0 (nothing) to {len(STAGES)} (everything), got {stages}")
        self.frozen_stages = stages
        self._freeze_parameters()
        self.train(self.training)

    def _freeze_parameters(self) -> None:
        for i, name in enumerate(STAGES):
            getattr(self, name).requires_grad_(i >= self.frozen_stages)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for name in STAGES[: self.frozen_stages]:
            getattr(self, name).eval()  # batch norm of frozen stages keeps its statistics
        return self


_RESNETS: dict[str, Callable[..., resnet.ResNet]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnext101_32x8d": resnet.resnext101_32x8d,
}
_OTHERS = ("mobilenet_v2", "resnet10_w16")
# Which of torchvision's `features` make up each stage of MobileNetV2; the last 1x1 (320 -> 1280) is for
# classifying.
MOBILENET_STAGES = {"stem": (0, 2), "res2": (2, 4), "res3": (4, 7), "res4": (7, 14), "res5": (14, 18)}


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, and in which of its published variants.

    Args:
        name: torchvision's, or "resnet10_w16": one basic block a stage with 16 to 128 channels, 0.3 million
            parameters; nobody published weights for it, it is for models that are shipped and for demonstrations.
            "timm/NAME" and "torchvision/NAME": any network of these libraries with maps of strides 4, 8, 16 and 32, or
            a plain vision transformer of timm.
        norm: "frozen" (statistics and affine fixed, as Detectron2 trains) or "batch" (nn.BatchNorm2d).
        stride_in_1x1: the stride of res3..res5 sits in the first 1x1 of their first block, as in the MSRA models
            of Detectron2's zoo; otherwise in the 3x3, as in torchvision, ResNeXt and MMSegmentation. Bottlenecks
            only.
        deep_stem: three 3x3 convolutions instead of one 7x7: MMSegmentation's ResNetV1c, and with a wider stem the
            "ResNet-103" of the paper's DeepLab experiments.
        stem_width: channels of a deep stem's first two convolutions, half those of its third: 32 (ResNetV1c) or 64
            (Detectron2's R-103; res2 then sees 128).
        output_stride: 32, or 16 / 8 with dilated res5 / res4 and res5 (DeepLab).
        multi_grid: of a dilated res5, a factor of the dilation for each block, such as (1, 2, 4) in DeepLabV3; ()
            dilates all of them alike, and the first as the stage before.
    """

    name: str = "resnet50"
    norm: Literal["frozen", "batch"] = "frozen"
    stride_in_1x1: bool = False
    deep_stem: bool = False
    output_stride: Literal[8, 16, 32] = 32
    stem_width: Literal[32, 64] = 32
    multi_grid: tuple[int, ...] = ()

    @property
    def library(self) -> str:
        """ "timm" or "torchvision", where the name says so; "" for our own."""
        return self.name.partition("/")[0] if "/" in self.name else ""

    def __post_init__(self) -> None:
        if self.library not in ("", "timm", "torchvision") or (
            not self.library and self.name not in (*_RESNETS, *_OTHERS)
        ):
            raise ValueError(
                f"name: expected one of {', '.join([*_RESNETS, *_OTHERS])}, timm/NAME or torchvision/NAME, "
                f"got {self.name!r}"
            )
        if self.norm not in ("frozen", "batch"):
            raise ValueError(f"norm: expected 'frozen' or 'batch', got {self.norm!r}")
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 32, 16 or 8, got {self.output_stride}")
        if self.library:
            own = {
                "deep_stem": self.deep_stem,
                "multi_grid": self.multi_grid,
                "stride_in_1x1": self.stride_in_1x1,
            }
            given = [name for name, value in own.items() if value]
            given += ["output_stride"] if self.library == "torchvision" and self.output_stride != 32 else []
            if given:
                raise ValueError(f"{given[0]}: not for {self.name}, which is as its library builds it")
        if self.deep_stem and self.name == "mobilenet_v2":
            raise ValueError(
                "deep_stem: MobileNetV2's stem is a 3x3 convolution already, set deep_stem=False"
            )
        if self.deep_stem and self.name == "resnet10_w16":
            raise ValueError("deep_stem: resnet10_w16 has one stem of 16 channels, set deep_stem=False")
        wide = self.deep_stem and self.name not in ("resnet18", "resnet34")
        if self.stem_width not in (32, 64) or (self.stem_width == 64 and not wide):
            raise ValueError(
                f"stem_width: expected 32, or 64 with deep_stem=True and bottlenecks, got {self.stem_width}"
            )
        if self.multi_grid and (self.output_stride == 32 or self.name == "mobilenet_v2"):
            raise ValueError(
                "multi_grid: expected a ResNet with output_stride 16 or 8, whose res5 is dilated"
            )
        if self.stride_in_1x1 and self.name in ("resnet18", "resnet34", *_OTHERS):
            raise ValueError(f"stride_in_1x1: {self.name} has no bottleneck blocks, set stride_in_1x1=False")


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine are buffers.

    Calls `F.batch_norm`, which keeps the input's dtype: torchvision's class multiplies by float32 buffers and
    so returns float32 under bfloat16 autocast, doubling the memory of every activation behind it. The state
    dict has no num_batches_tracked, as Detectron2's.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.full((channels,), 1.0 - eps))  # fresh: exactly the identity

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def build_stages(config: BackboneConfig) -> tuple[dict[str, nn.Module], nn.Module]:
    """The stages by name, randomly initialised (torchvision's initialisation), and what is between stem and res2."""
    norm: Callable[..., nn.Module] = FrozenBatchNorm2d if config.norm == "frozen" else nn.BatchNorm2d
    stages: dict[str, nn.Module]
    if config.name == "mobilenet_v2":
        features = mobilenetv2.MobileNetV2(num_classes=1, norm_layer=norm).features
        stages = {
            name: nn.Sequential(*features[first:last]) for name, (first, last) in MOBILENET_STAGES.items()
        }
        pool: nn.Module = nn.Identity()
    elif config.name == "resnet10_w16":
        stages, pool = _narrow_resnet(norm), nn.MaxPool2d(3, stride=2, padding=1)
    else:
        network = _RESNETS[config.name](num_classes=1, norm_layer=norm)
        stem = (
            _deep_stem(norm, config.stem_width)
            if config.deep_stem
            else nn.Sequential(network.conv1, network.bn1, network.relu)
        )
        if config.stem_width == 64:
            _widen_input(network.layer1[0], 128)
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        stages = dict(zip(STAGES, (stem, *layers), strict=True))
        pool = network.maxpool
        if config.stride_in_1x1:
            for layer in layers[1:]:
                layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, layer[0].conv1.stride
    if config.output_stride <= 16:
        before = 2 if config.output_stride == 8 else 1
        if config.output_stride == 8:
            _dilate(cast(nn.Sequential, stages["res4"]), (1,))
        factors = tuple(2 * before * factor for factor in config.multi_grid)
        _dilate(cast(nn.Sequential, stages["res5"]), factors or (before,))
    return stages, pool


def _narrow_resnet(norm: Callable[..., nn.Module]) -> dict[str, nn.Module]:
    """The stages of a ResNet with one basic block each, a quarter as wide as torchvision's."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), norm(16), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {"stem": stem}
    before = 16
    for name, channels in zip(STAGES[1:], (16, 32, 64, 128), strict=True):
        stride = 1 if channels == before else 2
        shortcut = None
        if stride == 2:
            shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), norm(channels))
        stages[name] = nn.Sequential(resnet.BasicBlock(before, channels, stride, shortcut, norm_layer=norm))
        before = channels
    for stage in stages.values():
        for conv in convolutions(stage):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return stages


def _deep_stem(norm: Callable[..., nn.Module], width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels_in, channels_out, stride in ((3, width, 2), (width, width, 1), (width, 2 * width, 1)):
        conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, norm(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _widen_input(block: resnet.Bottleneck, channels: int) -> None:
    """Let the first block of res2 take so many channels."""
    for conv in (block.conv1, block.downsample[0]):
        conv.in_channels = channels
        conv.weight = nn.Parameter(torch.empty(conv.out_channels, channels, *conv.kernel_size))
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def _dilate(stage: nn.Sequential, dilations: Sequence[int]) -> None:
    """Take the stride out of a stage; the 3x3 convolutions of each block look so many pixels far.

    One dilation alone is the first block's, which keeps that of the stage before since it sees its maps (as
    torchvision does), and half that of the others. torchvision's own option refuses basic blocks and does not know
    MobileNetV2.
    """
    for i, block in enumerate(stage):
        if len(dilations) == 1:
            dilation = dilations[0] * (2 if i else 1)
        else:
            dilation = dilations[min(i, len(dilations) - 1)]
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (dilation, dilation)


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """The 2D convolutions in a module, in the order they were registered."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
