"""One model, several ways to render: what to compare in tables such as the paper's Table 3.

evaluate_semantic(model, dataset, semantic_variants((2048, 8192)))
evaluate_instances(MaskVariants(model), dataset, mask_variants((28, 56, 112, 224)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["MaskVariants", "mask_variants", "semantic_variants"]


def semantic_variants(num_points: Sequence[int] = (2048, 8192)) -> dict[str, Mapping[str, Any]]:
    """Options for a semantic model: the interpolated coarse prediction, and N points in each subdivision step."""
    return {"coarse": {"refine": False}, **{f"N = {count}": {"num_points": count} for count in num_points}}


def mask_variants(
    mask_sizes: Sequence[int] = (28, 56, 112, 224), num_points: Sequence[int] = ()
) -> dict[str, Mapping[str, Any]]:
    """Options for `MaskVariants`: the coarse masks, and masks rendered at several resolutions.

    Args:
        mask_sizes: S of the rendered masks; none: the configured one.
        num_points: N, points in each subdivision step, each at every resolution; none: the configured number.
    """
    variants: dict[str, Mapping[str, Any]] = {"coarse": {"refine": False}}
    for size in mask_sizes or (None,):
        for count in num_points or (None,):
            parts = [f"{size} x {size}"] if size else []
            parts += [f"N = {count}"] if count else []
            options = {"mask_size": size, "num_points": count}
            chosen = {key: value for key, value in options.items() if value is not None}
            variants[", ".join(parts) or "refined"] = chosen
    return variants


class MaskVariants:
    """An instance model with PointRend whose `predict` takes options for how to render the masks.

    Boxes, classes and scores are found once for each image and shared by the variants, so they differ in their masks
    only, and comparing takes little longer than one prediction. (The seconds of the first variant include all
    that is shared.) The model is left as it was.
    """

    def __init__(self, model: Any) -> None:
        if not hasattr(model.mask_head, "point_head"):
            raise ValueError(
                f"expected a model with a point head, got the mask head {model.config.mask_head!r}; "
                "its masks have one resolution"
            )
        self.model = model
        self.config = model.config
        self._seen: tuple[Tensor, Any] | None = None  # the last image and all there is to know about it

    @property
    def training(self) -> bool:
        """Of the model."""
        return bool(self.model.training)

    def train(self, mode: bool = True) -> MaskVariants:
        """Put the model into training mode, or out of it."""
        self.model.train(mode)
        return self

    def eval(self) -> MaskVariants:
        """Put the model into evaluation mode."""
        return self.train(False)

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Tensor],
        *,
        refine: bool = True,
        mask_size: int | None = None,
        num_points: int | None = None,
    ) -> list[Any]:
        """The objects of each image, as the model's own `predict` gives them.

        Args:
            images: uint8 (3, H, W) RGB.
            refine: False pastes the coarse 7x7 masks.
            mask_size: of the rendered masks, instead of the configured one.
            num_points: in each subdivision step, instead of the configured number.
        """
        return [self._predict(image, refine, mask_size, num_points) for image in images]

    def _predict(self, image: Tensor, refine: bool, mask_size: int | None, num_points: int | None) -> Any:
        if self._seen is None or self._seen[0] is not image:
            self._seen = (image, self.model.trace([image]))
        trace = self._seen[1]
        logits = self._rendered(trace, mask_size, num_points) if refine else _coarse(trace)
        return self.model.finish([image], trace.batch, trace.detections, [logits])[0]

    def _rendered(self, trace: Any, mask_size: int | None, num_points: int | None) -> Tensor:
        if mask_size is None and num_points is None:
            logits: Tensor = trace.logits
            return logits
        head, found = self.model.mask_head, trace.detections[0]
        configured = head.config
        head.config = replace(
            configured,
            mask_size=mask_size or configured.mask_size,
            num_points=num_points or configured.num_points,
        )
        try:
            rendered: Tensor = self.model.masks_for_boxes(trace.features, [found.boxes], [found.labels])[0]
        finally:
            head.config = configured
        return rendered


def _coarse(trace: Any) -> Tensor:
    """(R, 7, 7) coarse logits of each box's class."""
    own: Tensor = trace.regions.own(trace.masks.coarse)
    return own[:, 0]
