"""PointRend on a network of another library, or of your own, as a semantic model of ours.

    image -> the network -> its coarse logits and maps -> subdivision with the point head -> labels

Shapes: B images, C classes, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pointrend.core.losses import Normalize
from pointrend.core.point_rend import PointRend
from pointrend.core.subdivision import Size
from pointrend.models.base import in_own_precision, load_into
from pointrend.models.families import (
    NetworkSource,
    Split,
    build_network,
    preprocessing_of,
    recognise,
    split_of,
)
from pointrend.models.inputs import Preprocessing
from pointrend.models.semantic_heads import SemanticPointRendConfig
from pointrend.models.semantic_model import LabelMapConfig, SemanticModel
from pointrend.structures import numbered_names


@dataclass(frozen=True)
class AttachedConfig(LabelMapConfig):
    """Everything that is needed to build an :class:`AttachedSegmenter`."""

    class_names: tuple[str, ...]
    network: NetworkSource
    channels: dict[str, int]
    """Of the network's maps by name."""
    palette: tuple[tuple[int, int, int], ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    channels_last: bool = False
    """The network gives maps (B, H, W, channels)."""
    freeze: bool = False
    """The network is not trained, and stays in evaluation mode."""
    loss_normalize: Normalize = "valid"
    point_rend: SemanticPointRendConfig | None = field(default_factory=SemanticPointRendConfig)
    """None: the network's own logits, interpolated."""


class AttachedNetwork(nn.Module):
    """Normalised images (B, 3, H, W) -> the maps (B, channels, h, w) that the point head sees, and "logits"."""

    foreign = True
    """Its modules are not ours: see `models.optimize.fold_norms`."""

    def __init__(
        self, network: nn.Module | Callable[[Tensor], object], split: Split, config: AttachedConfig
    ) -> None:
        super().__init__()
        self.module = network  # registered if it is a module
        self.split = split
        self.config = config

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps, logits = self.split(self.module, images)  # type: ignore[arg-type]
        rend = self.config.point_rend
        maps = {name: one for name, one in maps.items() if rend is not None and name in rend.features}
        if self.config.channels_last:
            maps = {name: one.movedim(-1, 1) for name, one in maps.items()}
        if self.config.network.binary:
            logits = torch.cat((torch.zeros_like(logits), logits), 1)
        return {**maps, "logits": logits}

    def train(self, mode: bool = True) -> AttachedNetwork:
        return super().train(mode and not self.config.freeze)


class AttachedSegmenter(SemanticModel):
    """A network and PointRend on top of it. :func:`attach` makes one.

    Args:
        config: everything but the weights.
        network: what the config describes; built by its name, with random weights, if not given.
        forward: see :func:`attach`.
    """

    config: AttachedConfig

    def __init__(
        self,
        config: AttachedConfig,
        network: nn.Module | Callable[[Tensor], object] | None = None,
        *,
        forward: Split | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        if config.num_classes < 2:
            raise ValueError(f"classes: expected at least two exclusive classes, got {config.class_names}")
        if network is None:
            network = build_network(config.network, config.num_classes)
        split = forward or split_of(config.network, network)  # type: ignore[arg-type]
        self.network = AttachedNetwork(network, split, config)
        if config.freeze:
            self.network.requires_grad_(False)
        self.point_rend: PointRend | None = None
        if config.point_rend is not None:
            channels = {"image": 3, **config.channels}
            self.point_rend = config.point_rend.build(channels, config.num_classes)
        self.train(self.training)

    @in_own_precision
    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> the network's maps by name, "image", and its coarse "logits"."""
        batch = batch.to(next(self.parameters()).dtype)
        with torch.no_grad() if self.config.freeze else nullcontext():
            return {"image": batch, **self.network(batch)}

    def freeze_unused(self) -> None:
        """No more gradients for parameters that no loss reaches, as of auxiliary heads.

        DistributedDataParallel would wait for them.
        """
        trained = [one for one in self.network.parameters() if one.requires_grad]
        if not trained:
            return
        mode = self.network.training
        outputs = self.network.eval()(trained[0].new_zeros(1, 3, *_probe_size(self.config.preprocessing)))
        self.network.train(mode)
        total = torch.stack([one.float().sum() for one in outputs.values()]).sum()
        if not total.requires_grad:  # a `forward` without gradients
            self.network.requires_grad_(False)
            return
        gradients = torch.autograd.grad(total, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def coarse(self, maps: dict[str, Tensor]) -> Tensor:
        """The network's own logits (B, C, h, w) float32."""
        return maps["logits"].float()

    def _sizes(self, coarse: Tensor, size: Size) -> list[Size] | None:
        # Of logits at the images' own size (U-Nets) the uncertain pixels are predicted anew, in one step.
        same = coarse.shape[-2] >= size[0] and coarse.shape[-1] >= size[1]
        return [size] if same else super()._sizes(coarse, size)


def attach(
    network: nn.Module | Callable[[Tensor], object],
    *,
    classes: Sequence[str] | int | None = None,
    features: str | Sequence[str] | None = None,
    freeze: bool = False,
    preprocessing: Preprocessing | None = None,
    palette: Sequence[tuple[int, int, int]] = (),
    point_rend: SemanticPointRendConfig | None = None,
    forward: Split | None = None,
    weights: str | Path | None = None,
) -> AttachedSegmenter:
    """PointRend on a segmentation network, as a model with `loss` and `predict`, to be trained, scored and saved.

    Args:
        network: of torchvision (`models.segmentation`), transformers (SegFormer, UperNet, MaskFormer, Mask2Former),
            segmentation-models-pytorch, or a module or function of normalised images (B, 3, H, W) that returns
            (features, coarse logits): one map (B, channels, h, w), several, or a dictionary; and (B, C, h, w).
        classes: their names, or how many; what transformers' configuration says, or numbers, if not given. Two names
            for one channel of logits: it is the second's.
        features: the maps that the point head sees; near stride 4 (2 for logits of finer stride) if not given.
        freeze: the network keeps its weights and its batch norms' statistics: only the point head is trained.
        preprocessing: of pixels; the family's own, or ImageNet's, if not given.
        palette: a colour for each class.
        point_rend: the point head; residual, and 2048 points in training, if not given.
        forward: of the network and images, returns (features by name, coarse logits), for a network that returns
            something else.
        weights: a file that was saved from such a model: its weights and its configuration are taken, and no other
            argument but `forward` is looked at.

    The network is not copied. What is not of these families cannot be built from a file alone: load it by `weights`.

    Raises:
        ValueError: the network does not return maps and logits, or classes and features do not fit them.

    >>> net = nn.Conv2d(3, 8, 3, stride=4, padding=1)
    >>> model = attach(lambda images: (net(images), net(images)[:, :2]), classes=("road", "other"))
    >>> model.config.channels
    {'features': 8}
    """
    if not callable(network):
        raise ValueError(f"network: expected a module or a function of images, got {type(network).__name__}")
    if weights is not None:
        return load_into(lambda config: AttachedSegmenter(config, network, forward=forward), weights)
    source = recognise(network) if forward is None else NetworkSource()
    split = forward or split_of(source, network)  # type: ignore[arg-type]
    preprocessing = preprocessing or preprocessing_of(source, network)  # type: ignore[arg-type]
    size = _probe_size(preprocessing)
    maps, logits = _probe(network, split, size)
    channels_last = _channels_last(maps, logits, size)
    channels = {name: one.shape[-1 if channels_last else 1] for name, one in maps.items()}
    names = _class_names(network, classes, logits.shape[1])
    strides = {name: size[0] / one.shape[1 if channels_last else 2] for name, one in maps.items()}
    rend = point_rend or SemanticPointRendConfig(features=(), residual=True)
    if features is not None or not set(rend.features) & {"image", *channels}:
        chosen = _usual(strides, size[0] / logits.shape[2]) if features is None else features
        rend = replace(rend, features=(chosen,) if isinstance(chosen, str) else tuple(chosen))
    config = AttachedConfig(
        names,
        replace(source, binary=logits.shape[1] == 1),
        channels,
        palette=tuple(palette),
        preprocessing=preprocessing,
        channels_last=channels_last,
        freeze=freeze,
        point_rend=rend,
    )
    model = AttachedSegmenter(config, network, forward=forward)
    return model.to(logits.device)


def _probe_size(preprocessing: Preprocessing) -> Size:
    """Of the image that a network is tried on, 2:3."""
    rows, columns = (preprocessing.divisor * -(-side // preprocessing.divisor) for side in (64, 96))
    return rows, columns


@torch.no_grad()
def _probe(network: Any, split: Split, size: Size) -> tuple[dict[str, Tensor], Tensor]:
    """Maps and logits of an image of zeros, as the network gives them."""
    parameter = (
        next(network.parameters(), torch.zeros(())) if isinstance(network, nn.Module) else torch.zeros(())
    )
    training = isinstance(network, nn.Module) and network.training
    if training:
        network.eval()
    try:
        maps, logits = split(network, parameter.new_zeros(1, 3, *size))
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"network: could not be run on images (1, 3, {size[0]}, {size[1]}): {error}; if sides have to be multiples "
            "of 14, pass preprocessing=Preprocessing(divisor=14)"
        ) from error
    finally:
        if training:
            network.train()
    if not isinstance(maps, Mapping) or not maps or logits.ndim != 4:
        raise ValueError(
            f"network: expected maps by name and logits (B, C, h, w), got {type(maps).__name__} and "
            f"{tuple(logits.shape)}"
        )
    wrong = {name: tuple(one.shape) for name, one in maps.items() if one.ndim != 4}
    if wrong:
        raise ValueError(
            f"features: expected maps (B, channels, h, w), got {wrong}; of tokens (B, N, channels) leave out the class "
            "tokens and arrange the rest: tokens[:, first:].transpose(1, 2).unflatten(2, (h, w))"
        )
    return dict(maps), logits


def _channels_last(maps: Mapping[str, Tensor], logits: Tensor, size: Size) -> bool:
    """Whether all maps are (B, h, w, channels): the image is 2:3, which tells rows and columns from channels."""

    def fits(rows: int, columns: int) -> bool:
        return abs(rows / size[0] - columns / size[1]) * max(size) <= 1 and rows <= size[0]

    first = all(fits(one.shape[2], one.shape[3]) for one in maps.values())
    last = all(fits(one.shape[1], one.shape[2]) for one in maps.values())
    if not fits(*logits.shape[2:]) or first == last:
        shapes = {name: tuple(one.shape) for name, one in {**maps, "logits": logits}.items()}
        raise ValueError(
            f"network: expected maps that all cover an image of {size[0]} x {size[1]}, (B, channels, h, w) or "
            f"(B, h, w, channels), and logits (B, C, h, w), got {shapes}"
        )
    return last


def _usual(strides: Mapping[str, float], coarse: float) -> str:
    """The last map whose stride is nearest to 4, or to 2 where the logits are finer than 4."""
    wanted = 4 if coarse >= 4 else 2
    return min(reversed(list(strides)), key=lambda name: abs(strides[name] - wanted))


def _class_names(network: object, classes: Sequence[str] | int | None, channels: int) -> tuple[str, ...]:
    count = max(channels, 2)
    if classes is None:
        known = getattr(getattr(network, "config", None), "id2label", None) or {}
        usual = numbered_names(count)
        classes = [str(known[number]) for number in sorted(known)] if len(known) == count else usual
    elif isinstance(classes, int):
        classes = numbered_names(classes)
    if isinstance(classes, str) or len(classes) != count:
        raise ValueError(
            f"classes: expected {count} names, as many as the network has logits, got {classes!r}"
        )
    return tuple(classes)
