"""A whole training as one value: network, random changes of the images, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pointrend.checkpoints.native import Config
from pointrend.data.transforms import Compose, RandomCrop, ResizeShortEdge, SamplePoints, SampleTransform
from pointrend.models.attached import AttachedConfig
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import with_backbone
from pointrend.models.instance import InstanceConfig
from pointrend.models.published import Palette, with_classes
from pointrend.training.recipe import Recipe

DataName = Literal["any", "coco", "cityscapes:instance", "cityscapes:semantic", "ade20k"]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything but the images: a published training (`training.published`) or a preset (`training.presets`)."""

    name: str
    data: DataName
    """The dataset in its official layout; "any" for presets."""
    network: Config
    """The network; its class names stand for those of the data that it will be trained on."""
    augmentation: tuple[SampleTransform, ...]
    """Random changes of each image, in this order."""
    recipe: Recipe
    pretrained: str = ""
    """The ImageNet weights that the backbone starts from, by their name in `zoo.backbones`; random if empty."""
    point_labels: bool = False
    """Masks are learnt from labelled points (PointSup); data without them is refused."""
    notes: str = field(default="", compare=False)

    @property
    def task(self) -> Literal["instance", "semantic"]:
        return "instance" if isinstance(self.network, InstanceConfig) else "semantic"

    @property
    def transforms(self) -> Compose:
        """The augmentation as one callable."""
        return Compose(self.augmentation)

    def config(self, class_names: Sequence[str], palette: Palette = ()) -> Config:
        """The network's configuration for these classes."""
        return with_classes(self.network, class_names, palette)

    def shortened(self, steps: int) -> TrainingConfig:
        """The same training in so many updates: everything of its schedule happens at the same part of it."""
        scale = steps / self.recipe.steps
        recipe = replace(
            self.recipe,
            steps=steps,
            milestones=tuple(dict.fromkeys(round(at * scale) for at in self.recipe.milestones)),
            warmup_steps=round(self.recipe.warmup_steps * scale),
            poly_start=round(self.recipe.poly_start * scale),
        )
        return replace(self, recipe=recipe)

    def with_point_head(
        self,
        *,
        sampling: Mapping[str, Any] | None = None,
        num_points: int | None = None,
        subdivision_steps: int | None = None,
        depth: int | None = None,
        width: int | None = None,
        residual: bool | None = None,
    ) -> TrainingConfig:
        """The same training with another point head, or other points.

        Args:
            sampling: fields of `PointSampling`: how training points are chosen (N, k, beta, strategy).
            num_points: points of each subdivision step at inference.
            subdivision_steps: doublings at inference; for boxes they start from the grid that `num_points` cover.
            depth, width: hidden layers, and channels of each.
            residual: predict a correction of the interpolated coarse logits instead of the logits (the paper's).

        Raises:
            ValueError: if the network has no such point head.
        """
        network = self.network
        given = {"num_points": num_points, "depth": depth, "residual": residual}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if isinstance(network, InstanceConfig):
            own_layers = (
                depth is None and width is None and residual is None
            )  # Implicit PointRend's are predicted
            if network.mask_head != "pointrend" and not (network.mask_head == "implicit" and own_layers):
                raise ValueError(f"{self.name}: expected PointRend's mask head, got {network.mask_head!r}")
            changes |= {"sampling": replace(network.masks.sampling, **(sampling or {}))}
            masks = replace(
                network.masks, **changes, point_width=network.masks.point_width if width is None else width
            )
            if subdivision_steps is not None:
                masks = replace(masks, mask_size=masks.start_size * 2**subdivision_steps)
            return replace(self, network=replace(network, masks=masks))
        rend = network.point_rend
        if rend is None:
            raise ValueError(f"{self.name}: a network without point head has no points to change")
        steps = rend.subdivision_steps if subdivision_steps is None else subdivision_steps
        changes |= {"sampling": replace(rend.sampling, **(sampling or {})), "subdivision_steps": steps}
        rend = replace(rend, **changes, width=rend.width if width is None else width)
        return replace(self, network=replace(network, point_rend=rend))

    def with_sampled_points(self, count: int) -> TrainingConfig:
        """The same training with point augmentation: so many of each object's labelled points, drawn anew each time.

        Args:
            count: points; 0 takes all.

        Raises:
            ValueError: for semantic models, or a negative number.
        """
        if self.task != "instance":
            raise ValueError(
                "sample points: label maps have no objects; semantic models learn from every pixel"
            )
        steps = tuple(step for step in self.augmentation if not isinstance(step, SamplePoints))
        return replace(self, augmentation=(*steps, SamplePoints(count)) if count else steps)

    def with_backbone(self, name: str) -> TrainingConfig:
        """The same training of another backbone, all of it trained from random weights unless others are given.

        Args:
            name: of a `BackboneConfig`, such as "resnet34", "timm/convnext_atto" or "torchvision/swin_t".

        Raises:
            ValueError: there is no such backbone, or none to replace. ImportError: its library is not installed.
        """
        if isinstance(self.network, AttachedConfig):
            raise ValueError(f"{self.name}: expected a network of ours, got one that is attached")
        backbone = BackboneConfig(
            name, norm=self.network.backbone.norm, output_stride=self.network.backbone.output_stride
        )
        network = replace(with_backbone(self.network, backbone), freeze_stages=0)
        return replace(self, network=network, pretrained="")

    def without_points(self) -> TrainingConfig:
        """The paper's baseline: masks of 28x28 by four convolutions, or the coarse logits interpolated."""
        if isinstance(self.network, InstanceConfig):
            masks = replace(self.network.masks, train_on_predicted_boxes=False)  # as Mask R-CNN has it
            return replace(self, network=replace(self.network, mask_head="conv28", masks=masks))
        return replace(self, network=replace(self.network, point_rend=None))

    def with_crop(self, height: int, width: int) -> TrainingConfig:
        """The same training on crops of another size.

        Raises:
            ValueError: for instance models, which are trained on full images.
        """
        if self.task == "instance":
            raise ValueError("crop: semantic models are trained on crops; choose the short edge by --size")
        steps = tuple(
            replace(step, height=height, width=width) if isinstance(step, RandomCrop) else step
            for step in self.augmentation
        )
        return replace(self, augmentation=steps)

    def with_size(self, short_edge: int) -> TrainingConfig:
        """The same training on images of another size, in training and at inference; all edges in proportion.

        Raises:
            ValueError: for semantic models, which see crops.
        """
        if not isinstance(self.network, InstanceConfig):
            raise ValueError(
                "size: instance models are trained on full images, semantic ones on crops; choose the crop by --crop"
            )
        pixels = self.network.preprocessing
        scale = short_edge / (pixels.short_edge or short_edge)

        def scaled(edge: int | None) -> int | None:
            return None if edge is None else max(1, round(edge * scale))

        steps = tuple(
            ResizeShortEdge(tuple(max(1, round(size * scale)) for size in step.sizes), scaled(step.longest))
            if isinstance(step, ResizeShortEdge)
            else step
            for step in self.augmentation
        )
        pixels = replace(pixels, short_edge=short_edge, long_edge=scaled(pixels.long_edge))
        return replace(self, augmentation=steps, network=replace(self.network, preprocessing=pixels))
