"""A semantic model on one image: features and coarse logits once, subdivision at any settings.

Shapes: C classes, h w coarse cells, R S rows and columns of the output grid, H W pixels of the image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from pointrend.app.types import Range, Rendering, Settings, Step, tensor_bytes
from pointrend.core.sampling import point_sample
from pointrend.core.subdivision import Size, SubdivisionStep, share_predicted
from pointrend.models.inputs import prepare_images
from pointrend.models.semantic_model import LabelMapConfig, SemanticModel
from pointrend.results import SemanticResult

MAX_CELLS = 1024
"""Cells along the longer side of the output, at most."""
LOGITS_BYTES = 2**27
"""Of the finest grid's logits, at most: many classes leave lower resolutions to choose from."""
CHUNK_BYTES = 2**25
"""Of logits interpolated at once."""


class SemanticSession:
    """Features and coarse logits of an image, uint8 (3, H, W) RGB."""

    @torch.no_grad()
    def __init__(self, model: SemanticModel, image: Tensor) -> None:
        assert model.point_rend is not None
        assert model.config.point_rend is not None
        started = time.perf_counter()
        self.config, self.point_rend, self.image = model.config, model.point_rend, image
        batch = prepare_images([image], model.config.preprocessing, model.device)
        self.seen, self.padded = batch.sizes[0], batch.padded_size
        maps = model.features(batch.tensor)
        self.coarse = model.coarse(maps)  # (1, C, h, w)
        self.maps = [maps[name] for name in model.config.point_rend.features]
        self.seconds = time.perf_counter() - started
        self.resolutions = _resolutions(model.config, self.seen, self.padded, self.coarse)
        self.points = Range.of_points(self.point_rend.num_points)

    @property
    def nbytes(self) -> int:
        """Memory that the features take."""
        return tensor_bytes([self.image, self.coarse, *self.maps])

    def grid(self, resolution: int) -> Size:
        """The grid over the padded image, with `resolution` cells along the longer side of the image itself."""
        scale = resolution / max(self.seen)
        return max(1, round(self.padded[0] * scale)), max(1, round(self.padded[1] * scale))

    @torch.no_grad()
    def render(self, settings: Settings) -> Rendering:
        """Subdivide at these settings; values out of range are moved inside."""
        count = self.points.clamp(settings.points)
        grid, trace = self.grid(self.resolutions.clamp(settings.resolution)), list[SubdivisionStep]()
        started = time.perf_counter()
        logits = self.point_rend.refine(self.coarse, self.maps, grid, num_points=count, trace=trace)
        seconds = time.perf_counter() - started
        size = (self.image.shape[1], self.image.shape[2])
        share = (self.seen[0] / self.padded[0], self.seen[1] / self.padded[1])
        result, probability = to_labels(logits, size, share, self.config)
        coarse, _ = to_labels(self.coarse, size, share, self.config)
        assert result.uncertainty is not None
        return Rendering(
            image=self.image,
            result=result,
            coarse=coarse,
            uncertainty=result.uncertainty,
            probability=probability,
            steps=steps_of(trace, (size[0] / share[0], size[1] / share[1]), size),
            regions=1,
            grid=grid,
            computed=round(share_predicted([s.size for s in trace], count) * grid[0] * grid[1]),
            seconds=seconds,
            feature_seconds=self.seconds,
        )


def to_labels(
    logits: Tensor, size: tuple[int, int], share: tuple[float, float], config: LabelMapConfig
) -> tuple[SemanticResult, Tensor]:
    """Logits on a grid as labels of the image's pixels, interpolated as the model's own `predict` does.

    Row chunk by row chunk, so that many classes do not take as many images' memory.

    Args:
        logits: (1, C, R, S) over the padded image.
        size: (H, W) of the image. share: of the grid's rows and columns that the image covers, in (0, 1].

    Returns:
        The labels with their uncertainty, and (H, W) the probability of each.
    """
    height, width = size
    x = (torch.arange(width, device=logits.device) + 0.5) / width * share[1]
    y = (torch.arange(height, device=logits.device) + 0.5) / height * share[0]
    # Padding is no neighbour: beyond the centre of the image's last cell its logits continue.
    x = x.clamp(max=max(share[1] - 0.5 / logits.shape[3], 0.5 / logits.shape[3]))
    y = y.clamp(max=max(share[0] - 0.5 / logits.shape[2], 0.5 / logits.shape[2]))
    rows = max(1, CHUNK_BYTES // (4 * logits.shape[1] * width))
    labels, best, margin = [], [], []
    for first in range(0, height, rows):
        part = y[first : first + rows]
        points = torch.stack((x.expand(len(part), -1), part[:, None].expand(-1, width)), dim=-1)
        sampled = point_sample(logits, points.reshape(1, -1, 2), padding="border")[0]  # (C, P)
        top = sampled.softmax(0).topk(2, dim=0)
        labels.append(sampled.argmax(0).view(len(part), width).cpu())
        best.append(top.values[0].view(len(part), width).cpu())
        margin.append((top.values[0] - top.values[1]).view(len(part), width).cpu())
    return config.result(torch.cat(labels), 1 - torch.cat(margin)), torch.cat(best)


def steps_of(
    trace: Sequence[SubdivisionStep], covered: tuple[float, float], size: tuple[int, int]
) -> list[Step]:
    """The chosen points in the image's pixels, of which the padded grid covers `covered` (height, width)."""
    steps = []
    for step in trace:
        points = step.points[0].cpu() * torch.tensor([covered[1], covered[0]])
        cells = torch.full((len(points),), covered[1] / step.size[1])
        steps.append(Step(step.size, points, cells).inside(*size))
    return steps


def _resolutions(config: LabelMapConfig, seen: Size, padded: Size, coarse: Tensor) -> Range:
    """From the coarse prediction's resolution up to what `LOGITS_BYTES` allow."""
    assert config.point_rend is not None
    start = max(coarse.shape[2] / padded[0], coarse.shape[3] / padded[1]) * max(seen)
    doublings = config.point_rend.subdivision_steps
    own = max(seen) if doublings is None else round(start * 2**doublings)
    cells = LOGITS_BYTES / 4 / config.num_classes  # of the padded grid
    room = int((cells / (padded[0] * padded[1])) ** 0.5 * max(seen))
    return Range.around(own, minimum=round(start), maximum=min(MAX_CELLS, room), step=8)
