"""Semantic segmentation with PointRend: the whole image is one region.

    image -> backbone (+ FPN) -> coarse logits at stride 4, 8 or 16 -> subdivision with the point head -> labels

Shapes: B images, C classes, H W rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointrend.core.lazy_grid import DenseLogits, LazyGrid
from pointrend.core.losses import Normalize, multiclass_point_loss, points_counted
from pointrend.core.point_rend import PointRend
from pointrend.core.selection import Generators, PointSampling, probability_margin_uncertainty
from pointrend.core.subdivision import Size, SubdivisionStep
from pointrend.models.backbones import BackboneConfig, BackboneName, build_backbone, build_fpn, freeze
from pointrend.models.base import Losses, Pretrained, choose_config, fill_backbone, in_own_precision
from pointrend.models.inputs import ImageBatch, Preprocessing, batch_images, batch_labels, prepare_images
from pointrend.models.memory import require_memory
from pointrend.models.semantic_heads import DecoderNorm, DeepLabV3Head, SemanticFPNHead
from pointrend.structures import IGNORE_LABEL, SemanticResult, SemanticTarget


@dataclass(frozen=True)
class SemanticPointRendConfig:
    """The point head of a semantic model and how it is used."""

    features: tuple[str, ...] = ("p2",)
    """Where fine features come from: "p2".."p5", "stem", "res2".."res5", "image" (the normalised pixels) and
    "coarse" (the coarse head's last features). The paper takes p2, or res2 for DeepLab."""
    width: int = 256
    depth: int = 3
    coarse_each_layer: bool = True
    residual: bool = False
    """Correct the interpolated coarse logits instead of predicting outright, see PointHead."""
    coarse_probabilities: bool = False
    """The point head sees the coarse prediction as probabilities, as the paper's text has it, instead of as logits."""
    uncertainty: Literal["logits", "probabilities"] = "logits"
    """What the margin of the two best classes is taken of; probabilities in the paper's text. They are ranked on
    (C, H, W) logits in memory."""
    sampling: PointSampling = field(default_factory=lambda: PointSampling(2048))
    """Points in training."""
    num_points: int = 8192
    """Points in each subdivision step."""
    subdivision_steps: int | None = None
    """Doublings of the coarse grid, as the published models count; what is missing to the image's size is then
    resized bilinearly. None: as many as needed, the last one exactly to the image's size."""


@dataclass(frozen=True)
class SemanticConfig:
    """Everything that is needed to build a :class:`SemanticSegmenter`."""

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    decoder: Literal["fpn", "deeplab"] = "fpn"
    levels: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    """Pyramid levels that the coarse head sees; ("p3", "p4", "p5") predicts at stride 8."""
    coarse_stride: int | None = None
    """Pixels per cell of the coarse logits of "fpn"; None: the finest level's. 8 with all four levels leaves outlines
    to the points (docs/results.md)."""
    fpn_channels: int = 256
    decoder_channels: int = 128
    """Channels of the coarse head; 256 in DeepLabV3."""
    decoder_norm: DecoderNorm = "GN"
    predictor_std: float | None = None
    """Standard deviation of the coarse head's last layer before training; None: as in Detectron2."""
    rates: tuple[int, ...] = (6, 12, 18)
    """Dilations of DeepLab's ASPP."""
    freeze_stages: int = 0
    """First stages of the backbone that are not trained; 2 = stem and res2."""
    loss_normalize: Normalize = "valid"
    """Mean over labelled pixels and points, or over all ("all", MMSegmentation)."""
    point_rend: SemanticPointRendConfig | None = field(default_factory=SemanticPointRendConfig)
    """None: the coarse prediction, interpolated."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def result(self, labels: Tensor, uncertainty: Tensor | None = None) -> SemanticResult:
        """A label map (H, W), a byte a pixel where the classes fit, with their names and colours."""
        small = torch.uint8 if self.num_classes <= IGNORE_LABEL else torch.int64
        return SemanticResult(labels.to(small), self.class_names, self.palette, uncertainty)


class SemanticSegmenter(Pretrained):
    """A backbone, a decoder (SemanticFPN or DeepLabV3) and PointRend on top of them.

    Args:
        config: everything; or, for the usual network, ``classes`` and ``backbone``.
        classes: names of the classes, or how many there are.
        backbone: "resnet50" if not given.
        pretrained: fill the backbone with ImageNet weights: torchvision's (True), or those that
            :func:`pointrend.zoo.fill_backbone` finds under this name or path.

    >>> SemanticSegmenter(classes=("background", "person"), backbone="resnet18").config.num_classes
    2
    """

    task = "semantic"

    def __init__(
        self,
        config: SemanticConfig | None = None,
        *,
        classes: Sequence[str] | int | None = None,
        backbone: BackboneName | None = None,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        config = choose_config(SemanticConfig, config, classes, backbone)
        if config.num_classes < 2:
            raise ValueError(
                f"class_names: expected at least two exclusive classes, got {config.class_names}"
            )
        self.config = config
        self.backbone = build_backbone(config.backbone)
        if pretrained:
            fill_backbone(self.backbone, pretrained)
        freeze(self.backbone, config.freeze_stages)
        channels = {"image": 3, **self.backbone.channels}
        self.fpn: nn.Module | None = None
        self.decoder: SemanticFPNHead | DeepLabV3Head
        levels = ("p2", "p3", "p4", "p5")
        fine = config.point_rend.features if config.point_rend is not None else ()
        if config.decoder == "fpn" or set(fine) & set(levels):
            self.fpn = build_fpn(self.backbone.channels, channels=config.fpn_channels)
            channels |= dict.fromkeys(levels, config.fpn_channels)
        if config.decoder == "fpn":
            strides = {level: self.backbone.strides[f"res{level[1:]}"] for level in levels}
            unknown = set(config.levels) - set(strides)
            if unknown or not config.levels:
                raise ValueError(f"levels: expected some of {levels}, got {config.levels}")
            self.decoder = SemanticFPNHead(
                {level: strides[level] for level in config.levels},
                config.fpn_channels,
                config.num_classes,
                width=config.decoder_channels,
                norm=config.decoder_norm,
                predictor_std=config.predictor_std,
                stride=config.coarse_stride,
            )
        else:
            if config.coarse_stride is not None:
                raise ValueError(
                    f"coarse_stride: expected None, got {config.coarse_stride}: DeepLabV3 predicts at its "
                    "backbone's output_stride"
                )
            self.decoder = DeepLabV3Head(
                channels["res5"], config.num_classes, rates=config.rates, width=config.decoder_channels
            )
        channels["coarse"] = config.decoder_channels
        self.point_rend: PointRend | None = None
        if config.point_rend is not None:
            self.point_rend = _build_point_rend(config.point_rend, channels, config.num_classes)

    def with_output_stride(self, stride: Literal[8, 16, 32]) -> SemanticSegmenter:
        """The same weights in a network whose deepest maps have another stride, in evaluation mode.

        A DeepLabV3 that was trained at 16 predicts better, and slower, at 8 (paper, Table 6): res4 and res5 are dilated
        instead of strided, and ASPP looks as far in pixels as before.

        Raises:
            ValueError: for SemanticFPN, whose pyramid has fixed strides.
        """
        if self.config.decoder != "deeplab":
            raise ValueError(
                "output_stride: SemanticFPN has a pyramid of fixed strides; this is for DeepLabV3"
            )
        before = self.config.backbone.output_stride
        doublings = int(math.log2(before / stride))
        rend = self.config.point_rend
        if rend is not None and rend.subdivision_steps is not None:
            steps = max(0, rend.subdivision_steps - doublings)
            rend = replace(rend, subdivision_steps=steps)
        config = replace(
            self.config,
            backbone=replace(self.config.backbone, output_stride=stride),
            rates=tuple(max(1, int(rate * before / stride)) for rate in self.config.rates),
            point_rend=rend,
        )
        other = SemanticSegmenter(config).to(self.device)
        other.load_state_dict(self.state_dict())
        other.origin = dict(self.origin)
        return other.eval()

    @in_own_precision
    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> maps by name: "image", "stem", "res2".., and with an FPN "p2".."p5"."""
        maps: dict[str, Tensor] = {"image": batch, **self.backbone(batch)}
        if self.fpn is not None:
            maps |= self.fpn(maps)
        return maps

    @in_own_precision
    def coarse(self, maps: dict[str, Tensor]) -> Tensor:
        """Coarse logits (B, C, h, w) float32; adds the head's last features to ``maps`` as "coarse"."""
        logits, maps["coarse"] = self.decoder(maps)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[SemanticTarget],
        *,
        generator: Generators = None,
    ) -> Losses:
        """Training losses by name, scalars: "coarse" (interpolated coarse logits) and "points" (point head).

        Args:
            images: uint8 (3, h, w) RGB at the size to train on; smaller ones are padded.
            targets: labels (h, w) of the same sizes.
            generator: for a reproducible choice of points; one, or one for each image.
        """
        batch = batch_images(images, self.config.preprocessing, self.device)
        labels = batch_labels(batch, targets, self.config.num_classes)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        normalize = self.config.loss_normalize
        losses = {"coarse": self.coarse_loss(coarse, labels)}
        counts = {"coarse": points_counted(labels != IGNORE_LABEL, normalize)}
        if self.point_rend is not None:
            losses["points"], counts["points"] = self.point_rend.loss_and_count(
                coarse,
                self._fine(maps),
                labels,
                ignore_label=IGNORE_LABEL,
                normalize=normalize,
                generator=generator,
            )
        return Losses(losses, counts)

    def coarse_loss(self, coarse: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the coarse logits (B, C, h, w), interpolated to the labels (B, H, W)."""
        upsampled = F.interpolate(coarse, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return multiclass_point_loss(
            upsampled, labels, ignore_label=IGNORE_LABEL, normalize=self.config.loss_normalize
        )

    @in_own_precision
    def logits(
        self,
        batch: ImageBatch,
        *,
        refine: bool = True,
        num_points: int | None = None,
        trace: list[SubdivisionStep] | None = None,
    ) -> Tensor:
        """Logits (B, C, H, W) float32 on the padded batch: refined, or (``refine=False``) interpolated coarse ones.

        Dense, where :meth:`grids` holds the same logits in less memory. ``trace`` receives every subdivision step.
        """
        self._check_memory(batch, grids=2)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        if self.point_rend is None or not refine:
            return F.interpolate(coarse, size=batch.padded_size, mode="bilinear", align_corners=False)
        logits = self.point_rend.refine(
            coarse,
            self._fine(maps),
            batch.padded_size,
            sizes=self._sizes(coarse),
            num_points=num_points,
            trace=trace,
        )
        if logits.shape[-2:] != batch.padded_size:
            logits = F.interpolate(logits, size=batch.padded_size, mode="bilinear", align_corners=False)
        return logits

    @torch.no_grad()
    @in_own_precision
    def grids(
        self, batch: ImageBatch, *, refine: bool = True, num_points: int | None = None
    ) -> list[LazyGrid]:
        """The logits (C, H, W) of each image in the padded batch, to be read in row chunks: never held at once."""
        self._check_memory(batch, grids=0)
        maps = self.features(batch.tensor)
        coarse = self.coarse(maps)
        grids: list[LazyGrid] = [DenseLogits(logits) for logits in coarse]
        if self.point_rend is not None and refine:
            grids = self.point_rend.render(
                coarse, self._fine(maps), batch.padded_size, sizes=self._sizes(coarse), num_points=num_points
            )
        return [grid.resize(batch.padded_size) for grid in grids]

    def _sizes(self, coarse: Tensor) -> list[Size] | None:
        """The grids of the configured number of steps; None for doubling up to the image."""
        steps = self.config.point_rend.subdivision_steps if self.config.point_rend else None
        if steps is None:
            return None
        rows, columns = coarse.shape[-2:]
        return [(rows * 2**step, columns * 2**step) for step in range(1, steps + 1)]

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Tensor],
        *,
        refine: bool = True,
        num_points: int | None = None,
        uncertainty: bool = False,
        trace: list[SubdivisionStep] | None = None,
    ) -> list[SemanticResult]:
        """Label maps of images, each in its own size.

        Args:
            images: uint8 (3, H, W) RGB of any sizes; resized as ``config.preprocessing`` says. They share one batch,
                padded to the largest.
            refine: False gives the interpolated coarse prediction, for comparison.
            num_points: points in each subdivision step, instead of the configured number.
            uncertainty: also return 1 minus the margin of the two best probabilities.
            trace: a list that receives the subdivision steps of the batch.
        """
        if len(images) == 0:
            return []
        batch = prepare_images(images, self.config.preprocessing, self.device)
        if trace is None:
            grids = self.grids(batch, refine=refine, num_points=num_points)
        else:
            logits = self.logits(batch, refine=refine, num_points=num_points, trace=trace)
            grids = [DenseLogits(one) for one in logits]
        results = []
        for grid, image, size in zip(grids, images, batch.sizes, strict=True):
            grid = grid.crop(size).resize((image.shape[1], image.shape[2]))
            margin = grid.label_uncertainty() if uncertainty else None
            results.append(self.config.result(grid.label_map(), margin))
        return results

    @property
    def device(self) -> torch.device:
        return self.decoder.predictor.weight.device

    def _check_memory(self, batch: ImageBatch, *, grids: int) -> None:
        """So many grids of logits in the image's size and the finest features are alive at once: a lower bound."""
        rows, columns = batch.padded_size
        features = self.config.fpn_channels / 16 if self.fpn is not None else 0
        needed = int(len(batch) * rows * columns * 4 * (grids * self.config.num_classes + features))
        require_memory(
            needed,
            batch.tensor.device,
            f"{len(batch)} x {self.config.num_classes} classes x {rows}x{columns} pixels",
            "set long_edge in the preprocessing, give fewer images at once, or cut the image into pieces",
        )

    def _fine(self, maps: dict[str, Tensor]) -> list[Tensor]:
        assert self.config.point_rend is not None
        return [maps[name] for name in self.config.point_rend.features]


def _build_point_rend(
    config: SemanticPointRendConfig, channels: dict[str, int], num_classes: int
) -> PointRend:
    unknown = set(config.features) - set(channels)
    if unknown or not config.features:
        raise ValueError(f"point head features: expected some of {sorted(channels)}, got {config.features}")
    return PointRend(
        [channels[name] for name in config.features],
        num_classes,
        width=config.width,
        depth=config.depth,
        coarse_each_layer=config.coarse_each_layer,
        residual=config.residual,
        coarse_probabilities=config.coarse_probabilities,
        uncertainty=probability_margin_uncertainty if config.uncertainty == "probabilities" else None,
        sampling=config.sampling,
        num_points=config.num_points,
    )
