"""OpenMMLab's PointRend checkpoints: MMSegmentation's (0.x, 1.x) and MMDetection's (COCO instances, "caffe" ResNet).

A table of names for each, and the architecture read off their shapes. The files are `{"meta": {..}, "state_dict":
{..}}`; class names and palette are taken from the metadata ("CLASSES" and "PALETTE" of 0.x, "dataset_meta" of 1.x)
where they are there. Test size, points and steps are the published ones.

MMDetection's was read in its source (2.x and 3.x), nothing run, and no stored outputs of it are at hand: that its
numbers are met is not shown.

- Names: ``CoarseMaskHead``, ``MaskPointHead``, ``PointRendRoIHead``, ``RPNHead``, ``ConvFCBBoxHead`` and
  ``FPN``; the ResNet's are OpenMMLab's usual ones, as the MMSegmentation checkpoints have them.
- Class order: the background is the last of K + 1 class logits, box deltas are class by class, anchors go
  (row, column, shape) with ratios 0.5, 1, 2: all as Detectron2.
- The same arithmetic as here: anchors centred on cell corners and not rounded, deltas scaled by (0.1, 0.1,
  0.2, 0.2), aligned RoIAlign with adaptive sampling, levels by size, score threshold 0.05, NMS 0.5 in each
  class, 100 detections, the 14x14 sample of p2 for the coarse mask, points mapped by box and padded size with
  zeros outside, the paste. Their subdivision starts at 7x7, skips 14x14 and replaces all 784 cells of 28x28:
  our start at 28x28 (tests/checkpoints/test_mmdetection.py).
- Different there, and not followed: proposals are ranked by sigmoids, which tie where they saturate (here by
  logits); a box may shrink by 62.5 at most (here without limit); final NMS runs after scaling to the original
  image (here before); boxes without area keep an (empty) mask.
- Different and followed: images are resized as by OpenCV; masks are trained on proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, count, rename
from pointrend.checkpoints.native import Model, build_from
from pointrend.models.backbones import BackboneConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.published import R_50, R_101, mmdetection_instance, mmsegmentation_semantic, named
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter

COMMON: list[Row] = [
    ("backbone.conv1.{rest}", "backbone.stem.0.{rest}"),
    ("backbone.bn1.{rest}", "backbone.stem.1.{rest}"),
    ("backbone.layer{s}.{b}.{rest}", "backbone.res{s+1}.{b}.{rest}"),
    ("neck.lateral_convs.{i}.conv.{rest}", "fpn.inner_blocks.{i}.0.{rest}"),
    ("neck.fpn_convs.{i}.conv.{rest}", "fpn.layer_blocks.{i}.0.{rest}"),
]
SEMANTIC: list[Row] = [
    ("backbone.stem.{i}.{rest}", "backbone.stem.{i}.{rest}"),  # ResNetV1c's; the common ones are ResNet's
    *COMMON,
    ("decode_head.0.conv_seg.{rest}", "decoder.predictor.{rest}"),
    ("decode_head.0.scale_heads.{i}.{j}.conv.{rest}", "decoder.branches.p{i+2}.{j}.0.{rest}"),
    ("decode_head.0.scale_heads.{i}.{j}.bn.{rest}", "decoder.branches.p{i+2}.{j}.1.{rest}"),
    ("decode_head.1.fcs.{i}.conv.{rest}", "point_rend.head.layers.{i}.{rest}"),
    ("decode_head.1.fc_seg.{rest}", "point_rend.head.predictor.{rest}"),
]
INSTANCE: list[Row] = [
    *COMMON,
    ("rpn_head.rpn_conv.{rest}", "rpn.conv.{rest}"),
    ("rpn_head.rpn_cls.{rest}", "rpn.objectness.{rest}"),
    ("rpn_head.rpn_reg.{rest}", "rpn.deltas.{rest}"),
    ("roi_head.bbox_head.shared_fcs.{i}.{rest}", "box_head.fc{i+1}.{rest}"),
    ("roi_head.bbox_head.fc_cls.{rest}", "box_head.classes.{rest}"),
    ("roi_head.bbox_head.fc_reg.{rest}", "box_head.deltas.{rest}"),
    ("roi_head.mask_head.downsample_conv.conv.{rest}", "mask_head.coarse_head.reduce_size.{rest}"),
    ("roi_head.mask_head.fcs.{i}.{rest}", "mask_head.coarse_head.fc{i+1}.{rest}"),
    ("roi_head.mask_head.fc_logits.{rest}", "mask_head.coarse_head.prediction.{rest}"),
    ("roi_head.point_head.fcs.{i}.conv.{rest}", "mask_head.point_head.layers.{i}.{rest}"),
    ("roi_head.point_head.fc_logits.{rest}", "mask_head.point_head.predictor.{rest}"),
]
IGNORED = ["data_preprocessor.{rest}"]  # persistent mean and std of some 1.x versions


def from_mmsegmentation(
    path: str | Path, *, config: SemanticConfig | None = None, class_names: Sequence[str] = ()
) -> SemanticSegmenter:
    """The model of an MMSegmentation checkpoint, zip or older serialisation, in evaluation mode.

    Args:
        path: of the file.
        config: instead of the one read off the file by `infer_semantic`.
        class_names: instead of those in the file's metadata; "class 0", "class 1", .. where neither says them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unreadable file, another model than PointRend on SemanticFPN, or names or shapes that do not
            fit exactly, all of which it lists.
    """
    model = _load(path, config, class_names, SEMANTIC, infer_semantic)
    assert isinstance(model, SemanticSegmenter)
    return model


def from_mmdetection(
    path: str | Path, *, config: InstanceConfig | None = None, class_names: Sequence[str] = ()
) -> InstanceSegmenter:
    """The model of an MMDetection PointRend checkpoint; everything else as of `from_mmsegmentation`."""
    model = _load(path, config, class_names, INSTANCE, infer_instance)
    assert isinstance(model, InstanceSegmenter)
    return model


def _load(
    path: str | Path, config: Any, class_names: Sequence[str], rows: list[Row], infer: Callable[..., object]
) -> Model:
    checkpoint = read_foreign(path)
    tensors = checkpoint.tensors
    if config is None:
        config = infer(tensors, checkpoint.meta.get("meta"), class_names, source=str(path))
    if config.backbone.norm == "frozen":  # MMDetection's frozen norms still count
        tensors = {name: one for name, one in tensors.items() if not name.endswith(".num_batches_tracked")}
    renamed = rename(tensors, rows, ignored=IGNORED, source=str(path))
    return build_from(config, renamed, source=str(path))


def infer_semantic(
    tensors: Mapping[str, Tensor],
    meta: object = None,
    class_names: Sequence[str] = (),
    *,
    source: str = "checkpoint",
) -> SemanticConfig:
    """The architecture that these names and shapes belong to; `meta` is the file's entry of that name.

    Raises ValueError for another model than PointRend on SemanticFPN with a ResNet.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with _recognising("MMSegmentation", shapes, source):
        classes, decoder_channels = shapes["decode_head.0.conv_seg.weight"][:2]
        width = shapes["decode_head.1.fcs.0.conv.weight"][0]
        point_inputs = shapes["decode_head.1.fc_seg.weight"][1]
        fpn_channels = shapes["neck.lateral_convs.0.conv.weight"][0]
        backbone = _infer_backbone(shapes)
    names, palette = classes_in_metadata(meta, classes)
    config = mmsegmentation_semantic(named(class_names or names, classes), palette)
    assert config.point_rend is not None
    rend = replace(
        config.point_rend,
        width=width,
        depth=count(shapes, "decode_head.1.fcs.{i}.conv.weight"),
        coarse_each_layer=point_inputs > width,
    )
    return replace(
        config,
        backbone=backbone,
        fpn_channels=fpn_channels,
        decoder_channels=decoder_channels,
        point_rend=rend,
    )


def infer_instance(
    tensors: Mapping[str, Tensor],
    meta: object = None,
    class_names: Sequence[str] = (),
    *,
    source: str = "checkpoint",
) -> InstanceConfig:
    """As `infer_semantic`. Raises ValueError for another model than PointRend with a bottleneck ResNet and FPN."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with _recognising("MMDetection", shapes, source):
        classes, box_width = shapes["roi_head.bbox_head.fc_cls.weight"]
        width, reduced = shapes["roi_head.mask_head.downsample_conv.conv.weight"][:2]
        hidden, flat = shapes["roi_head.mask_head.fcs.0.weight"]
        point_inputs = shapes["roi_head.point_head.fc_logits.weight"][1]
        backbone = {6: R_50, 23: R_101}[count(shapes, "backbone.layer3.{b}.conv3.weight")]
    names = class_names or classes_in_metadata(meta, classes - 1)[0]
    config = mmdetection_instance(named(names, classes - 1), backbone)
    masks = replace(
        config.masks,
        width=width,
        coarse_width=hidden,
        coarse_size=round((flat // width) ** 0.5),
        depth=count(shapes, "roi_head.point_head.fcs.{i}.conv.weight"),
        coarse_each_layer=point_inputs > width,
    )
    boxes = replace(config.boxes, width=box_width)
    return replace(config, fpn_channels=reduced, boxes=boxes, masks=masks)


@contextmanager
def _recognising(project: str, shapes: Mapping[str, object], source: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, ValueError) as error:
        some = ", ".join(list(shapes)[:5])
        raise ValueError(
            f"{source}: not a PointRend of {project} with a ResNet and FPN ({error} is missing or odd); it has "
            f"{some}, .."
        ) from error


def _infer_backbone(shapes: Mapping[str, tuple[int, ...]]) -> BackboneConfig:
    deep = "backbone.stem.0.weight" in shapes
    blocks = [count(shapes, f"backbone.layer{stage}.{{b}}.conv1.weight") for stage in (1, 2, 3, 4)]
    basic = "backbone.layer1.0.conv3.weight" not in shapes
    if blocks == [3, 4, 6, 3]:
        return BackboneConfig("resnet34" if basic else "resnet50", "batch", deep_stem=deep)
    if blocks == [3, 4, 23, 3] and not basic:
        return BackboneConfig("resnet101", "batch", deep_stem=deep)
    if blocks == [2, 2, 2, 2] and basic:
        return BackboneConfig("resnet18", "batch", deep_stem=deep)
    raise ValueError(f"a ResNet with {blocks} blocks")


def classes_in_metadata(
    meta: object, classes: int
) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Class names and palette of the metadata; empty where they are absent or not what they should be."""
    meta = meta if isinstance(meta, Mapping) else {}
    inner = meta.get("dataset_meta")
    inner = inner if isinstance(inner, Mapping) else {}
    names: object = inner.get("classes") or meta.get("CLASSES") or ()
    palette: object = inner.get("palette") or meta.get("PALETTE") or ()
    if not (
        isinstance(names, list | tuple) and len(names) == classes and all(isinstance(n, str) for n in names)
    ):
        names = ()
    if not (
        isinstance(palette, list | tuple) and len(palette) == classes and all(_is_colour(c) for c in palette)
    ):
        palette = ()
    return tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in palette)


def _is_colour(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in value)
    )
