"""Every row of the paper's tables by name: the training behind it, and how it is scored.

`pointrend train NAME` starts any of them; `pointrend zoo --recipes` lists the rows. What Detectron2 and MMSegmentation
published is in `training.published`; the rest differs from that as the tables say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pointrend.core.selection import PointSampling
from pointrend.data.transforms import ResizeShortEdge
from pointrend.models.semantic import SemanticConfig
from pointrend.training.config import TrainingConfig
from pointrend.training.published import PAPER_SCALES, POINT_SUP, RECIPES

COCO_1X = "pointrend_rcnn_R_50_FPN_1x_coco"
CITYSCAPES_1X = "pointrend_rcnn_R_50_FPN_1x_cityscapes"
SEMANTIC_FPN = "pointrend_semantic_R_101_FPN_1x_cityscapes"
DEEPLAB = "pointrend_deeplabv3_R_103_cityscapes"
STRATEGIES = {
    "regular_grid": PointSampling.regular(),
    "uniform": PointSampling.uniform(),
    "mildly_biased": PointSampling.mildly_biased(),
    "heavily_biased": PointSampling.heavily_biased(),
}
"""Of Table 4; the training of the published models is mildly biased. k = 10 and beta = 1 for "heavily biased", as the
table's text has it; a caption says 0.75."""


def sampling_fields(strategy: str) -> dict[str, Any]:
    """k, beta and the kind of a strategy of Table 4, or of "labelled", without N; ValueError for an unknown one."""
    known = STRATEGIES | {"labelled": PointSampling(strategy="labelled")}
    if strategy not in known:
        raise ValueError(f"point sampling: expected one of {', '.join(known)}, got {strategy!r}")
    return {name: value for name, value in vars(known[strategy]).items() if name != "num_points"}


def _trainings() -> Iterator[TrainingConfig]:
    for name, published in RECIPES.items():
        if name.startswith("pointrend_rcnn"):  # Tables 1 and 5
            baseline = replace(
                published.without_points(), name=name.replace("pointrend_rcnn", "mask_rcnn"), notes="4x conv"
            )
            yield baseline
            if name == COCO_1X:
                for size in (56, 224):
                    network: Any = replace(baseline.network, mask_head=f"conv{size}")  # type: ignore[arg-type]
                    yield replace(baseline, name=f"{baseline.name}_{size}x{size}", network=network)
        if name in (COCO_1X, CITYSCAPES_1X):  # Table 4
            for strategy in STRATEGIES:
                sampled = published.with_point_head(sampling=sampling_fields(strategy))
                yield replace(sampled, name=f"{name}_{strategy}")
    deeplab = RECIPES[DEEPLAB]
    yield replace(deeplab.without_points(), name="deeplabv3_R_103_cityscapes")  # Table 6
    for levels in (("p2", "p3", "p4", "p5"), ("p3", "p4", "p5")):  # Table 7
        name = f"semantic_R_101_{levels[0].upper()}{levels[-1].upper()}_cityscapes"
        full = replace(_semantic_fpn(levels), name=f"pointrend_{name}")
        yield full
        yield replace(full.without_points(), name=name)


def _semantic_fpn(levels: tuple[str, ...]) -> TrainingConfig:
    """SemanticFPN as the paper's text has it, where Detectron2's published model differs: scales in steps of 32 pixels,
    N = 8096, the coarse prediction in every layer of the point head ("the same architecture")."""
    published = RECIPES[SEMANTIC_FPN]
    network = published.network
    assert isinstance(network, SemanticConfig)
    assert network.point_rend is not None
    steps = 2 if levels[0] == "p2" else 3  # from stride 4 or 8 to the image's size
    rend = replace(network.point_rend, num_points=8096, subdivision_steps=steps, coarse_each_layer=True)
    augmentation = tuple(
        ResizeShortEdge(PAPER_SCALES, step.longest) if isinstance(step, ResizeShortEdge) else step
        for step in published.augmentation
    )
    return replace(
        published, network=replace(network, levels=levels, point_rend=rend), augmentation=augmentation
    )


TRAININGS: dict[str, TrainingConfig] = RECIPES | {config.name: config for config in _trainings()} | POINT_SUP
"""Every training that can be started by name."""


def find_recipe(name: str) -> TrainingConfig:
    """The training of this name.

    Raises:
        ValueError: if there is none; lists them.
    """
    if name not in TRAININGS:
        raise ValueError(f"no recipe {name!r}; there are\n  " + "\n  ".join(TRAININGS))
    return TRAININGS[name]


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables."""

    table: int
    what: str
    training: str
    """Name in `TRAININGS`."""
    options: str = ""
    """Of `pointrend eval`, beside the data."""


ROWS: tuple[Row, ...] = (
    Row(1, "4x conv, 28x28, COCO", "mask_rcnn_R_50_FPN_1x_coco"),
    Row(1, "4x conv, 28x28, Cityscapes", "mask_rcnn_R_50_FPN_1x_cityscapes"),
    *(
        Row(1, f"PointRend, {size}x{size}, {data}", name, f"--mask-sizes {size}")
        for data, name in (("COCO", COCO_1X), ("Cityscapes", CITYSCAPES_1X))
        for size in (28, 224)
    ),
    Row(2, "4x conv, 56x56 (the text beside it)", "mask_rcnn_R_50_FPN_1x_coco_56x56"),
    Row(2, "4x conv, 224x224", "mask_rcnn_R_50_FPN_1x_coco_224x224"),
    *(Row(3, f"{size}x{size}, N = 28²", COCO_1X, f"--mask-sizes {size}") for size in (28, 56, 112, 224)),
    *(
        Row(3, f"224x224, N = {side}²", COCO_1X, f"--mask-sizes 224 --points {side**2}")
        for side in (14, 28, 56, 112)
    ),
    *(
        Row(4, f"{strategy.replace('_', ' ')}, {data}", f"{name}_{strategy}")
        for data, name in (("COCO", COCO_1X), ("Cityscapes", CITYSCAPES_1X))
        for strategy in STRATEGIES
    ),
    *(
        Row(5, f"{backbone.replace('_', '-')}, {head}", f"{prefix}_{backbone}_FPN_3x_coco")
        for backbone in ("R_50", "R_101", "X_101_32x8d")
        for head, prefix in (("4x conv", "mask_rcnn"), ("PointRend", "pointrend_rcnn"))
    ),
    Row(6, "DeepLabV3, output stride 16", "deeplabv3_R_103_cityscapes"),
    Row(6, "DeepLabV3, output stride 8 at inference", "deeplabv3_R_103_cityscapes", "--output-stride 8"),
    Row(6, "DeepLabV3, output stride 16, PointRend", DEEPLAB),
    *(
        Row(
            7,
            f"SemanticFPN {levels[:2]}-{levels[2:]}{', PointRend' if prefix else ''}",
            f"{prefix}semantic_R_101_{levels}_cityscapes",
        )
        for levels in ("P2P5", "P3P5")
        for prefix in ("", "pointrend_")
    ),
)
"""Table 2 is about cost (`benchmarks/flops.py`); its heads can be trained nevertheless."""
