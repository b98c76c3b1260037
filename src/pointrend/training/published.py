"""The published trainings, one an entry, named as in the model zoos of Detectron2 and MMSegmentation.

An entry is everything but the classes: the network with its frozen stages, points and test size, the random
changes of the images, and the recipe. Sources: Detectron2's PointRend configurations (merged with their bases),
MMSegmentation's, and appendix B of the paper for DeepLabV3, whose models were never released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pointrend.core.selection import PointSampling
from pointrend.data.transforms import (
    ColorJitter,
    Compose,
    RandomCrop,
    RandomFit,
    RandomFlip,
    ResizeShortEdge,
    SampleTransform,
)
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig
from pointrend.models.mask_heads.coarse import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig
from pointrend.training.recipe import Recipe

Config = InstanceConfig | SemanticConfig
Palette = Sequence[tuple[int, int, int]]
DataName = Literal["coco", "cityscapes:instance", "cityscapes:semantic", "ade20k"]

BGR = Preprocessing(
    std=(1.0, 1.0, 1.0), channel_order="BGR"
)  # Caffe2's: the mean is subtracted, nothing else
BGR_STD = Preprocessing(std=(58.395, 57.12, 57.375), channel_order="BGR")
R_50 = BackboneConfig("resnet50", stride_in_1x1=True)
R_101 = BackboneConfig("resnet101", stride_in_1x1=True)
X_101 = BackboneConfig("resnext101_32x8d")


@dataclass(frozen=True)
class Published:
    """One training of the papers and their code."""

    name: str
    data: DataName
    """The data set in its official layout."""
    network: Config
    """The network; its class names stand for those of the data that it will be trained on."""
    augmentation: tuple[SampleTransform, ...]
    """Random changes of each image, in this order."""
    recipe: Recipe
    pretrained: str = ""
    """The ImageNet weights that the backbone starts from, by the name that their publishers gave them."""
    notes: str = field(default="", compare=False)

    @property
    def task(self) -> Literal["instance", "semantic"]:
        return "instance" if isinstance(self.network, InstanceConfig) else "semantic"

    @property
    def transforms(self) -> Compose:
        """The augmentation as one callable."""
        return Compose(self.augmentation)

    def config(self, class_names: Sequence[str], palette: Palette = ()) -> Any:
        """The network's configuration for these classes: `InstanceConfig` or `SemanticConfig`."""
        if isinstance(self.network, InstanceConfig):
            return replace(self.network, class_names=tuple(class_names))
        return replace(self.network, class_names=tuple(class_names), palette=tuple(palette))

    def shortened(self, steps: int) -> Published:
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

    def with_points(
        self,
        *,
        sampling: PointSampling | None = None,
        count: int | None = None,
        steps: int | None = None,
    ) -> Published:
        """The same training with other points.

        Args:
            sampling: how training points are chosen (N, k, beta, strategy).
            count: points of each subdivision step at inference.
            steps: doublings at inference; for boxes they start from the grid that `count` points cover.

        Raises:
            ValueError: if the network has no point head.
        """
        network = self.network
        if isinstance(network, InstanceConfig):
            masks = replace(
                network.masks,
                sampling=sampling or network.masks.sampling,
                points=count or network.masks.points,
            )
            if steps is not None:
                masks = replace(masks, side=masks.start_side * 2**steps)
            return replace(self, network=replace(network, masks=masks))
        if network.point_rend is None:
            raise ValueError(f"{self.name}: a network without point head has no points to choose")
        rend = replace(
            network.point_rend,
            sampling=sampling or network.point_rend.sampling,
            count=count or network.point_rend.count,
            steps=network.point_rend.steps if steps is None else steps,
        )
        return replace(self, network=replace(network, point_rend=rend))


def _coco(name: str, backbone: BackboneConfig, schedule: Literal["1x", "3x"], **changes: Any) -> Published:
    steps, milestones = (90_000, (60_000, 80_000)) if schedule == "1x" else (270_000, (210_000, 250_000))
    preprocessing = BGR_STD if backbone == X_101 else BGR
    return Published(
        name,
        "coco",
        InstanceConfig(
            class_names=tuple(f"class {number}" for number in range(80)),
            backbone=backbone,
            preprocessing=replace(preprocessing, short_edge=800, long_edge=1333),
            freeze_stages=2,
            head="implicit" if name.startswith("implicit") else "pointrend",
            masks=MaskConfig(**changes),
        ),
        (ResizeShortEdge((640, 672, 704, 736, 768, 800), 1333), RandomFlip()),
        Recipe(
            steps=steps,
            batch_size=16,
            learning_rate=0.02,
            schedule="milestones",
            milestones=milestones,
            warmup_steps=1000,
            group_by_aspect=True,
            state_every=5000,
        ),
        pretrained={R_50: "MSRA/R-50", R_101: "MSRA/R-101", X_101: "FAIR/X-101-32x8d"}[backbone],
    )


def _cityscapes_instance() -> Published:
    base = _coco("pointrend_rcnn_R_50_FPN_1x_cityscapes", R_50, "1x")
    edges = tuple(range(800, 1025, 32))
    return replace(
        base,
        data="cityscapes:instance",
        network=replace(
            base.network,
            class_names=tuple(f"class {number}" for number in range(8)),
            preprocessing=replace(BGR, short_edge=1024, long_edge=2048),
        ),
        augmentation=(ResizeShortEdge(edges, 2048), RandomFlip()),
        recipe=replace(base.recipe, steps=24_000, batch_size=8, learning_rate=0.01, milestones=(18_000,)),
    )


def _street(channels: int = 19) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(channels))


def _semantic_fpn() -> Published:
    return Published(
        "pointrend_semantic_R_101_FPN_1x_cityscapes",
        "cityscapes:semantic",
        SemanticConfig(
            _street(),
            backbone=R_101,
            preprocessing=replace(BGR, short_edge=1024, long_edge=2048),
            point_rend=SemanticPointRendConfig(
                coarse_each_layer=False, sampling=PointSampling(2048), count=8192, steps=2
            ),
        ),
        (
            ResizeShortEdge(tuple(range(512, 2049, 256)), 4096),  # scales 0.5, 0.75 .. 2
            RandomCrop(512, 1024, largest_share=0.75),
            ColorJitter(),
            RandomFlip(),
        ),
        Recipe(
            steps=65_000,
            batch_size=32,
            learning_rate=0.01,
            schedule="milestones",
            milestones=(40_000, 55_000),
            warmup_steps=1000,
            state_every=5000,
        ),
        pretrained="MSRA/R-101",
    )


def _deeplab() -> Published:
    return Published(
        "pointrend_deeplabv3_R_103_cityscapes",
        "cityscapes:semantic",
        SemanticConfig(
            _street(),
            backbone=BackboneConfig("resnet101", norm="batch", deep_stem=True, output_stride=16),
            preprocessing=Preprocessing(short_edge=1024, long_edge=2048),
            head="deeplab",
            head_channels=256,
            point_rend=SemanticPointRendConfig(
                features=("res2",), sampling=PointSampling(2048), count=8192, steps=4
            ),
        ),
        (
            ResizeShortEdge(tuple(range(512, 2049, 256)), 4096),
            RandomCrop(768, 768, largest_share=1.0),
            ColorJitter(),
            RandomFlip(),
        ),
        Recipe(
            steps=90_000,
            batch_size=16,
            learning_rate=0.01,
            rate_factors=(("head", 10.0),),  # ASPP and the prediction
            schedule="poly",
            warmup_steps=1000,
            state_every=5000,
        ),
        notes="paper, appendix B; no code or model was released",
    )


def _mmsegmentation(name: str, depth: Literal[50, 101], data: Literal["cityscapes", "ade20k"]) -> Published:
    street = data == "cityscapes"
    return Published(
        name,
        "cityscapes:semantic" if street else "ade20k",
        SemanticConfig(
            _street(19 if street else 150),
            backbone=BackboneConfig("resnet50" if depth == 50 else "resnet101", norm="batch", deep_stem=True),
            preprocessing=Preprocessing(
                short_edge=1024 if street else 512, long_edge=2048, resize="cv2", divisor=1
            ),
            head_norm="BN",
            predictor_std=0.01,  # of the classifiers in 0.x, which the published models were trained with
            loss_normalize="all",
            point_rend=SemanticPointRendConfig(sampling=PointSampling(2048), count=8196, steps=2),
        ),
        (
            RandomFit(2048, 1024 if street else 512, 0.5, 2.0),
            RandomCrop(512, 1024 if street else 512, largest_share=0.75),
            RandomFlip(),
            ColorJitter(),
        ),
        Recipe(
            steps=80_000 if street else 160_000,
            batch_size=8 if street else 16,
            learning_rate=0.01,
            weight_decay=5e-4,
            norm_weight_decay=5e-4,
            schedule="poly",
            poly_start=200,
            poly_floor=0.01,  # eta_min 1e-4
            warmup_steps=200,
            warmup_factor=0.1,
            state_every=8000 if street else 16_000,
        ),
        pretrained=f"openmmlab/resnet{depth}_v1c",
    )


# No importance sampling and training on the proposals: Implicit PointRend needs no coarse prediction to do better.
_IMPLICIT = {"sampling": PointSampling.uniform(196), "train_on_predicted_boxes": False}

RECIPES: dict[str, Published] = {
    entry.name: entry
    for entry in (
        _coco("pointrend_rcnn_R_50_FPN_1x_coco", R_50, "1x"),
        _coco("pointrend_rcnn_R_50_FPN_3x_coco", R_50, "3x"),
        _coco("pointrend_rcnn_R_101_FPN_3x_coco", R_101, "3x"),
        _coco("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", X_101, "3x"),
        _cityscapes_instance(),
        _semantic_fpn(),
        _deeplab(),
        _coco("implicit_pointrend_R_50_FPN_1x_coco", R_50, "1x", **_IMPLICIT),
        _coco("implicit_pointrend_R_50_FPN_3x_coco", R_50, "3x", **_IMPLICIT),
        _mmsegmentation("pointrend_r50_4xb2-80k_cityscapes-512x1024", 50, "cityscapes"),
        _mmsegmentation("pointrend_r101_4xb2-80k_cityscapes-512x1024", 101, "cityscapes"),
        _mmsegmentation("pointrend_r50_4xb4-160k_ade20k-512x512", 50, "ade20k"),
        _mmsegmentation("pointrend_r101_4xb4-160k_ade20k-512x512", 101, "ade20k"),
    )
}
"""Every published training by name."""


def find_recipe(name: str) -> Published:
    """The published training of this name.

    Raises:
        ValueError: if there is none; lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are\n  " + "\n  ".join(RECIPES))
    return RECIPES[name]
