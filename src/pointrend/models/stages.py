"""torchvision's ResNets, ResNeXt and MobileNetV2 cut into the stages "stem", "res2" .. "res5", and their variants.

Which network, with which norm, strides and dilation, is a :class:`BackboneConfig`; what torchvision calls a module
of ours, :func:`torchvision_name` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenetv2, resnet

STAGES = ("stem", "res2", "res3", "res4", "res5")
BackboneName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnext101_32x8d", "mobilenet_v2", "resnet10_w16"
]

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
_MOBILENET_STAGES = {"stem": (0, 2), "res2": (2, 4), "res3": (4, 7), "res4": (7, 14), "res5": (14, 18)}


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, and in which of its published variants.

    name: torchvision's, or "resnet10_w16": one basic block a stage with 16 to 128 channels, 0.3 million
        parameters; nobody published weights for it, it is for models that are shipped and for demonstrations.
    norm: "frozen" (statistics and affine fixed, as Detectron2 trains) or "batch" (nn.BatchNorm2d).
    stride_in_1x1: the stride of res3..res5 sits in the first 1x1 of their first block, as in the MSRA models
        of Detectron2's zoo; otherwise in the 3x3, as in torchvision, ResNeXt and MMSegmentation. Bottlenecks
        only.
    deep_stem: three 3x3 convolutions (32, 32, 64 channels) instead of one 7x7: MMSegmentation's ResNetV1c,
        and the "ResNet-103" of the paper's DeepLab experiments.
    output_stride: 32, or 16 / 8 with dilated res5 / res4 and res5 (DeepLab).
    """

    name: BackboneName = "resnet50"
    norm: Literal["frozen", "batch"] = "frozen"
    stride_in_1x1: bool = False
    deep_stem: bool = False
    output_stride: Literal[8, 16, 32] = 32

    def __post_init__(self) -> None:
        if self.name not in (*_RESNETS, *_OTHERS):
            raise ValueError(f"name: expected one of {', '.join([*_RESNETS, *_OTHERS])}, got {self.name!r}")
        if self.norm not in ("frozen", "batch"):
            raise ValueError(f"norm: expected 'frozen' or 'batch', got {self.norm!r}")
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 32, 16 or 8, got {self.output_stride}")
        if self.deep_stem and self.name == "mobilenet_v2":
            raise ValueError(
                "deep_stem: MobileNetV2's stem is a 3x3 convolution already, set deep_stem=False"
            )
        if self.deep_stem and self.name == "resnet10_w16":
            raise ValueError("deep_stem: resnet10_w16 has one stem of 16 channels, set deep_stem=False")
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
            name: nn.Sequential(*features[first:last]) for name, (first, last) in _MOBILENET_STAGES.items()
        }
        pool: nn.Module = nn.Identity()
    elif config.name == "resnet10_w16":
        stages, pool = _narrow_resnet(norm), nn.MaxPool2d(3, stride=2, padding=1)
    else:
        network = _RESNETS[config.name](num_classes=1, norm_layer=norm)
        stem = (
            _deep_stem(norm) if config.deep_stem else nn.Sequential(network.conv1, network.bn1, network.relu)
        )
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        stages = dict(zip(STAGES, (stem, *layers), strict=True))
        pool = network.maxpool
        if config.stride_in_1x1:
            for layer in layers[1:]:
                layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, layer[0].conv1.stride
    if config.output_stride <= 16:
        before = 2 if config.output_stride == 8 else 1
        if config.output_stride == 8:
            _dilate(cast(nn.Sequential, stages["res4"]), first=1, rest=2)
        _dilate(cast(nn.Sequential, stages["res5"]), first=before, rest=2 * before)
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


def _deep_stem(norm: Callable[..., nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels_in, channels_out, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
        conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, norm(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _dilate(stage: nn.Sequential, first: int, rest: int) -> None:
    """Take the stride out of a stage; its 3x3 convolutions look `first` (first block) or `rest` pixels far.

    The first block sees maps of the stride before, so it keeps the dilation before (as torchvision and
    DeepLab do). torchvision's own option refuses basic blocks and does not know MobileNetV2.
    """
    for i, block in enumerate(stage):
        dilation = rest if i else first
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (dilation, dilation)


def torchvision_name(config: BackboneConfig, name: str) -> str:
    """What torchvision calls a module or tensor of ours: "res3.0.conv1" is "layer2.0.conv1"."""
    stage, _, rest = name.partition(".")
    if config.name == "mobilenet_v2":
        block, _, tail = rest.partition(".")
        return ".".join(filter(None, ("features", str(int(block) + _MOBILENET_STAGES[stage][0]), tail)))
    if stage != "stem":
        return f"layer{int(stage.removeprefix('res')) - 1}.{rest}"
    if config.deep_stem:
        return name
    head, _, tail = rest.partition(".")
    return ".".join(filter(None, ({"0": "conv1", "1": "bn1"}[head], tail)))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """The 2D convolutions in a module, in the order they were registered."""
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
