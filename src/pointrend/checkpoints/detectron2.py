"""Detectron2's PointRend, Implicit PointRend and Mask R-CNN checkpoints: tables of names, and the
architecture read off their shapes.

The published files are pickles `{"model": {name: array}, "__author__": ..}`, one's own training writes
`.pth`. Not in a file, and so taken from the published configurations: the stride convention (1x1 for
ResNet-50 and -101, 3x3 for ResNeXt), normalisation, test size, points and steps.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, count, current_name, rename, reverse, translate
from pointrend.checkpoints.native import Config, build_from, own_model
from pointrend.io import atomic_write
from pointrend.models.backbones import BackboneConfig
from pointrend.models.inputs import Preprocessing
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.published import (
    R_50,
    R_101,
    X_101,
    detectron2_instance,
    detectron2_semantic,
    named,
)
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter

BACKBONE: list[Row] = [
    ("backbone.bottom_up.stem.conv1.weight", "backbone.stem.0.weight"),
    ("backbone.bottom_up.stem.conv1.norm.{rest}", "backbone.stem.1.{rest}"),
    ("backbone.bottom_up.res{s}.{b}.conv{c}.weight", "backbone.res{s}.{b}.conv{c}.weight"),
    ("backbone.bottom_up.res{s}.{b}.conv{c}.norm.{rest}", "backbone.res{s}.{b}.bn{c}.{rest}"),
    ("backbone.bottom_up.res{s}.{b}.shortcut.weight", "backbone.res{s}.{b}.downsample.0.weight"),
    ("backbone.bottom_up.res{s}.{b}.shortcut.norm.{rest}", "backbone.res{s}.{b}.downsample.1.{rest}"),
    ("backbone.fpn_lateral{i}.{rest}", "fpn.inner_blocks.{i-2}.0.{rest}"),
    ("backbone.fpn_output{i}.{rest}", "fpn.layer_blocks.{i-2}.0.{rest}"),
]
BOXES: list[Row] = [
    ("proposal_generator.rpn_head.conv.{rest}", "rpn.conv.{rest}"),
    ("proposal_generator.rpn_head.objectness_logits.{rest}", "rpn.objectness.{rest}"),
    ("proposal_generator.rpn_head.anchor_deltas.{rest}", "rpn.deltas.{rest}"),
    ("roi_heads.box_head.fc{i}.{rest}", "box_head.fc{i}.{rest}"),
    ("roi_heads.box_predictor.cls_score.{rest}", "box_head.classes.{rest}"),
    ("roi_heads.box_predictor.bbox_pred.{rest}", "box_head.deltas.{rest}"),
]
_COARSE = "roi_heads.mask_head.coarse_head"
_POINTS = "roi_heads.mask_head.point_head"
POINTREND_MASKS: list[Row] = [
    (f"{_COARSE}.reduce_channel_dim_conv.{{rest}}", "mask_head.coarse_head.reduce_channels.{rest}"),
    (f"{_COARSE}.reduce_spatial_dim_conv.{{rest}}", "mask_head.coarse_head.reduce_size.{rest}"),
    (f"{_COARSE}.fc{{i}}.{{rest}}", "mask_head.coarse_head.fc{i}.{rest}"),
    (f"{_COARSE}.prediction.{{rest}}", "mask_head.coarse_head.prediction.{rest}"),
    (f"{_POINTS}.fc{{i}}.{{rest}}", "mask_head.point_head.layers.{i-1}.{rest}"),
    (f"{_POINTS}.predictor.{{rest}}", "mask_head.point_head.predictor.{rest}"),
]
_PARAMETERS = "roi_heads.mask_head.parameter_head"
IMPLICIT_MASKS: list[Row] = [
    (theirs.replace(_COARSE, _PARAMETERS), ours.replace("coarse_head", "parameter_head"))
    for theirs, ours in POINTREND_MASKS
    if theirs.startswith(_COARSE)
] + [(f"{_POINTS}.positional_encoding_gaussian_matrix", "mask_head.point_head.frequencies")]
CONV_MASKS: list[Row] = [
    ("roi_heads.mask_head.mask_fcn{i}.{rest}", "mask_head.convs.{i-1}.{rest}"),
    ("roi_heads.mask_head.deconv.{rest}", "mask_head.deconv.{rest}"),
    ("roi_heads.mask_head.predictor.{rest}", "mask_head.predictor.{rest}"),
]
_SEMANTIC = "sem_seg_head.coarse_sem_seg_head"
SEMANTIC: list[Row] = [
    (f"{_SEMANTIC}.p{{l}}.{{j}}.weight", "decoder.branches.p{l}.{j}.0.weight"),
    (f"{_SEMANTIC}.p{{l}}.{{j}}.norm.{{rest}}", "decoder.branches.p{l}.{j}.1.{rest}"),
    (f"{_SEMANTIC}.predictor.{{rest}}", "decoder.predictor.{rest}"),
    ("sem_seg_head.point_head.fc{i}.{rest}", "point_rend.head.layers.{i-1}.{rest}"),
    ("sem_seg_head.point_head.predictor.{rest}", "point_rend.head.predictor.{rest}"),
]
# Names of 2020: the mask heads beside each other instead of one in the other, other names of the coarse
# layers.
ALIASES: list[Row] = [
    ("roi_heads.mask_coarse_head.{rest}", f"{_COARSE}.{{rest}}"),
    ("roi_heads.mask_point_head.{rest}", f"{_POINTS}.{{rest}}"),
    (f"{_COARSE}.coarse_mask_fc{{i}}.{{rest}}", f"{_COARSE}.fc{{i}}.{{rest}}"),
]
IGNORED = [
    "proposal_generator.anchor_generator.cell_anchors.{i}",  # computed
    "pixel_mean",  # read by `infer_config`
    "pixel_std",
]


def from_detectron2(
    path: str | Path,
    *,
    config: InstanceConfig | SemanticConfig | None = None,
    class_names: Sequence[str] = (),
) -> InstanceSegmenter | SemanticSegmenter:
    """The model of a Detectron2 checkpoint, `.pkl` or `.pth`, in evaluation mode.

    Args:
        path: of the file.
        config: instead of the one read off the file by `infer_config`, for a model trained with other settings than
            the published ones; `dataclasses.replace(model.config, ..)` of a first attempt is a way to get it.
        class_names: in the order of the file's outputs. It does not name them: "class 0", "class 1", .. if not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unreadable file, an architecture that is not here, or names or shapes that do not fit
            exactly, all of which it lists.
    """
    tensors = read_foreign(path).tensors
    if config is None:
        config = infer_config(tensors, class_names, source=str(path))
    renamed = rename(tensors, _rows(config), aliases=ALIASES, ignored=IGNORED, source=str(path))
    model = build_from(config, renamed, source=str(path))
    assert isinstance(model, InstanceSegmenter | SemanticSegmenter)
    return model


def to_detectron2(model: nn.Module, path: str | Path) -> None:
    """Write a model as a `.pkl` that Detectron2 loads, under the names of its published checkpoints.

    Raises ValueError where Detectron2 has no such model: another backbone than its ResNets and ResNeXt,
    trained batch norm, a residual point head, DeepLabV3..
    """
    rows = reverse(_rows(_exportable(own_model(model).config)))
    arrays = {}
    for name, tensor in model.state_dict().items():
        theirs = translate(name, rows)
        if theirs is None:
            raise ValueError(f"{name}: Detectron2 has no name for it")
        arrays[theirs] = tensor.detach().cpu().float().numpy()
    with atomic_write(path) as part, part.open("wb") as file:
        # "matching_heuristics" is absent: Detectron2 then wants the names exactly.
        pickle.dump({"model": arrays, "__author__": "pointrend"}, file, protocol=4)


def _exportable(config: Config) -> InstanceConfig | SemanticConfig:
    if not isinstance(config, InstanceConfig | SemanticConfig):
        raise ValueError("Detectron2's PointRend has no model with an attached network")
    backbone = config.backbone
    head = config.masks if isinstance(config, InstanceConfig) else config.point_rend
    problems = {
        "a backbone of another library": backbone.library != "",
        "MobileNetV2": backbone.name == "mobilenet_v2",
        "a narrow ResNet": backbone.name == "resnet10_w16",
        "a deep stem": backbone.deep_stem,
        "trained batch norm": backbone.norm == "batch",
        "a residual point head": head is not None and head.residual,
        "masks of 56x56 or 224x224 by convolutions": getattr(config, "mask_head", "")
        in ("conv56", "conv224"),
        "DeepLabV3": getattr(config, "decoder", "") == "deeplab",
        "batch norm in the semantic head": getattr(config, "decoder_norm", "GN") != "GN",
        "a coarse stride of its own": getattr(config, "coarse_stride", None) is not None,
        "a semantic model without point head": head is None,
    }
    found = [name for name, present in problems.items() if present]
    if found:
        raise ValueError(f"Detectron2's PointRend has no model with {' and '.join(found)}")
    return config


def _rows(config: InstanceConfig | SemanticConfig) -> list[Row]:
    if isinstance(config, SemanticConfig):
        return BACKBONE + SEMANTIC
    masks = {"pointrend": POINTREND_MASKS, "coarse": POINTREND_MASKS, "implicit": IMPLICIT_MASKS}
    return BACKBONE + BOXES + masks.get(config.mask_head, CONV_MASKS)


def infer_config(
    tensors: Mapping[str, Tensor], class_names: Sequence[str] = (), *, source: str = "checkpoint"
) -> InstanceConfig | SemanticConfig:
    """The architecture that these names and shapes belong to; settings that leave no trace as published.

    Raises ValueError for an architecture that is not here, and for another number of class names.
    """
    names = {current_name(name, ALIASES): tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        backbone = _infer_backbone(names)
        infer = _infer_semantic if f"{_SEMANTIC}.predictor.weight" in names else _infer_instance
        config = infer(names, backbone, class_names)
        return replace(config, preprocessing=_infer_preprocessing(tensors, config.preprocessing))
    except (KeyError, IndexError) as error:
        some = ", ".join(list(names)[:5])
        raise ValueError(
            f"{source}: not a PointRend or Mask R-CNN of Detectron2 with FPN, {error} is missing; it has {some}, .."
        ) from error


def _infer_backbone(names: Mapping[str, tuple[int, ...]]) -> BackboneConfig:
    blocks = [count(names, f"backbone.bottom_up.res{stage}.{{b}}.conv1.weight") for stage in (2, 3, 4, 5)]
    grouped = names["backbone.bottom_up.res2.0.conv2.weight"][:2] == (256, 8)
    bottleneck = "backbone.bottom_up.res2.0.conv3.weight" in names
    known = {
        ((3, 4, 6, 3), True, False): R_50,
        ((3, 4, 23, 3), True, False): R_101,
        ((3, 4, 23, 3), True, True): X_101,
        ((2, 2, 2, 2), False, False): BackboneConfig("resnet18"),
        ((3, 4, 6, 3), False, False): BackboneConfig("resnet34"),
    }
    key = ((blocks[0], blocks[1], blocks[2], blocks[3]), bottleneck, grouped)
    if key not in known:
        raise ValueError(f"a ResNet with {blocks} blocks ({bottleneck=}, {grouped=}) is not supported")
    return known[key]


def _infer_preprocessing(tensors: Mapping[str, Tensor], published: Preprocessing) -> Preprocessing:
    """The published pixels, or those of the file: only files of 2020 and before have them, as BGR."""
    if "pixel_mean" not in tensors or "pixel_std" not in tensors:
        return published
    mean, std = (
        tuple(round(value, 4) for value in reversed(tensors[name].flatten().tolist()))
        for name in ("pixel_mean", "pixel_std")
    )
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"pixel_mean and pixel_std: expected 3 values each, got {mean} and {std}")
    return replace(published, mean=mean, std=std)


def _infer_instance(
    names: Mapping[str, tuple[int, ...]], backbone: BackboneConfig, class_names: Sequence[str]
) -> InstanceConfig:
    classes = names["roi_heads.box_predictor.cls_score.weight"][0] - 1
    implicit = f"{_PARAMETERS}.fc1.weight" in names
    config = detectron2_instance(
        named(class_names, classes), backbone, mask_head="implicit" if implicit else "pointrend"
    )
    config = replace(
        config,
        fpn_channels=names["backbone.fpn_lateral2.weight"][0],
        boxes=replace(config.boxes, width=names["roi_heads.box_head.fc1.weight"][0]),
    )
    if "roi_heads.mask_head.mask_fcn1.weight" in names:
        masks = replace(
            config.masks,
            width=names["roi_heads.mask_head.deconv.weight"][1],
            class_agnostic=names["roi_heads.mask_head.predictor.weight"][0] == 1 < classes,
            train_on_predicted_boxes=False,
        )
        return replace(config, mask_head="conv28", masks=masks)
    head = _PARAMETERS if implicit else _COARSE
    width, hidden = names[f"{head}.reduce_spatial_dim_conv.weight"][0], names[f"{head}.fc1.weight"][0]
    cells = names[f"{head}.fc1.weight"][1] // width
    masks = replace(config.masks, width=width, coarse_width=hidden, coarse_size=round(cells**0.5))
    if implicit:  # a published depth and one mask for each class; other sizes do not fit and are refused
        return replace(config, masks=masks)
    if f"{_POINTS}.predictor.weight" not in names:
        return replace(config, mask_head="coarse", masks=masks)
    masks = replace(
        masks,
        class_agnostic=names[f"{_POINTS}.predictor.weight"][0] == 1 < classes,
        depth=count(names, f"{_POINTS}.fc{{i}}.weight"),
        coarse_each_layer=names[f"{_POINTS}.predictor.weight"][1] > names[f"{_POINTS}.fc1.weight"][0],
    )
    return replace(config, masks=masks)


def _infer_semantic(
    names: Mapping[str, tuple[int, ...]], backbone: BackboneConfig, class_names: Sequence[str]
) -> SemanticConfig:
    decoder_channels, classes = names[f"{_SEMANTIC}.predictor.weight"][1::-1]
    point_head = "sem_seg_head.point_head"
    width = names[f"{point_head}.fc1.weight"][0]
    config = detectron2_semantic(named(class_names, classes), backbone=backbone)
    assert config.point_rend is not None
    rend = replace(
        config.point_rend,
        width=width,
        depth=count(names, f"{point_head}.fc{{i}}.weight"),
        coarse_each_layer=names[f"{point_head}.predictor.weight"][1] > width,
    )
    return replace(
        config,
        fpn_channels=names["backbone.fpn_lateral2.weight"][0],
        decoder_channels=decoder_channels,
        point_rend=rend,
    )
