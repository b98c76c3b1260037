"""What every model of ours has: `from_pretrained` and `save_pretrained`, and `optimize` to predict faster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, replace
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from pointrend.core.selection import Generators
from pointrend.models.backbones import Backbone, BackboneConfig
from pointrend.models.devices import faster_precision
from pointrend.models.feature_maps import build_backbone
from pointrend.models.library_backbones import normalisation
from pointrend.models.optimize import optimized
from pointrend.preprocessing import Preprocessing
from pointrend.results import Result
from pointrend.structures import numbered_names

Model = TypeVar("Model", bound="Pretrained")
P = ParamSpec("P")
R = TypeVar("R")

PRECISIONS: dict[str, torch.dtype | None] = {"auto": None, "float32": None, "bfloat16": torch.bfloat16}


def in_own_precision(method: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """Run a method of a model in the precision that :meth:`Pretrained.optimize` was given."""

    @functools.wraps(method)
    def inside(self: Model, *args: P.args, **kwargs: P.kwargs) -> R:
        self.settle_precision()
        if self.precision is None:
            return method(self, *args, **kwargs)
        with torch.autocast(self.device.type, dtype=self.precision):
            return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[Model, P], R], inside)


class Losses(dict[str, Tensor]):
    """Training losses by name, scalars to be summed, and how many things each of them is a mean over."""

    def __init__(self, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor | int]) -> None:
        super().__init__(losses)
        self.counts = dict(counts)
        """Images, proposals, boxes, pixels or points, by the same names."""


class ModelConfig:
    """What the configuration of every model of ours, a frozen dataclass, says."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Pretrained(nn.Module):
    """A model of ours that can be fetched and kept."""

    task: ClassVar[Literal["instance", "semantic"]]
    config: ModelConfig
    origin: dict[str, object]
    """Where the weights come from (name, URL, licence, scores ..), as far as their file says; empty for new ones."""

    precision: torch.dtype | None
    """Autocast's dtype in predictions; None is that of the weights."""
    only_predicts: bool
    """:meth:`optimize` made it: its weights are not those that were trained."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = {}
        self.precision = None
        self.only_predicts = False

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Any], *, generator: Generators = None
    ) -> Losses:
        """Training losses of images uint8 (3, h, w) with their targets."""
        raise NotImplementedError

    def predict(self, images: Sequence[Tensor], *args: Any, **options: Any) -> Sequence[Result]:
        """A result for each image uint8 (3, H, W) RGB, of any sizes."""
        raise NotImplementedError

    def forward(self, images: Tensor | Sequence[Tensor], **options: Any) -> Any:
        """:meth:`predict`; of a single image (3, H, W) its result alone.

        Raises:
            ValueError: what is neither a tensor nor a list of tensors.
        """
        if not isinstance(images, Tensor | Sequence) or isinstance(images, str | bytes):
            images = [images]  # said to be no image
        if isinstance(images, Tensor) and images.dim() == 3:
            return self.predict([images], **options)[0]
        return self.predict(images, **options)  # type: ignore[arg-type]  # a batch gives its images

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    def optimize(
        self: Model, precision: Literal["auto", "float32", "bfloat16"] = "float32", *, compile: bool = False
    ) -> Model:
        """A model that predicts the same, faster; the original stays as it is and shares its memory.

        Batch norms become part of the convolutions, which work channels-last: the same masks up to rounding. What is
        returned cannot be trained or saved: keep the original for that.

        Args:
            precision: "bfloat16" computes products in half precision; outlines move by a fraction of a per cent of a
                mask. Where the device has no unit for it (AVX-512 BF16, AMX, a GPU of capability 8.0), so that it
                would be slower, float32 is used, with a warning. "auto" is the fastest that is exact to rounding,
                today "float32" everywhere.
            compile: run backbone and pyramid through ``torch.compile``: some minutes at the first image, and a C++
                compiler on a CPU, for many images afterwards.

        Raises:
            ValueError: another precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
        fast = optimized(self, compile=compile)
        fast.precision, fast.only_predicts = PRECISIONS[precision], True
        if self.device.type != "cpu" or not torch.cuda.is_available():  # it may be moved to the GPU yet
            fast.settle_precision()
        return fast

    def settle_precision(self) -> None:
        """Leave half precision alone, with a warning, where this device would be slower by it."""
        if self.precision == torch.bfloat16:
            self.precision = PRECISIONS[faster_precision("bfloat16", self.device)]

    def train(self: Model, mode: bool = True) -> Model:
        """As of every module; ValueError for a model that only predicts."""
        if mode and self.only_predicts:
            raise ValueError(
                "this model was made by optimize() and only predicts: train the one that it was made from"
            )
        return super().train(mode)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name_or_path: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "cpu",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Model:
        """A trained model, ready to predict; everything as in `pointrend.load`, but of this class only.

        Args:
            name_or_path: a name of the zoo (`pointrend zoo` lists them), a checkpoint file, a folder that
                :meth:`save_pretrained` wrote, or "user/name" on the Hugging Face Hub.
            weights: the published file of a zoo's name, where it has been downloaded already.
            device: where the model is wanted.
            progress: called with the bytes downloaded and those of the whole file.

        Raises:
            ValueError: a model of the other task; a file that is damaged or tries to run code.
            FileNotFoundError: no such file, folder or name.
            ConnectionError: it has to be downloaded, and cannot be; says what to fetch and where to put it.
        """
        from pointrend.zoo import ZOO, load

        entry = ZOO.get(str(name_or_path))
        if entry is not None and entry.task != cls.task:  # known before hundreds of megabytes are fetched
            raise ValueError(_other_task(name_or_path, cls.task, entry.task))
        model = load(name_or_path, weights, device=device, progress=progress)
        if not isinstance(model, cls):
            raise ValueError(_other_task(name_or_path, cls.task, model.task))
        return model

    def save_pretrained(self, folder: str | Path, *, extra: Mapping[str, object] | None = None) -> None:
        """Write the folder that :meth:`from_pretrained` reads, ready to be uploaded to the Hugging Face Hub.

        It gets model.safetensors, complete with configuration and class names, and a README.md (model card)
        unless it has one.

        Args:
            folder: made if it is not there.
            extra: what is known about the weights, plain JSON values: data, scores, licence. :attr:`origin` if not
                given.

        Raises:
            ValueError: if a file of this name is in the way.
        """
        from pointrend.checkpoints.hub import save_folder

        save_folder(self, folder, extra=extra)


Config = TypeVar("Config")


def choose_config(
    make: Callable[..., Config],
    config: Config | None,
    classes: Sequence[str] | int | None,
    backbone: str | None,
) -> Config:
    """The configuration, or the usual one for these classes and this backbone.

    Raises:
        ValueError: both are given, or neither; classes that are one word.
    """
    if (config is None) == (classes is None) or (config is not None and backbone is not None):
        raise ValueError("expected either a configuration, or classes (and a backbone)")
    if config is not None:
        return config
    if isinstance(classes, str):
        raise ValueError(f"classes: expected a list of names or their number, got {classes!r}")
    if isinstance(classes, int):
        classes = numbered_names(classes)
    names = tuple(classes or ())
    chosen = make(names, backbone=BackboneConfig(backbone or "resnet50"))
    return with_backbone(chosen, chosen.backbone)  # type: ignore[attr-defined]


def with_backbone(config: Config, backbone: BackboneConfig) -> Config:
    """The configuration with another backbone, and pixels normalised as those of a library want them."""
    if not backbone.library:
        return replace(config, backbone=backbone)  # type: ignore[type-var]
    mean, std = normalisation(backbone.name)
    pixels = replace(config.preprocessing, mean=mean, std=std, channel_order="RGB")  # type: ignore[attr-defined]
    return replace(config, backbone=backbone, preprocessing=pixels)  # type: ignore[type-var]


def prepared_backbone(config: Any, pretrained: bool | str) -> Backbone:
    """The backbone of a model's configuration, its first stages frozen.

    Args:
        pretrained: fill it with ImageNet weights: torchvision's (True), or of a name or path; see
            :func:`pointrend.zoo.fill_backbone`.
    """
    backbone = build_backbone(config.backbone)
    if pretrained:
        from pointrend import zoo

        name = backbone.config.name if backbone.config.library else f"torchvision/{backbone.config.name}"
        zoo.fill_backbone(backbone, name if pretrained is True else str(pretrained))
    backbone.freeze(config.freeze_stages)
    return backbone


def load_into(make: Callable[[Any], Model], path: str | Path) -> Model:
    """See :func:`pointrend.checkpoints.native.load_into`."""
    from pointrend.checkpoints import native

    return native.load_into(make, path)


def _other_task(name: str | Path, expected: str, found: str) -> str:
    return (
        f"{name}: expected a model for {expected} segmentation, this one is for {found} segmentation; use "
        f"{found.capitalize()}Segmenter.from_pretrained, or pointrend.load for either"
    )
