"""Instance segmentation: Mask R-CNN whose masks are rendered point by point (paper section 4).

    image -> backbone + FPN -> proposals -> boxes, classes, scores -> mask logits -> masks in the image

Each arrow is a method of :class:`InstanceSegmenter`; ``predict`` and ``loss`` are their stories.

Shapes: B images, R boxes of all, D detections and G true objects of one, K classes, S side of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from pointrend.core.selection import Generators
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import (
    Losses,
    ModelConfig,
    Pretrained,
    choose_config,
    in_own_precision,
    prepared_backbone,
)
from pointrend.models.box_head import POOLED, BoxHead, BoxHeadConfig, Detections
from pointrend.models.boxes import Regions, clip_boxes, has_area
from pointrend.models.feature_maps import FeaturePyramid
from pointrend.models.inputs import (
    ImageBatch,
    Preprocessing,
    batch_images,
    check_instance_targets,
    objects_to_learn,
    points_to_learn,
    prepare_images,
)
from pointrend.models.mask_heads.base import MaskConfig, MaskHead
from pointrend.models.mask_heads.coarse import CoarseMaskHead
from pointrend.models.mask_heads.conv import ConvMaskHead
from pointrend.models.mask_heads.implicit import ImplicitMaskHead
from pointrend.models.mask_heads.pointrend import MaskTrace, PointRendMaskHead, RenderedMaskHead
from pointrend.models.mask_heads.targets import PointsInBoxes, TrueMasks
from pointrend.models.paste_masks import paste_masks
from pointrend.models.rpn import ProposalConfig, ProposalNetwork, Proposals
from pointrend.results import InstanceResult
from pointrend.structures import InstanceTarget

MaskHeadName = Literal["pointrend", "coarse", "conv28", "conv56", "conv224", "implicit"]
Features = dict[str, Tensor]
"""Maps (B, C, H, W) by name: "stem", "res2".."res5", and of the pyramid "p2".."p6" at strides 4 to 64."""

PROPOSED = (*POOLED, "p6")


@dataclass(frozen=True)
class InstanceConfig(ModelConfig):
    """Everything that is needed to build an :class:`InstanceSegmenter`."""

    class_names: tuple[str, ...]
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    preprocessing: Preprocessing = field(
        default_factory=lambda: Preprocessing(short_edge=800, long_edge=1333)
    )
    mask_head: MaskHeadName = "pointrend"
    """PointRend, its coarse prediction alone, the 4x conv baseline with 28x28, 56x56 or 224x224 masks, or Implicit
    PointRend."""
    fpn_channels: int = 256
    freeze_stages: int = 0
    """First stages of the backbone that are not trained; 2 = stem and res2, as the published models."""
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    boxes: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("class_names: expected at least one class, got none")
        if self.mask_head not in get_args(MaskHeadName):
            raise ValueError(
                f"mask_head: expected {', '.join(map(repr, get_args(MaskHeadName)))}, got {self.mask_head!r}"
            )
        if self.backbone.output_stride != 32:
            raise ValueError(
                f"backbone: expected output_stride 32 for boxes, got {self.backbone.output_stride}"
            )


@dataclass(frozen=True)
class InstanceTrace:
    """Every intermediate value of a prediction, for images and tests."""

    batch: ImageBatch
    features: Features
    proposals: list[Proposals]
    detections: list[Detections]
    regions: Regions
    """The detections of all images in one list, in pixels of the network's input."""
    logits: Tensor
    """(R, S, S) mask logits over each box, of its class."""
    masks: MaskTrace | None
    """How the logits came about; None for heads without subdivision."""
    results: list[InstanceResult]


HEADS: dict[str, Callable[..., MaskHead]] = {
    "pointrend": PointRendMaskHead,
    "coarse": CoarseMaskHead,
    "conv28": partial(ConvMaskHead, mask_size=28),
    "conv56": partial(ConvMaskHead, mask_size=56),
    "conv224": partial(ConvMaskHead, mask_size=224),
    "implicit": ImplicitMaskHead,
}


class InstanceSegmenter(Pretrained):
    """Mask R-CNN, a two-stage detector, with a PointRend or another mask head.

    Arguments as for :class:`~pointrend.models.semantic.SemanticSegmenter`.

    >>> InstanceSegmenter(classes=("person", "car"), backbone="resnet18").config.mask_head
    'pointrend'
    """

    task = "instance"

    config: InstanceConfig

    def __init__(
        self,
        config: InstanceConfig | None = None,
        *,
        classes: Sequence[str] | int | None = None,
        backbone: str | None = None,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        config = choose_config(InstanceConfig, config, classes, backbone)
        self.config = config
        self.backbone = prepared_backbone(config, pretrained)
        self.fpn = FeaturePyramid(self.backbone.channels, channels=config.fpn_channels, extra_level=True)
        channels = self.backbone.channels | dict.fromkeys(PROPOSED, config.fpn_channels)
        strides = self.backbone.strides | {level: 2 ** int(level[1:]) for level in PROPOSED}
        pooled = [strides[level] for level in POOLED]
        self.rpn = ProposalNetwork(
            config.fpn_channels, [strides[level] for level in PROPOSED], config.proposals
        )
        self.box_head = BoxHead(config.fpn_channels, config.num_classes, pooled, config.boxes)
        self.mask_head = HEADS[config.mask_head](channels, strides, config.num_classes, config.masks)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], *, uncertainty: bool = False) -> list[InstanceResult]:
        """The objects in each image, best first, in its own pixels; on the CPU.

        Args:
            images: uint8 (3, H, W) RGB of any sizes; resized as ``config.preprocessing`` says. They share one
                batch, padded to the largest.
            uncertainty: also return how undecided each mask is, S x S over its box.
        """
        if len(images) == 0:
            return []
        batch = self.prepare(images)
        features = self.features(batch)
        proposals = self.propose(features, batch)
        detections = self.detect(features, proposals, batch)
        logits = self.masks_for_boxes(features, [d.boxes for d in detections], [d.labels for d in detections])
        return self.finish(images, batch, detections, logits, uncertainty=uncertainty)

    @torch.no_grad()
    @in_own_precision
    def trace(self, images: Sequence[Tensor]) -> InstanceTrace:
        """What :meth:`predict` does, with every intermediate value; results have their uncertainty."""
        batch = self.prepare(images)
        features = self.features(batch)
        proposals = self.propose(features, batch)
        detections = self.detect(features, proposals, batch)
        regions = Regions.from_lists([d.boxes for d in detections], [d.labels for d in detections])
        steps = None
        if isinstance(self.mask_head, RenderedMaskHead):
            logits, steps = self.mask_head.trace(features, regions)
        else:
            logits = self.mask_head.predict(features, regions)
        results = self.finish(images, batch, detections, regions.split(logits, len(images)), uncertainty=True)
        return InstanceTrace(batch, features, proposals, detections, regions, logits, steps, results)

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[InstanceTarget],
        *,
        generator: Generators = None,
    ) -> Losses:
        """Training losses by name, scalars to be summed; means over images, proposals and boxes.

        Crowds and boxes without area are no targets. An image without objects is background everywhere. Masks of
        targets with labelled points are learnt from these alone, in the proposals.

        Args:
            images: uint8 (3, h, w) RGB at the size to train on.
            targets: their objects, in these pixels.
            generator: for a reproducible choice of anchors, proposals and points; one, or one for each image.

        Raises:
            ValueError: on targets that do not fit their images or classes.
            FloatingPointError: when a loss or a box is NaN or infinite; says which.
        """
        check_instance_targets(images, targets, self.config.num_classes)
        batch = batch_images(images, self.config.preprocessing, self.device)
        boxes, labels, masks = objects_to_learn(targets, self.device)
        points = points_to_learn(targets, self.device)
        features = self.features(batch)
        anchors = self.rpn([features[level] for level in PROPOSED])
        rpn_losses = self.rpn.loss(anchors, boxes, generator=generator)
        proposals = self.rpn.propose(anchors, batch.sizes, training=True)
        sampled = self.box_head.sample([p.boxes for p in proposals], boxes, labels, generator=generator)
        logits, deltas = self.box_head(self.box_head.pool(self._pooled(features), [s.boxes for s in sampled]))
        box_losses = self.box_head.loss(logits, deltas, sampled)
        # A predicted box may miss most of the few labelled points.
        on_predicted = self.config.masks.train_on_predicted_boxes and points is None
        regions, matched = self.box_head.positives(sampled, deltas, predicted=on_predicted)
        mask_targets = (
            TrueMasks(regions, matched, masks)
            if points is None
            else PointsInBoxes.of(points, regions, matched)
        )
        mask_losses = self.mask_head.loss(features, mask_targets, generator=generator)
        losses = rpn_losses | box_losses | mask_losses
        _check_finite(losses)
        counts = dict.fromkeys(rpn_losses, len(images)) | dict.fromkeys(box_losses, len(logits))
        return Losses(losses, counts | dict.fromkeys(mask_losses, len(regions)))

    # The steps of a prediction.

    def prepare(self, images: Sequence[Tensor]) -> ImageBatch:
        """Images of any sizes, resized, normalised and padded into one batch."""
        return prepare_images(images, self.config.preprocessing, self.device)

    @in_own_precision
    def features(self, batch: ImageBatch) -> Features:
        """Maps of the backbone and of the pyramid."""
        maps: Features = self.backbone(batch.tensor)
        pyramid: Features = self.fpn(maps)
        return maps | pyramid

    @in_own_precision
    def propose(self, features: Features, batch: ImageBatch) -> list[Proposals]:
        """Candidate boxes of each image."""
        anchors = self.rpn([features[level] for level in PROPOSED])
        return self.rpn.propose(anchors, batch.sizes)

    @torch.no_grad()
    @in_own_precision
    def detect(
        self, features: Features, proposals: Sequence[Proposals], batch: ImageBatch
    ) -> list[Detections]:
        """Boxes, classes and scores of each image, in pixels of the network's input."""
        boxes = [p.boxes for p in proposals]
        logits, deltas = self.box_head(self.box_head.pool(self._pooled(features), boxes))
        return self.box_head.detect(logits, deltas, boxes, batch.sizes)

    @torch.no_grad()
    @in_own_precision
    def masks_for_boxes(
        self, features: Features, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """The mask branch alone, for boxes from anywhere: mask logits (D, S, S) for each image.

        Args:
            features: of :meth:`features`.
            boxes: (D, 4) for each image, in pixels of the network's input. labels: (D,) class of each.

        Raises:
            ValueError: on boxes that are not finite, and on labels outside of 0..K-1.
        """
        regions = Regions.from_lists(boxes, labels)
        regions.check(self.config.num_classes)
        return regions.split(self.mask_head.predict(features, regions), len(boxes))

    def finish(
        self,
        images: Sequence[Tensor],
        batch: ImageBatch,
        detections: Sequence[Detections],
        logits: Sequence[Tensor],
        *,
        uncertainty: bool = False,
    ) -> list[InstanceResult]:
        """Boxes and masks in the pixels of the original images; boxes that vanish there are dropped."""
        results = []
        for image, size, found, mask in zip(images, batch.sizes, detections, logits, strict=True):
            original = (image.shape[1], image.shape[2])
            scale = found.boxes.new_tensor([original[1] / size[1], original[0] / size[0]]).repeat(2)
            boxes = clip_boxes(found.boxes * scale, original)
            keep = has_area(boxes)
            probability = mask[keep].sigmoid()
            results.append(
                InstanceResult(
                    boxes[keep].cpu(),
                    found.labels[keep].cpu(),
                    found.scores[keep].cpu(),
                    paste_masks(probability, boxes[keep], original),
                    self.config.class_names,
                    1 - (2 * probability - 1).abs().cpu() if uncertainty else None,
                )
            )
        return results

    @property
    def device(self) -> torch.device:
        return self.rpn.conv.weight.device

    def _pooled(self, features: Features) -> list[Tensor]:
        return [features[level] for level in POOLED]


def _check_finite(losses: dict[str, Tensor]) -> None:
    values = torch.stack([value.detach() for value in losses.values()]).tolist()
    wrong = {name: value for name, value in zip(losses, values, strict=True) if not -1e30 < value < 1e30}
    if wrong:
        raise FloatingPointError(
            f"losses are NaN or infinite: {wrong}; the training has diverged: lower its rate"
        )
