"""Every intermediate result of one prediction: `explain` collects them, the figures of `explain_figures` show them.

The network runs once: features, coarse logits and the steps of the subdivision are those of the prediction itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pointrend.core.lazy_grid import DenseLogits
from pointrend.core.selection import PointSampling, binary_uncertainty, margin_uncertainty
from pointrend.core.subdivision import SubdivisionStep
from pointrend.models.boxes import clip_boxes, has_area
from pointrend.models.inputs import prepare_images
from pointrend.models.paste_masks import paste_masks
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks, class_name
from pointrend.visualize.colors import RGBImage
from pointrend.visualize.label_placement import Box
from pointrend.visualize.overlays import Drawable, as_image
from pointrend.visualize.points import traced_box

if TYPE_CHECKING:
    from pointrend.models.instance import InstanceSegmenter, InstanceTrace
    from pointrend.models.semantic_model import SemanticModel


@dataclass(frozen=True)
class Explanation:
    """How one region was predicted: a whole image (semantic) or one object's box (instance). On the CPU."""

    image: RGBImage
    """(H, W, 3) uint8 RGB."""
    result: InstanceResult | SemanticResult
    """What the model says of the image; of an instance model, this one object alone. With its uncertainty."""
    box: Box
    """What the grids cover, in pixels of the image. A whole image's box reaches over its padding."""
    plane: Box
    """What the feature maps cover, in pixels of the image."""
    features: dict[str, torch.Tensor]
    """(C, h, w), the maps that the point head looks at, by name."""
    coarse: torch.Tensor | None
    """(C, h, w) coarse logits, one channel for an object; None for a head without a coarse prediction."""
    start: torch.Tensor
    """(C, h, w) logits from which the subdivision starts: the coarse ones of a whole image, or an object's first
    grid, every cell of which was predicted."""
    steps: tuple[SubdivisionStep, ...]
    """The subdivision, of this region alone (N = 1)."""
    sampling: PointSampling
    """How the model's training chose points."""

    @property
    def semantic(self) -> bool:
        return isinstance(self.result, SemanticResult)

    @property
    def grids(self) -> list[torch.Tensor]:
        """Logits (C, h, w) at each resolution that was rendered, the starting one first."""
        return [self.start, *(step.logits[0] for step in self.steps)]

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """Colours of the classes; empty where the default holds."""
        return self.result.palette if isinstance(self.result, SemanticResult) else ()

    @property
    def title(self) -> str:
        """Class and score of the object, or "the whole image"."""
        if isinstance(self.result, SemanticResult):
            return "the whole image"
        return f"{class_name(self.result.class_names, int(self.result.labels[0]))} {float(self.result.scores[0]):.2f}"

    def uncertainty(self, logits: torch.Tensor) -> torch.Tensor:
        """How undecided logits (1, C, ...) of this region are, (1, ...): the measure by which points were chosen."""
        return margin_uncertainty(logits) if self.semantic else binary_uncertainty(logits)

    def masks(self, scale: int = 1) -> InstanceMasks:
        """The object as it is at each resolution, in the image's pixels; what the model gives at that resolution.

        With a `scale`, in the pixels of an image so many times as large.

        Raises:
            ValueError: of a whole image, which has labels and no mask.
        """
        if self.semantic:
            raise ValueError("masks: expected an object, got a whole image; its label maps are in grids")
        height, width = self.image.shape[:2]
        size = (scale * height, scale * width)
        box = torch.tensor([self.box]) * scale
        pasted = [paste_masks(grid.sigmoid(), box, size) for grid in self.grids]
        return InstanceMasks(
            [masks.windows[0] for masks in pasted], torch.cat([masks.offsets for masks in pasted]), size
        )


def explain(model: Any, image: Drawable, *, instance: int = 0) -> Explanation:
    """Predict one image and keep every intermediate result.

    Args:
        model: an `InstanceSegmenter` or `SemanticSegmenter` with a point head, in eval mode.
        image: uint8 RGB, a tensor (3, H, W) or an array (H, W, 3).
        instance: of an instance model, which object; 0 has the highest score.

    Raises:
        ValueError: the model has no point head, or the image has no such object.
    """
    photo = as_image(image)
    tensor = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    task = getattr(model, "task", None)
    if task == "instance":
        return _explain_instance(model, photo, tensor, instance)
    if task == "semantic":
        return _explain_semantic(model, photo, tensor)
    raise ValueError(
        f"model: expected an InstanceSegmenter or a SemanticSegmenter, got {type(model).__name__}; for a network of "
        "your own pass `trace=[]` to PointRend.refine and that list to plot_steps"
    )


@torch.no_grad()
def _explain_semantic(model: SemanticModel, photo: RGBImage, image: torch.Tensor) -> Explanation:
    rend = model.config.point_rend
    if rend is None or model.point_rend is None:
        raise ValueError("this model predicts without points; explain one trained with PointRend")
    trace: list[SubdivisionStep] = []
    batch = prepare_images([image], model.config.preprocessing, model.device)
    maps = model.features(batch.tensor)
    logits = model.coarse(maps)
    grids = [DenseLogits(one) for one in model.refined(maps, logits, batch.padded_size, trace=trace)]
    (result,) = model.finish(grids, batch, [image], uncertainty=True)
    assert result.uncertainty is not None
    coarse = logits[0].cpu()
    box = traced_box(photo, model.config.preprocessing)
    return Explanation(
        photo,
        replace(result, labels=result.labels.cpu(), uncertainty=result.uncertainty.cpu()),
        box,
        box,
        {name: maps[name][0].cpu() for name in rend.features},
        coarse,
        coarse,
        _of_region(trace, 0),
        rend.sampling,
    )


def _explain_instance(
    model: InstanceSegmenter, photo: RGBImage, image: torch.Tensor, instance: int
) -> Explanation:
    trace = model.trace([image])
    (result,) = trace.results
    if trace.masks is None:
        raise ValueError(
            f"this model's mask head ({model.config.mask_head}) predicts without points; explain one with PointRend"
        )
    if not 0 <= instance < len(result):
        found = f"objects 0..{len(result) - 1}" if len(result) else "no object"
        raise ValueError(f"instance: the model found {found} in this image, asked for {instance}")
    region = int(kept_regions(trace, photo)[instance])
    coarse = trace.masks.coarse[region].cpu()  # (K, 7, 7), or (0, 0, 0) where there is none
    label = int(trace.regions.labels[region]) if len(coarse) > 1 else 0
    rows, columns = trace.batch.sizes[0]
    padded_rows, padded_columns = trace.batch.padded_size
    height, width = photo.shape[:2]
    x1, y1, x2, y2 = (float(side) for side in result.boxes[instance])
    return Explanation(
        photo,
        result[[instance]],
        (x1, y1, x2, y2),
        (0.0, 0.0, width * padded_columns / columns, height * padded_rows / rows),
        {name: trace.features[name][0].cpu() for name in model.config.masks.features},
        coarse[label : label + 1] if coarse.numel() else None,
        trace.masks.start[region].cpu(),
        _of_region(trace.masks.steps, region),
        model.config.masks.sampling,
    )


def kept_regions(trace: InstanceTrace, image: Drawable) -> torch.Tensor:
    """(D,) which regions of the trace of one image became its D objects: those with area in the image."""
    return torch.nonzero(has_area(boxes_in_image(trace, image))).flatten()


def variants(
    model: InstanceSegmenter | SemanticModel, image: Drawable, *, scale: int = 1
) -> dict[str, InstanceResult | SemanticResult]:
    """The same prediction without and with points: "coarse" (where the model has it) and the final one.

    The final one is called "PointRend", or "4x conv" for the paper's baseline. Of an instance model both have the same
    boxes, classes and scores.

    Args:
        scale: of an instance model: render boxes and masks in the pixels of an image so many times as large.
    """
    photo = as_image(image)
    tensor = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    if model.task == "instance":
        return dict(_instance_variants(model, photo, tensor, scale))
    refined = {"PointRend": model.predict([tensor])[0]} if model.point_rend is not None else {}
    return {"coarse": model.predict([tensor], refine=False)[0], **refined}


def _instance_variants(
    model: InstanceSegmenter, photo: RGBImage, image: torch.Tensor, scale: int
) -> Iterator[tuple[str, InstanceResult]]:
    trace = model.trace([image])
    (result,) = trace.results
    keep = kept_regions(trace, photo)
    size, boxes = (scale * photo.shape[0], scale * photo.shape[1]), scale * result.boxes
    logits = {}
    if trace.masks is not None and trace.masks.coarse.numel():
        logits["coarse"] = trace.regions.own(trace.masks.coarse)[:, 0]
    logits[FINAL_NAMES.get(model.config.mask_head, "PointRend")] = trace.logits
    for name, values in logits.items():
        masks = paste_masks(values[keep].sigmoid().cpu(), boxes, size)
        yield name, replace(result, boxes=boxes, masks=masks, uncertainty=None)


FINAL_NAMES = {f"conv{size}": f"4x conv, {size}×{size}" for size in (28, 56, 224)} | {"coarse": "coarse"}


def boxes_in_image(trace: InstanceTrace, image: Drawable) -> torch.Tensor:
    """(R, 4) the regions' boxes in the pixels of the image, which stood alone in its batch."""
    height, width = as_image(image).shape[:2]
    rows, columns = trace.batch.sizes[0]
    scale = trace.regions.boxes.new_tensor([width / columns, height / rows]).repeat(2)
    return clip_boxes(trace.regions.boxes * scale, (height, width))


def _of_region(trace: Sequence[SubdivisionStep], region: int) -> tuple[SubdivisionStep, ...]:
    own = slice(region, region + 1)
    return tuple(
        SubdivisionStep(
            step.size,
            step.upsampled[own].cpu(),
            step.index[own].cpu(),
            step.points[own].cpu(),
            step.logits[own].cpu(),
        )
        for step in trace
    )
