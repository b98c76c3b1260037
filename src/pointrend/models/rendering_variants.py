"""One model, several ways to render: what to compare in tables such as the paper's Table 3.

evaluate_semantic(model, dataset, semantic_variants((2048, 8192)))
evaluate_instances(MaskVariants(model), dataset, mask_variants((28, 56, 112, 224)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pointrend.models.base import Pretrained
from pointrend.models.instance import InstanceSegmenter, InstanceTrace
from pointrend.models.mask_heads.pointrend import RenderedMaskHead
from pointrend.models.tta import ModelWrapper
from pointrend.results import InstanceResult

__all__ = ["MaskVariants", "mask_variants", "semantic_variants"]


def semantic_variants(num_points: Sequence[int] = (2048, 8192)) -> dict[str, Mapping[str, object]]:
    """Options for a semantic model: the interpolated coarse prediction, and N points in each subdivision step."""
    return {"coarse": {"refine": False}, **{f"N = {count}": {"num_points": count} for count in num_points}}


def mask_variants(
    mask_sizes: Sequence[int] = (28, 56, 112, 224), num_points: Sequence[int] = ()
) -> dict[str, Mapping[str, object]]:
    """Options for `MaskVariants`: the coarse masks, and masks rendered at several resolutions.

    Args:
        mask_sizes: S of the rendered masks; none: the configured one.
        num_points: N, points in each subdivision step, each at every resolution; none: the configured number.
    """
    variants: dict[str, Mapping[str, object]] = {"coarse": {"refine": False}}
    for size in mask_sizes or (None,):
        for count in num_points or (None,):
            parts = [f"{size} x {size}"] if size else []
            parts += [f"N = {count}"] if count else []
            options = {"mask_size": size, "num_points": count}
            chosen = {key: value for key, value in options.items() if value is not None}
            variants[", ".join(parts) or "refined"] = chosen
    return variants


class MaskVariants(ModelWrapper):
    """An instance model with PointRend whose `predict` takes options for how to render the masks.

    Boxes, classes and scores are found once for each image and shared by the variants, so they differ in their masks
    only, and comparing takes little longer than one prediction. (The seconds of the first variant include all
    that is shared.) The model is left as it was.
    """

    model: InstanceSegmenter

    def __init__(self, model: Pretrained) -> None:
        if not isinstance(model, InstanceSegmenter) or not isinstance(model.mask_head, RenderedMaskHead):
            raise ValueError(
                f"expected a model with a point head, got the mask head {getattr(model.config, 'mask_head', None)!r}; "
                "its masks have one resolution"
            )
        super().__init__(model)
        self._seen: tuple[Tensor, InstanceTrace] | None = None
        """The last image and all there is to know about it."""

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Tensor],
        *,
        refine: bool = True,
        mask_size: int | None = None,
        num_points: int | None = None,
    ) -> list[InstanceResult]:
        """The objects of each image, as the model's own `predict` gives them.

        Args:
            images: uint8 (3, H, W) RGB.
            refine: False pastes the coarse 7x7 masks.
            mask_size: of the rendered masks, instead of the configured one.
            num_points: in each subdivision step, instead of the configured number.
        """
        return [self._predict(image, refine, mask_size, num_points) for image in images]

    def _predict(
        self, image: Tensor, refine: bool, mask_size: int | None, num_points: int | None
    ) -> InstanceResult:
        if self._seen is None or self._seen[0] is not image:
            self._seen = (image, self.model.trace([image]))
        trace = self._seen[1]
        logits = self._rendered(trace, mask_size, num_points) if refine else _coarse(trace)
        return self.model.finish([image], trace.batch, trace.detections, [logits])[0]

    def _rendered(self, trace: InstanceTrace, mask_size: int | None, num_points: int | None) -> Tensor:
        if mask_size is None and num_points is None:
            return trace.logits
        head, found = self.model.mask_head, trace.detections[0]
        configured = head.config
        head.config = replace(
            configured,
            mask_size=mask_size or configured.mask_size,
            num_points=num_points or configured.num_points,
        )
        try:
            return self.model.masks_for_boxes(trace.features, [found.boxes], [found.labels])[0]
        finally:
            head.config = configured


def _coarse(trace: InstanceTrace) -> Tensor:
    """(R, 7, 7) coarse logits of each box's class."""
    assert trace.masks is not None
    return trace.regions.own(trace.masks.coarse)[:, 0]
