"""Backbones of timm and torchvision by name: "timm/convnext_tiny.in12k", "torchvision/swin_t".

B images, H W rows and columns. Whatever has maps at strides 4, 8, 16 and 32, and plain vision transformers, whose one
map becomes a simple feature pyramid (Li et al., Exploring Plain Vision Transformer Backbones, 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

from pointrend.models import require
from pointrend.models.backbones import STAGES, Backbone, BackboneConfig

STRIDES = (2, 4, 8, 16, 32)
_PATCH = 16  # of plain transformers; timm resamples weights that were trained with others
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Stage(NamedTuple):
    """One of a network's outputs: which one, its channels, and the part of the network that it ends with."""

    output: int
    channels: int
    part: str


class LibraryBackbone(Backbone):
    """Normalised pixels (B, 3, H, W) -> {"res2", .., "res5"} and "stem" where the network has stride 2.

    Sizes round up, as of our own: images are padded by zeros to whole cells of the coarsest map.
    """

    foreign = True
    """Its modules are not ours: see `models.optimize.fold_norms`."""

    def __init__(self, config: BackboneConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.frozen_stages = 0
        self.network, self.stages = _build(config)
        self.pyramid: SimplePyramid | None = None
        if not self.stages:  # a plain transformer
            self.pyramid = SimplePyramid(self.network.feature_info.channels()[-1])
        if config.norm == "frozen":
            for module in self._norms():
                module.requires_grad_(False)

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each stage's map."""
        if self.pyramid is not None:
            return self.pyramid.channels
        return {name: stage.channels for name, stage in self.stages.items()}

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the input per cell of each stage's map."""
        largest = self.config.output_stride
        pairs = zip(STAGES, STRIDES, strict=True)
        return {name: min(stride, largest) for name, stride in pairs if name in self.channels}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.to(next(self.parameters()).dtype)  # of models in half or double precision
        rows, columns = x.shape[-2:]
        outputs = self.network(F.pad(x, (0, -columns % STRIDES[-1], 0, -rows % STRIDES[-1])))
        if self.pyramid is not None:
            maps = self.pyramid(outputs[-1])
        else:
            maps = {
                name: _channels_first(outputs[stage.output], stage.channels)
                for name, stage in self.stages.items()
            }
        strides = self.strides
        return {
            name: one[..., : -(-rows // strides[name]), : -(-columns // strides[name])]
            for name, one in maps.items()
        }

    def _freeze_parameters(self) -> None:
        frozen = {id(module) for module in self._frozen()}
        for module in self.modules():
            own = isinstance(module, nn.modules.batchnorm._BatchNorm) and self.config.norm == "frozen"
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(id(module) not in frozen and not own)

    def train(self, mode: bool = True) -> LibraryBackbone:
        nn.Module.train(self, mode)
        for module in self._frozen():
            module.training = False
        if self.config.norm == "frozen":
            for module in self._norms():
                module.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def _frozen(self) -> list[nn.Module]:
        """The modules of the frozen stages, in the order in which they were registered, which is that of execution."""
        if self.frozen_stages in (0, len(STAGES)):
            return list(self.modules()) if self.frozen_stages else []
        if self.pyramid is not None:
            raise ValueError(
                f"stages: {self.config.name} has none to freeze one by one; 0 is nothing, 5 everything"
            )
        wanted = [name for name in STAGES[: self.frozen_stages] if name in self.stages]
        if not wanted:
            return []
        part = self.stages[wanted[-1]].part
        named = list(self.network.named_modules())
        inside = [number for number, (name, _) in enumerate(named) if f"{name}.".startswith(f"{part}.")]
        if not inside:
            raise ValueError(
                f"stages: {self.config.name} cannot be frozen in part; 0 is nothing, 5 everything"
            )
        # Containers of the stage have later stages too.
        around = [name for name, _ in named if f"{part}.".startswith(f"{name}.") and name != part]
        return [module for name, module in named[: inside[-1] + 1] if name and name not in around]

    def load_pretrained(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Fill it with the library's weights, or with those of a whole network as the library names them.

        Raises:
            ValueError: tensors that do not fit; a network without published weights.
        """
        try:
            network, _ = _build(self.config, pretrained=True, tensors=tensors)
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"{self.config.name}: these weights do not fit or are not published: {error}"
            ) from error
        state = network.state_dict()
        if tensors is not None:  # timm leaves alone what a file does not have: that is random, and differs
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch.initial_seed() + 1)
                other = _build(self.config, pretrained=True, tensors=tensors)[0].state_dict()
            random = [name for name, one in state.items() if not torch.equal(one, other[name])]
            if random:
                raise ValueError(
                    f"{self.config.name}: these weights do not fit, they lack {random[0]} and others"
                )
        self.network.load_state_dict(state)


class SimplePyramid(nn.Module):
    """A map of stride 16 (B, channels, h, w) -> "res2" to "res5" by transposed convolutions and pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.channels = {"res2": quarter, "res3": half, "res4": channels, "res5": channels}
        self.res2 = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, 2),
            nn.GroupNorm(1, half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.res3 = nn.ConvTranspose2d(channels, half, 2, 2)
        self.res5 = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"res2": self.res2(x), "res3": self.res3(x), "res4": x, "res5": self.res5(x)}


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of RGB in 0..255 that the library's weights were trained with.

    Raises:
        ValueError: no such network.
    """
    known = _published(name)
    mean, std = IMAGENET if known is None else (known.mean, known.std)
    (r, g, b), (r_std, g_std, b_std) = mean, std
    return (255 * r, 255 * g, 255 * b), (255 * r_std, 255 * g_std, 255 * b_std)


def library_licence(name: str) -> str:
    """What timm knows of the licence of a network's weights."""
    return str(getattr(_published(name), "license", None) or f"not stated by {name.partition('/')[0]}")


def _published(name: str) -> Any:
    """What timm knows of a network's weights; None of torchvision's."""
    library, _, network = name.partition("/")
    return _timm(network).get_pretrained_cfg(network) if library == "timm" else None


def _build(
    config: BackboneConfig, *, pretrained: bool = False, tensors: Mapping[str, Tensor] | None = None
) -> tuple[Any, dict[str, Stage]]:
    """The network, which returns a list of maps, and its stages; none of a plain transformer."""
    library, _, name = config.name.partition("/")
    if library == "timm":
        network = _build_timm(name, config, pretrained, tensors)
        info = network.feature_info
        strides, channels, parts = info.reduction(), info.channels(), info.module_name()
        if set(strides) == {_PATCH}:
            return network, {}
    else:
        network = _build_torchvision(name, pretrained, tensors)
        strides, channels, parts = network.strides, network.channels, network.parts
    expected = [min(stride, config.output_stride) for stride in STRIDES]
    names = STAGES[-len(strides) :]
    if len(strides) not in (4, 5) or list(strides) != expected[-len(strides) :]:
        raise ValueError(
            f"backbone: expected maps of strides 4, 8, 16 and {expected[-1]}, {config.name} has {list(strides)}"
        )
    stages = [Stage(i, channels[i], _own_part(network, parts[i])) for i in range(len(strides))]
    return network, dict(zip(names, stages, strict=True))


def _own_part(network: nn.Module, part: str) -> str:
    """What a network that was taken apart calls a part of the original, "stages.0" or "stages_0"."""
    names = dict(network.named_modules())
    return next((name for name in (part, part.replace(".", "_"), f"model.{part}") if name in names), part)


def _timm(name: str) -> ModuleType:
    timm = require("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"backbone: timm has no network {name}; timm.list_models() names them all")
    return timm


def _build_timm(
    name: str, config: BackboneConfig, pretrained: bool, tensors: Mapping[str, Tensor] | None
) -> Any:
    timm = _timm(name)
    options: dict[str, Any] = {"pretrained": pretrained, "features_only": True}
    if tensors is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": dict(tensors)}
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    # Transformers are to take any size: plain ones interpolate their positions, Swin pads its windows.
    for sizes in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            network = timm.create_model(name, **options, **sizes)
        except (TypeError, NotImplementedError, AssertionError, AttributeError, RuntimeError) as error:
            if sizes:
                continue
            raise ValueError(f"backbone: timm/{name} cannot be built as a backbone: {error}") from error
        strides = network.feature_info.reduction()
        if len(set(strides)) == 1 and strides[0] != _PATCH and "patch_size" not in options:
            options["patch_size"] = _PATCH
            network = timm.create_model(name, **options, **sizes)
        return network
    raise AssertionError("unreachable")


class Sliced(nn.Module):
    """A classifier of torchvision without its head; returns the last map of each stride."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        last: dict[int, tuple[int, int]] = {}  # stride -> number of the last layer of it, channels
        with torch.no_grad():
            x = torch.zeros(1, 3, 64, 96)
            self.eval()
            for number, layer in enumerate(self.layers):
                x = layer(x)
                channels_last = 3 * x.shape[2] != 2 * x.shape[3]  # as in Swin: the image is 2:3
                height, channels = (x.shape[1], x.shape[3]) if channels_last else (x.shape[2], x.shape[1])
                last[64 // height] = (number, channels)
            self.train()
        self.strides = list(last)
        self.ends, self.channels = map(list, zip(*last.values(), strict=True))
        self.parts = [f"layers.{end}" for end in self.ends]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.ends:
                maps.append(x)
        return maps


def _build_torchvision(name: str, pretrained: bool, tensors: Mapping[str, Tensor] | None) -> Sliced:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"backbone: torchvision has no network {name}; torchvision.models.list_models()")
    network: Any = models.get_model(name, weights="DEFAULT" if pretrained and tensors is None else None)
    if tensors is not None:
        network.load_state_dict(tensors)
    if hasattr(network, "trunk_output"):  # RegNet
        return Sliced([network.stem, *network.trunk_output])
    if not isinstance(getattr(network, "features", None), nn.Sequential):
        raise ValueError(
            f"backbone: torchvision/{name} has no sequence of features; timm may have one that does"
        )
    layers = list(network.features)
    if isinstance(layers[-1], Conv2dNormActivation):  # for the classifier
        layers = layers[:-1]
    return Sliced(layers)


def _channels_first(x: Tensor, channels: int) -> Tensor:
    """(B, h, w, channels), as Swin gives, to (B, channels, h, w)."""
    return x.movedim(-1, 1) if x.shape[1] != channels and x.shape[-1] == channels else x
