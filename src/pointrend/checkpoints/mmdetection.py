"""MMDetection's PointRend checkpoints (COCO instances, "caffe" ResNet): a table of names over the common
architecture.

Read in MMDetection's source (2.x and 3.x), nothing run, and no stored outputs of it are at hand: that its
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

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, count, rename
from pointrend.checkpoints.mmsegmentation import described
from pointrend.checkpoints.native import build_from
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.published import R_50, R_101, mmdetection_instance, named

ROWS: list[Row] = [
    ("backbone.conv1.{rest}", "backbone.stem.0.{rest}"),
    ("backbone.bn1.{rest}", "backbone.stem.1.{rest}"),
    ("backbone.layer{s}.{b}.{rest}", "backbone.res{s+1}.{b}.{rest}"),
    ("neck.lateral_convs.{i}.conv.{rest}", "fpn.inner_blocks.{i}.0.{rest}"),
    ("neck.fpn_convs.{i}.conv.{rest}", "fpn.layer_blocks.{i}.0.{rest}"),
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
# Frozen norms of MMDetection still count.
IGNORED = ["{rest}.num_batches_tracked", "data_preprocessor.{rest}"]


def from_mmdetection(
    path: str | Path, *, config: InstanceConfig | None = None, class_names: Sequence[str] = ()
) -> InstanceSegmenter:
    """The model of an MMDetection PointRend checkpoint, in evaluation mode.

    config: instead of the one read off the file by `infer_config`.
    class_names: instead of those in the file's metadata; "class 0", "class 1", .. where neither says them.

    Raises FileNotFoundError, and ValueError for an unreadable file, another model, and names or shapes that
    do not fit exactly, all of which it lists.
    """
    checkpoint = read_foreign(path)
    tensors = checkpoint.tensors
    if config is None:
        config = infer_config(tensors, checkpoint.meta.get("meta"), class_names, source=str(path))
    known = {name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")}
    renamed = rename(known, ROWS, ignored=IGNORED, source=str(path))
    model = build_from(config, renamed, source=str(path))
    assert isinstance(model, InstanceSegmenter)
    return model


def infer_config(
    tensors: Mapping[str, Tensor],
    meta: Any = None,
    class_names: Sequence[str] = (),
    *,
    source: str = "checkpoint",
) -> InstanceConfig:
    """The architecture that these names and shapes belong to; settings that leave no trace as published.

    Raises ValueError for another model than PointRend with a bottleneck ResNet and FPN.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        classes, box_width = shapes["roi_head.bbox_head.fc_cls.weight"]
        width, reduced = shapes["roi_head.mask_head.downsample_conv.conv.weight"][:2]
        hidden, flat = shapes["roi_head.mask_head.fcs.0.weight"]
        point_inputs = shapes["roi_head.point_head.fc_logits.weight"][1]
        backbone = {6: R_50, 23: R_101}[count(shapes, "backbone.layer3.{b}.conv3.weight")]
    except (KeyError, IndexError, ValueError) as error:
        some = ", ".join(list(shapes)[:5])
        raise ValueError(
            f"{source}: not a PointRend of MMDetection with a ResNet and FPN ({error} is missing or odd); it has "
            f"{some}, .."
        ) from error
    names = class_names or described(meta, classes - 1)[0]
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
