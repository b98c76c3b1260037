"""An instance model on one image: features and boxes once, their masks at any settings.

Shapes: D detections, R boxes, S side of a mask's grid, H W pixels of the image.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pointrend.app.types import Range, Rendering, Settings, Step, tensor_bytes
from pointrend.core.sampling import points_in_image
from pointrend.core.subdivision import SubdivisionStep, share_predicted, subdivision_sizes
from pointrend.models.box_head import Detections
from pointrend.models.boxes import Regions
from pointrend.models.inputs import ImageBatch
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.paste_masks import paste_window
from pointrend.results import InstanceResult

MAX_CELLS = 448
"""Cells along each side of a mask, at most."""


class InstanceSession:
    """Features and boxes of an image, uint8 (3, H, W) RGB."""

    @torch.no_grad()
    def __init__(self, model: InstanceSegmenter, image: Tensor) -> None:
        assert isinstance(model.mask_head, PointRendMaskHead)
        started = time.perf_counter()
        self.model, self.head, self.image = model, model.mask_head, image
        batch = model.prepare([image])
        features = model.features(batch)
        (self.found,) = model.detect(features, model.propose(features, batch), batch)
        self.batch = ImageBatch(
            batch.tensor[..., :1, :1].clone(), batch.sizes
        )  # only the sizes are asked for again
        config = model.config.masks
        self.features = {name: features[name] for name in {"p2", *config.features}}
        self.seconds = time.perf_counter() - started
        self.resolutions = Range.around(
            config.mask_size, minimum=config.coarse_size, maximum=MAX_CELLS, step=config.coarse_size
        )
        self.points = Range.of_points(config.num_points)

    @property
    def nbytes(self) -> int:
        """Memory that the features take."""
        return tensor_bytes([self.image, self.found.boxes, *self.features.values()])

    @torch.no_grad()
    def render(self, settings: Settings) -> Rendering:
        """Subdivide the mask of every box that scores enough; values out of range are moved inside."""
        side, points = self.resolutions.clamp(settings.resolution), self.points.clamp(settings.points)
        chosen = self.found.scores >= settings.min_score
        found = Detections(self.found.boxes[chosen], self.found.scores[chosen], self.found.labels[chosen])
        head = head_at(self.head, side, points)
        logits, coarse, traces = [], [], []
        started = time.perf_counter()
        regions = Regions.from_lists([found.boxes], [found.labels])
        for part in regions.chunks(head.boxes_at_once) if len(regions) else ():
            fine, trace = head.trace(self.features, part)
            logits.append(fine)
            coarse.append(part.own(trace.coarse)[:, 0])
            traces.append(steps_of(trace.steps, part.boxes))
        seconds = time.perf_counter() - started
        result = self._finish(found, logits, side)
        start, grid = head.config.start_size, (side, side)
        sizes = subdivision_sizes((start, start), grid) if start < side else []
        height, width = self.image.shape[1:]
        scale = torch.tensor([width / self.batch.sizes[0][1], height / self.batch.sizes[0][0]])
        return Rendering(
            image=self.image,
            result=result,
            coarse=self._finish(found, coarse, head.config.coarse_size),
            uncertainty=pasted_uncertainty(result),
            probability=None,
            steps=joined(traces, scale),
            regions=len(regions),
            grid=grid,
            computed=start**2 + round(share_predicted(sizes, points) * side**2),
            seconds=seconds,
            feature_seconds=self.seconds,
        )

    def _finish(self, found: Detections, logits: Sequence[Tensor], side: int) -> InstanceResult:
        grids = torch.cat(list(logits)) if logits else found.boxes.new_zeros((0, side, side))
        return self.model.finish([self.image], self.batch, [found], [grids], uncertainty=True)[0]


def head_at(head: PointRendMaskHead, side: int, points: int) -> PointRendMaskHead:
    """The same head, sharing its weights, at another resolution and number of points."""
    other = copy.copy(head)
    other.config = replace(head.config, mask_size=side, num_points=points)
    return other


def steps_of(trace: Sequence[SubdivisionStep], boxes: Tensor) -> list[Step]:
    """The chosen points of all boxes (R, 4), in the pixels that the boxes are in."""
    steps = []
    for step in trace:
        points = points_in_image(step.points, boxes)  # (R, P, 2)
        cells = ((boxes[:, 2] - boxes[:, 0]) / step.size[1])[:, None].expand(points.shape[:2])
        steps.append(Step(step.size, points.flatten(0, 1).cpu(), cells.flatten().cpu()))
    return steps


def joined(parts: Sequence[Sequence[Step]], scale: Tensor) -> list[Step]:
    """The steps of several chunks of boxes together, their points times `scale` (x, y)."""
    return [
        Step(
            same[0].size,
            torch.cat([step.points for step in same]) * scale,
            torch.cat([step.cells for step in same]) * scale[0],
        )
        for same in zip(*parts, strict=True)
    ]


def pasted_uncertainty(result: InstanceResult) -> Tensor:
    """(H, W) float32: how undecided the masks are at each pixel; where boxes overlap, the least sure one counts."""
    plane = torch.zeros(result.masks.image_size)
    if result.uncertainty is not None:
        for uncertainty, box in zip(result.uncertainty, result.boxes, strict=True):
            window, (x, y) = paste_window(uncertainty, box, result.masks.image_size)
            area = plane[y : y + window.shape[0], x : x + window.shape[1]]
            torch.maximum(area, window.clamp(0, 1), out=area)
    return plane
