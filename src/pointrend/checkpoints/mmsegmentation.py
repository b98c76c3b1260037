"""MMSegmentation's PointRend checkpoints (0.x and 1.x): a table of names, and the architecture read off their
shapes.

The files are `{"meta": {..}, "state_dict": {..}}`; class names and palette are taken from the metadata
("CLASSES" and "PALETTE" of 0.x, "dataset_meta" of 1.x) where they are there. Test size, points and steps are
the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pointrend.checkpoints.external import read_foreign
from pointrend.checkpoints.key_mapping import Row, count, rename
from pointrend.checkpoints.native import build_from
from pointrend.models.backbones import BackboneConfig
from pointrend.models.published import mmsegmentation_semantic, named
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter

ROWS: list[Row] = [
    ("backbone.stem.{i}.{rest}", "backbone.stem.{i}.{rest}"),
    ("backbone.conv1.{rest}", "backbone.stem.0.{rest}"),  # ResNet instead of ResNetV1c
    ("backbone.bn1.{rest}", "backbone.stem.1.{rest}"),
    ("backbone.layer{s}.{b}.{rest}", "backbone.res{s+1}.{b}.{rest}"),
    ("neck.lateral_convs.{i}.conv.{rest}", "fpn.inner_blocks.{i}.0.{rest}"),
    ("neck.fpn_convs.{i}.conv.{rest}", "fpn.layer_blocks.{i}.0.{rest}"),
    ("decode_head.0.conv_seg.{rest}", "decoder.predictor.{rest}"),
    ("decode_head.0.scale_heads.{i}.{j}.conv.{rest}", "decoder.branches.p{i+2}.{j}.0.{rest}"),
    ("decode_head.0.scale_heads.{i}.{j}.bn.{rest}", "decoder.branches.p{i+2}.{j}.1.{rest}"),
    ("decode_head.1.fcs.{i}.conv.{rest}", "point_rend.head.layers.{i}.{rest}"),
    ("decode_head.1.fc_seg.{rest}", "point_rend.head.predictor.{rest}"),
]
IGNORED = ["data_preprocessor.{rest}"]  # persistent mean and std of some 1.x versions


def from_mmsegmentation(
    path: str | Path, *, config: SemanticConfig | None = None, class_names: Sequence[str] = ()
) -> SemanticSegmenter:
    """The model of an MMSegmentation checkpoint, zip or older serialisation, in evaluation mode.

    Args:
        path: of the file.
        config: instead of the one read off the file by `infer_config`.
        class_names: instead of those in the file's metadata; "class 0", "class 1", .. where neither says them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unreadable file, another model than PointRend on SemanticFPN, or names or shapes that do not
            fit exactly, all of which it lists.
    """
    checkpoint = read_foreign(path)
    if config is None:
        config = infer_config(checkpoint.tensors, checkpoint.meta.get("meta"), class_names, source=str(path))
    renamed = rename(checkpoint.tensors, ROWS, ignored=IGNORED, source=str(path))
    model = build_from(config, renamed, source=str(path))
    assert isinstance(model, SemanticSegmenter)
    return model


def infer_config(
    tensors: Mapping[str, Tensor],
    meta: Any = None,
    class_names: Sequence[str] = (),
    *,
    source: str = "checkpoint",
) -> SemanticConfig:
    """The architecture that these names and shapes belong to; `meta` is the file's entry of that name.

    Raises ValueError for another model than PointRend on SemanticFPN with a ResNet.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        classes, decoder_channels = shapes["decode_head.0.conv_seg.weight"][:2]
        width = shapes["decode_head.1.fcs.0.conv.weight"][0]
        point_inputs = shapes["decode_head.1.fc_seg.weight"][1]
        fpn_channels = shapes["neck.lateral_convs.0.conv.weight"][0]
        backbone = _infer_backbone(shapes)
    except (KeyError, IndexError, ValueError) as error:
        some = ", ".join(list(shapes)[:5])
        raise ValueError(
            f"{source}: not a PointRend of MMSegmentation with a ResNet and FPN ({error} is missing or odd); "
            f"it has {some}, .."
        ) from error
    names, palette = described(meta, classes)
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


def described(meta: Any, classes: int) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Class names and palette of the metadata; empty where they are absent or not what they should be."""
    meta = meta if isinstance(meta, Mapping) else {}
    inner = meta.get("dataset_meta")
    inner = inner if isinstance(inner, Mapping) else {}
    names: Any = inner.get("classes") or meta.get("CLASSES") or ()
    palette: Any = inner.get("palette") or meta.get("PALETTE") or ()
    if not (
        isinstance(names, list | tuple) and len(names) == classes and all(isinstance(n, str) for n in names)
    ):
        names = ()
    if not (
        isinstance(palette, list | tuple) and len(palette) == classes and all(_is_colour(c) for c in palette)
    ):
        palette = ()
    return tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in palette)


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in value)
    )
