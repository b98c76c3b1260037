"""The published networks, each described once.

Trainings start from these descriptions, and readers of checkpoints take from them what leaves no trace in names and
shapes: pixels, test size, stride convention, points. Sources: Detectron2's PointRend configurations (merged with their
bases), MMSegmentation's and MMDetection's, and for DeepLabV3 the paper's appendix B, whose model was never released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from pointrend.core.selection import PointSampling
from pointrend.models.backbones import BackboneConfig
from pointrend.models.base import ModelConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig
from pointrend.models.semantic_model import LabelMapConfig
from pointrend.structures import numbered_names

NetworkConfig = InstanceConfig | SemanticConfig
Config = TypeVar("Config", bound=ModelConfig)
Palette = Sequence[tuple[int, int, int]]

BGR = Preprocessing(std=(1.0, 1.0, 1.0), channel_order="BGR", short_edge=800, long_edge=1333)
"""Caffe2's pixels: the mean is subtracted, nothing else."""
R_50 = BackboneConfig("resnet50", stride_in_1x1=True)
R_101 = BackboneConfig("resnet101", stride_in_1x1=True)
X_101 = BackboneConfig("resnext101_32x8d")
R_103 = BackboneConfig(
    "resnet101", norm="batch", deep_stem=True, stem_width=64, output_stride=16, multi_grid=(1, 2, 4)
)
"""ResNet-101 with three convolutions for its stem, as Detectron2's DeepLab has it."""


def named(class_names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names, or `numbered_names` where there are none; ValueError for another number of names."""
    if class_names and len(class_names) != count:
        raise ValueError(f"class names: expected {count}, one a class, got {len(class_names)}")
    return tuple(class_names) or numbered_names(count)


def detectron2_instance(
    class_names: Sequence[str],
    backbone: BackboneConfig = R_50,
    *,
    mask_head: Literal["pointrend", "implicit"] = "pointrend",
    test_size: tuple[int, int] = (800, 1333),
) -> InstanceConfig:
    """Mask R-CNN with PointRend (or Implicit PointRend) and FPN as in Detectron2; 1024 x 2048 for Cityscapes."""
    # Implicit PointRend needs no coarse prediction to do better: no importance sampling, trained on the proposals.
    implicit = MaskConfig(sampling=PointSampling.uniform(196), train_on_predicted_boxes=False)
    std = (58.395, 57.12, 57.375) if backbone.name == X_101.name else BGR.std
    return InstanceConfig(
        tuple(class_names),
        backbone,
        replace(BGR, std=std, short_edge=test_size[0], long_edge=test_size[1]),
        mask_head=mask_head,
        freeze_stages=2,
        masks=implicit if mask_head == "implicit" else MaskConfig(),
    )


def mmdetection_instance(class_names: Sequence[str], backbone: BackboneConfig = R_50) -> InstanceConfig:
    """The same network as in MMDetection ("caffe" ResNet): OpenCV's resizing, masks trained on the proposals."""
    config = detectron2_instance(class_names, backbone)
    return replace(
        config,
        preprocessing=replace(config.preprocessing, resize="cv2"),
        masks=replace(config.masks, train_on_predicted_boxes=False),
    )


def detectron2_semantic(class_names: Sequence[str], backbone: BackboneConfig = R_101) -> SemanticConfig:
    """SemanticFPN with PointRend as in Detectron2."""
    return SemanticConfig(
        tuple(class_names),
        backbone=backbone,
        preprocessing=replace(BGR, short_edge=1024, long_edge=2048),
        point_rend=SemanticPointRendConfig(coarse_each_layer=False, num_points=8192, subdivision_steps=2),
    )


def mmsegmentation_semantic(
    class_names: Sequence[str],
    palette: Palette = (),
    *,
    backbone: Literal["resnet50", "resnet101"] = "resnet50",
    short_edge: int = 1024,
) -> SemanticConfig:
    """SemanticFPN with PointRend as in MMSegmentation; short edge 1024 for Cityscapes, 512 for ADE20K. No padding."""
    return SemanticConfig(
        tuple(class_names),
        tuple(palette),
        BackboneConfig(backbone, norm="batch", deep_stem=True),
        Preprocessing(short_edge=short_edge, long_edge=2048, resize="cv2", divisor=1),
        decoder_norm="BN",
        predictor_std=0.01,  # of the classifiers in 0.x, which the published models were trained with
        loss_normalize="all",
        point_rend=SemanticPointRendConfig(
            num_points=8196, subdivision_steps=2
        ),  # as published; 8192 must have been meant
    )


def deeplab(class_names: Sequence[str]) -> SemanticConfig:
    """DeepLabV3 with PointRend, output stride 16 (paper, section 5 and appendix B).

    The backbone is Detectron2's R-103 with multi-grid. Training points are the cells of a 768 crop at stride 16.
    """
    return SemanticConfig(
        tuple(class_names),
        backbone=R_103,
        preprocessing=Preprocessing(short_edge=1024, long_edge=2048),
        decoder="deeplab",
        decoder_channels=256,
        point_rend=SemanticPointRendConfig(
            features=("res2",), sampling=PointSampling(48**2), num_points=8096, subdivision_steps=4
        ),
    )


def with_classes(config: Config, class_names: Sequence[str], palette: Palette = ()) -> Config:
    """The same network for other classes; instance models have no palette."""
    if isinstance(config, LabelMapConfig):
        return replace(config, class_names=tuple(class_names), palette=tuple(palette))
    return replace(config, class_names=tuple(class_names))


_COCO, _STREET, _OBJECTS = numbered_names(80), numbered_names(19), numbered_names(8)

NETWORKS: dict[str, NetworkConfig] = {
    "pointrend_rcnn_R_50_FPN_1x_coco": detectron2_instance(_COCO),
    "pointrend_rcnn_R_50_FPN_3x_coco": detectron2_instance(_COCO),
    "pointrend_rcnn_R_101_FPN_3x_coco": detectron2_instance(_COCO, R_101),
    "pointrend_rcnn_X_101_32x8d_FPN_3x_coco": detectron2_instance(_COCO, X_101),
    "pointrend_rcnn_R_50_FPN_1x_cityscapes": detectron2_instance(_OBJECTS, test_size=(1024, 2048)),
    "pointrend_semantic_R_101_FPN_1x_cityscapes": detectron2_semantic(_STREET),
    "pointrend_deeplabv3_R_103_cityscapes": deeplab(_STREET),
    "implicit_pointrend_R_50_FPN_1x_coco": detectron2_instance(_COCO, mask_head="implicit"),
    "implicit_pointrend_R_50_FPN_3x_coco": detectron2_instance(_COCO, mask_head="implicit"),
    "pointrend_r50_4xb2-80k_cityscapes-512x1024": mmsegmentation_semantic(_STREET),
    "pointrend_r101_4xb2-80k_cityscapes-512x1024": mmsegmentation_semantic(_STREET, backbone="resnet101"),
    "pointrend_r50_4xb4-160k_ade20k-512x512": mmsegmentation_semantic(numbered_names(150), short_edge=512),
    "pointrend_r101_4xb4-160k_ade20k-512x512": mmsegmentation_semantic(
        numbered_names(150), backbone="resnet101", short_edge=512
    ),
    "point-rend_r50-caffe_fpn_ms-1x_coco": mmdetection_instance(_COCO),
    "point-rend_r50-caffe_fpn_ms-3x_coco": mmdetection_instance(_COCO),
}
"""Every published network by its model's name, with numbered classes; `with_classes` gives it others."""
